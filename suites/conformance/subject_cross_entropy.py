"""Cross-entropy with each of its options as subjects of the exhaustive proofs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from suites.conformance import class_roles
from suites.conformance.class_roles import mapped
from suites.conformance.extended import Array, exp_difference
from suites.conformance.proof import Inputs, Subject, Truth

# --- truth ----------------------------------------------------------------------------------------


def _coefficients(roles: dict[str, Array], smoothing: float) -> Array:
    """a = w ((1 - s) t + s / C), (N, C)."""
    n_classes, target = roles["input"].shape[1], roles["target"]
    own = target if target.ndim == 2 else np.arange(n_classes) == target[:, None]
    smoothing = np.longdouble(smoothing)
    return (own * (1 - smoothing) + smoothing / n_classes) * roles.get("weight", np.longdouble(1))


def _others(a: Array) -> Array:
    """The sum of the other columns, added up without the own one: A - a_c may cancel."""
    zero = np.zeros_like(a[:, :1])
    before = np.cumsum(np.concatenate([zero, a[:, :-1]], axis=1), axis=1)
    after = np.cumsum(np.concatenate([zero, a[:, :0:-1]], axis=1), axis=1)[:, ::-1]
    return before + after


def _capped(x: Array, softcap: float) -> tuple[Array, Array]:
    """The capped logits k tanh(x / k), and their slope."""
    if not softcap:
        return x, np.ones_like(x)
    power = np.exp(-2 * np.abs(x / softcap))
    return softcap * np.tanh(x / softcap), 4 * power / (1 + power) ** 2


def _truth(
    roles: dict[str, Array], smoothing: float, z_loss: float, softcap: float
) -> dict[str, Truth]:
    """With z the capped logits, m their maximum, A = sum a, D = sum exp(z - m), R = D - 1:

        L = sum a_c (m - z_c) + A log1p(R) + zeta (m + log1p(R))**2,
        dL/dz_c = (e_c (A - a_c) - a_c (D - e_c)) / D + 2 zeta (m + log1p(R)) e_c / D.

    The terms that may cancel, and how often each is rounded, are derived in
    `suites.catalog.cross_entropy_truth.slack`. Beyond it: weights of both signs, which the catalog
    has none of, add 8u of the coefficients' sizes; a weight adds 3u to a class index's loss
    and 2u to its gradient.
    """
    g = roles["upstream"][:, None]
    a = _coefficients(roles, smoothing)
    z, slope = _capped(roles["input"], softcap)
    top = z.max(axis=1, keepdims=True)
    powers = exp_difference(z, top)
    others = powers.copy()
    np.put_along_axis(others, z.argmax(axis=1)[:, None], 0, 1)
    rest = others.sum(axis=1, keepdims=True)
    log_sum, share = np.log1p(rest), powers / (1 + rest)
    lse, size = top + log_sum, np.abs(top) + log_sum
    mass = a.sum(axis=1, keepdims=True)
    gaps = np.where(a == 0, 0, a * (top - z))
    loss = gaps.sum(axis=1, keepdims=True) + np.where(mass == 0, 0, mass * log_sum)
    apart = _others(a)
    beside = np.where(z == top, rest, 1 + (rest - powers))
    pulls, pushes = share * apart, a * beside / (1 + rest)
    of_z = 2 * z_loss * share * lse
    gradient = (pulls - pushes + of_z) * slope

    dense = roles["target"].ndim == 2 or smoothing > 0
    terms = np.abs(pulls) + np.abs(pushes)
    # Dense coefficients are rounded up to three times. A class index's loss is right to 2 ULP, 4u
    # of it at most, before a weight rounds it once more: 3u beside the product's own 2 ULP.
    weights = 3 if "weight" in roles or smoothing > 0 else 0
    forward = weights * np.abs(gaps.sum(axis=1, keepdims=True) + mass * log_sum)
    backward = (8 if dense else 2 if "weight" in roles else 0) * terms
    signs = (a < 0).any(axis=1, keepdims=True)
    weight_sizes = np.abs(a).sum(axis=1, keepdims=True)
    forward = np.where(
        signs, 8 * (np.abs(gaps).sum(axis=1, keepdims=True) + weight_sizes * log_sum), forward
    )
    backward = np.where(signs, 8 * share * (weight_sizes + np.abs(a)) + backward, backward)
    if z_loss:
        forward = forward + 4 * z_loss * np.abs(lse) * size
        backward = backward + 2 * terms + 4 * z_loss * share * size + 5 * np.abs(of_z)
    if softcap:
        largest = np.abs(z).max(axis=1, keepdims=True)
        forward = forward + 8 * largest * np.abs(mass)
        if z_loss:
            forward = forward + 16 * z_loss * np.abs(lse) * largest
            backward = backward + 16 * z_loss * share * largest
        backward = backward + (2 + 16 * largest) * (terms + np.abs(of_z))
    truths = {
        "output": Truth((loss + z_loss * lse**2)[:, 0], forward[:, 0]),
        "input": Truth(g * gradient, np.abs(g) * backward * slope),
    }
    if roles["target"].ndim == 2:
        ratio = (top - z) + log_sum
        of_target = g * roles.get("weight", 1) * (1 - np.longdouble(smoothing)) * ratio
        # A capped logit errs as it does in the loss.
        capped = 8 * np.abs(z).max(axis=1, keepdims=True) if softcap else 0
        of_cap = np.abs(g * roles.get("weight", 1) * (1 - smoothing)) * capped
        # log D, m - z and their sum round before the product; 1 - s and the weight as in the loss.
        truths["target"] = Truth(of_target, of_cap + (1 + weights) * np.abs(of_target))
    return truths


def _strange(inputs: Inputs, shared: tuple[str, ...], *, capped: bool) -> Tensor:
    """Rows with a NaN, a +inf, nothing but masks, or a target, a weight or an upstream gradient
    that is not finite. A mask among finite logits is ours: a class of coefficient 0 is left out. A
    cap makes infinite logits finite.
    """
    x = inputs["input"].double()
    bad = ~(x < torch.inf).all(dim=1) | (x == -torch.inf).all(dim=1)
    if capped:
        bad = x.isnan().any(dim=1)
    bad |= ~torch.isfinite(inputs["upstream"])
    if inputs["target"].is_floating_point():
        bad |= ~torch.isfinite(inputs["target"]).all(dim=1)
    if "weight" in inputs:
        bad |= ~torch.isfinite(inputs["weight"]).all()
    return bad


# --- subjects -------------------------------------------------------------------------------------


def _torch(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
) -> Tensor:
    """torch's loss, the cap and the z-loss written out."""
    if softcap:
        input = softcap * torch.tanh(input / softcap)
    loss = F.cross_entropy(input, target, weight, label_smoothing=label_smoothing, reduction="none")
    return loss + z_loss * input.logsumexp(dim=1).square() if z_loss else loss


