"""Binary cross-entropy, plain and weighted, as subjects of the exhaustive proofs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from suites.catalog.binary_cross_entropy import BINARY_CROSS_ENTROPY
from suites.conformance.class_roles import LARGEST_UPSTREAM, mapped, promised
from suites.conformance.extended import Array
from suites.conformance.layout_roles import COLUMNS, ordinary
from suites.conformance.proof import Inputs, Subject, Truth

# --- truth ----------------------------------------------------------------------------------------


def _sigmoids(x: Array) -> tuple[Array, Array]:
    """sigmoid(x) and sigmoid(-x), each relatively accurate."""
    power = np.exp(-np.abs(x))
    large, small = 1 / (1 + power), power / (1 + power)
    return np.where(x > 0, large, small), np.where(x > 0, small, large)


def _truth(roles: dict[str, Array]) -> dict[str, Truth]:
    """With T = log1p(exp(-|x|)) and c = 1 - y for x > 0, p y otherwise:

        L = w (|x| c + (1 - y + p y) T),      dx = g w ((1 - y) s(x) - p y s(-x)),
        dy = g w (-x + (p - 1) softplus(-x)),  dw = g L / w,  dp = g w y softplus(-x).

    The loss's terms cancel for targets outside [0, 1] and weights below 0 alone: 1 - y, up to four
    products and the sum round once each, 8u of them. With weights the coefficient, its sum and two
    products round before the last product, 4u of the loss, and half of what is allowed for soft
    targets for hard ones. dx's do so for all but the targets 0 and 1.
    dy's two terms, p |x| and (p - 1) T for x < 0, -x and (p - 1) T for x > 0, have opposite signs
    for some p: 6u of them. dp's products and their sum round five times: 3u beside 2 ULP.
    """
    x, y, g = roles["input"], roles["target"], roles["upstream"]
    one = np.longdouble(1)
    w, p = roles.get("weight", one), roles.get("pos_weight", one)
    size, tail = np.abs(x), np.log1p(np.exp(-np.abs(x)))
    slope = (1 - y) + p * y
    linear = size * np.where(x > 0, 1 - y, p * y)
    ordinary_ones = (y >= 0) & (y <= 1) & (p >= 0)
    sizes = np.abs(linear) + (np.abs(1 - y) + np.abs(p * y)) * tail
    weighted = "weight" in roles
    loss_terms = np.where(ordinary_ones, 4 * sizes if weighted else 0, 8 * sizes)
    right, left = _sigmoids(x)
    up, down = (1 - y) * right, p * y * left
    soft = (y != 0) & (y != 1)
    terms = np.where(soft, np.abs(up) + np.abs(down), 0)
    if weighted:
        terms = np.where(soft, terms, 0.5 * (np.abs(up) + np.abs(down)))
    softplus = np.where(x > 0, 0, size) + tail
    first = np.where(x > 0, -x, p * size)
    of_target = first + (p - 1) * tail
    scale = np.abs(g * w)
    zeros = np.zeros_like(x)
    return {
        "output": Truth(w * (linear + slope * tail), np.abs(w) * loss_terms),
        "input": Truth(g * w * (up - down), BINARY_CROSS_ENTROPY.slack_factor * scale * terms),
        "target": Truth(
            g * w * of_target,
            np.where(p == 1, 0, 6 * scale * (np.abs(first) + np.abs(p - 1) * tail)) + zeros,
        ),
        "weight": Truth(g * (linear + slope * tail), np.abs(g) * loss_terms),
        "pos_weight": Truth(g * w * y * softplus, 3 * np.abs(g * w * y * softplus)),
    }


def _strange(inputs: Inputs, shared: tuple[str, ...]) -> Tensor:
    """Each element stands alone: those that one of its own inputs makes non-finite."""
    finite = [torch.isfinite(v) for v in inputs.values()]
    return ~torch.stack(torch.broadcast_tensors(*finite)).all(dim=0)


# --- roles ----------------------------------------------------------------------------------------


def _elements(x: Tensor, y: Tensor, g: Tensor | None = None) -> Inputs:
    x, y = torch.broadcast_tensors(x, y)
    ones = torch.ones(x.shape, dtype=x.dtype)
    return {"input": x, "target": y, "upstream": ones if g is None else g.expand_as(x)}


def _targets(dtype: torch.dtype) -> Tensor:  # (8,)
    """Hard, soft, next to 0 and next to 1, and on either side of [0, 1]."""
    info = torch.finfo(dtype)
    tiny = info.smallest_normal * info.eps
    return torch.tensor([0, 1, 0.5, 0.3, tiny, 1 - info.eps / 2, -0.75, 3.0], dtype=dtype)


def _logits(dtype: torch.dtype) -> Tensor:  # (8,)
    """Both ends of the range, saturated and ordinary logits, next to zero."""
    info = torch.finfo(dtype)
    tiny = info.smallest_normal * info.eps
    return torch.tensor([-info.max, -90, -2.5, -tiny, 0, 1, 12, info.max], dtype=dtype)


def _upstream(p: Tensor) -> Inputs:
    """Each column a logit and a target; half the range, so that a product with g may fit."""
    x = (_logits(p.dtype) * 0.5).repeat(len(p), 1)
    return _elements(x, _targets(p.dtype), p[:, None])


def _soft_and_upstream(a: Tensor, b: Tensor) -> Inputs:
    a, b = promised(a, b)
    return _elements(a, torch.full_like(a, 0.25), b)


def _hard_and_upstream(a: Tensor, b: Tensor) -> Inputs:
    a, b = promised(a, b)
    return _elements(a, (torch.arange(len(a)) % 2).to(a.dtype), b)


def _target_and_upstream(a: Tensor, b: Tensor) -> Inputs:
    a, b = promised(a, b)
    return _elements(torch.full_like(a, -1.5), a, b)


def _draw(rows: int, columns: int, dtype: torch.dtype) -> Inputs:
    x, g = (ordinary(rows, columns, dtype=dtype, scale=2.0, seed=seed) for seed in (0, 1))
    return _elements(x, ordinary(rows, columns, dtype=torch.float64, seed=2).sigmoid().to(dtype), g)


ROLES: dict[str, Callable[[Tensor], Inputs]] = {
    "logit": lambda p: _elements(p[:, None], _targets(p.dtype)),
    "target": lambda p: _elements(_logits(p.dtype), p[:, None]),
    "logit_and_target": lambda p: _elements(p[:, None], p[:, None]),
    "upstream": _upstream,
}
PAIRS = {
    "logit_target": _elements,
    "logit_upstream": _soft_and_upstream,
    "hard_logit_upstream": _hard_and_upstream,
    "target_upstream": _target_and_upstream,
}


def _promised(p: Tensor) -> Tensor:
    """With weights accuracy is promised for targets within [0, 1]; NaN stays among them."""
    return p[((p >= 0) & (p <= 1)) | p.isnan()]


def _with_promised_target(a: Tensor, b: Tensor) -> Inputs:
    b = b.abs()
    return _elements(a[b <= 1], b[b <= 1])


def _promised_target_and_upstream(a: Tensor, b: Tensor) -> Inputs:
    a = a.abs()
    return _target_and_upstream(a[a <= 1], b[a <= 1])


_PROMISED_ROLES = ROLES | {
    "target": lambda p: ROLES["target"](_promised(p)),
    "logit_and_target": lambda p: ROLES["logit_and_target"](_promised(p)),
    "upstream": lambda p: _upstream(p[(p.double().abs() <= LARGEST_UPSTREAM) | ~p.isfinite()]),
}
_PROMISED_PAIRS = PAIRS | {
    "logit_target": _with_promised_target,
    "target_upstream": _promised_target_and_upstream,
}


def _weighted(inputs: Inputs) -> Inputs:
    """The same with ordinary weights, zero among them."""
    x = inputs["input"]
    found = dict(inputs)
    for seed, name in ((8, "weight"), (9, "pos_weight")):
        weight = ordinary(*x.shape, dtype=torch.float64, seed=seed).abs()
        found[name] = torch.where(weight < 0.1, 0.0, weight).to(x.dtype)
    return found


def _weight(p: Tensor, name: str) -> Inputs:
    """The pattern as one of the weights of ordinary elements, hard targets among them."""
    x = ordinary(len(p), COLUMNS, dtype=p.dtype, scale=4.0)
    target = _targets(p.dtype)[:6].repeat(len(p), 2)[:, :COLUMNS]
    return _weighted(_elements(x, target)) | {name: p[:, None].repeat(1, COLUMNS)}


def _ours(**given: Tensor) -> Tensor:
    return kernels.binary_cross_entropy_with_logits(**given, reduction="none")


class _WeightedTorch(torch.autograd.Function):
    """torch's loss, which has no gradient for its weights, with their gradients written out."""

    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> Tensor:
        ctx.save_for_backward(*given)
        x, y, w, p = given
        return F.binary_cross_entropy_with_logits(x, y, w, pos_weight=p, reduction="none")

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, ...]:
        (g,) = upstream
        x, y, w, p = (v.detach() for v in ctx.saved_tensors)
        with torch.enable_grad():
            leaves = [x.requires_grad_(), y.requires_grad_()]
            loss = F.binary_cross_entropy_with_logits(x, y, w, pos_weight=p, reduction="none")
            first = torch.autograd.grad(loss, leaves, g)
        x, y = x.detach(), y.detach()
        plain = F.binary_cross_entropy_with_logits(x, y, pos_weight=p, reduction="none")
        return *first, g * plain, g * w * y * F.softplus(-x)


def _torch(
    input: Tensor, target: Tensor, weight: Tensor | None = None, pos_weight: Tensor | None = None
) -> Tensor:
    if weight is None:
        return F.binary_cross_entropy_with_logits(input, target, reduction="none")
    loss: Tensor = _WeightedTorch.apply(input, target, weight, pos_weight)
    return loss


_PLAIN = Subject(
    name="binary_cross_entropy",
    ours=_ours,
    torch=_torch,
    truth=_truth,
    roles=ROLES,
    pairs=PAIRS,
    draw=_draw,
    differentiable=("input", "target"),
    strange=_strange,
)
# With weights: the gradient of the logits, which is what accuracy is promised of. The others are of
# the formula that second derivatives come from, and proved apart: see `known`.
_WEIGHTED = dataclasses.replace(
    _PLAIN,
    name="binary_cross_entropy(weight,pos_weight)",
    roles=mapped(_weighted, _PROMISED_ROLES)
    | {name: functools.partial(_weight, name=name) for name in ("weight", "pos_weight")},
    pairs=mapped(_weighted, _PROMISED_PAIRS),
    draw=lambda *shape: _weighted(_draw(*shape)),
    differentiable=("input",),
    factors=("upstream", "weight", "pos_weight"),
)
_ALL_GRADIENTS = dataclasses.replace(
    _WEIGHTED,
    name="binary_cross_entropy(all_gradients)",
    differentiable=("input", "target", "weight", "pos_weight"),
)
SUBJECTS = (_PLAIN, _WEIGHTED, _ALL_GRADIENTS)