def _subject(
    name: str,
    roles: dict[str, Any],
    change: Callable[[Inputs], Inputs] = lambda inputs: inputs,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float = 0.0,
    extra_pairs: dict[str, Any] | None = None,
) -> Subject:
    """Cross-entropy with these options; `change` adds the inputs that it needs to each draw's."""
    options = {"label_smoothing": label_smoothing, "z_loss": z_loss, "softcap": softcap or None}
    example = change(class_roles.draw(2, 4, torch.float32))
    soft = example["target"].is_floating_point()
    return Subject(
        name=name,
        ours=functools.partial(kernels.cross_entropy, reduction="none", **options),
        torch=functools.partial(_torch, **options),
        truth=functools.partial(_truth, smoothing=label_smoothing, z_loss=z_loss, softcap=softcap),
        roles=roles,
        pairs=mapped(change, class_roles.PAIRS) | (extra_pairs or {}),
        draw=lambda *shape: change(class_roles.draw(*shape)),
        differentiable=("input", "target") if soft else ("input",),
        shared=("weight",) if "weight" in example else (),
        factors=("upstream", "weight") if "weight" in example else ("upstream",),
        strange=functools.partial(_strange, capped=softcap > 0),
    )


_FEW, _SOFT, _WEIGHTED = class_roles.FEW, class_roles.soft, class_roles.weighted
SUBJECTS = (
    _subject("cross_entropy", class_roles.ROLES),
    _subject(
        "cross_entropy(weight)",
        {"class_weight": class_roles.class_weights} | mapped(_WEIGHTED, _FEW),
        _WEIGHTED,
    ),
    _subject("cross_entropy(label_smoothing)", _FEW, label_smoothing=0.1),
    _subject("cross_entropy(z_loss)", _FEW, z_loss=0.01),
    _subject("cross_entropy(softcap)", _FEW, softcap=30.0),
    _subject(
        "cross_entropy(probabilities)",
        {"probability": class_roles.probability} | mapped(_SOFT, _FEW),
        _SOFT,
        extra_pairs={"logit_probability": class_roles.logit_and_probability},
    ),
    _subject(
        "cross_entropy(everything)",
        mapped(lambda inputs: _WEIGHTED(_SOFT(inputs)), _FEW),
        lambda inputs: _WEIGHTED(_SOFT(inputs)),
        label_smoothing=0.1,
        z_loss=0.01,
        softcap=30.0,
    ),
)
