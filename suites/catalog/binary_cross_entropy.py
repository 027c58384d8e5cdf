"""Binary cross-entropy of logits: L = -(y log s(x) + (1-y) log(1-s(x))), one loss an element."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

import kernels
from harness.operation import ALL_CLAIMS, Draws, Operation, Path, Regime, Roles
from kernels.binary_cross_entropy import reference
from suites.catalog import layouts, peers
from suites.catalog.triton_path import on_triton


def _weights(roles: Roles) -> tuple[Tensor, Tensor]:
    """The weight of each loss and that of its positive part; ones where the regime has none."""
    ones = torch.ones_like(roles["input"])
    return roles.get("weight", ones), roles.get("pos_weight", ones)


def _truth(roles: Roles) -> dict[str, Tensor]:
    """Loss and gradient in float64, from terms of one sign where the target is 0 or 1.

    With e = exp(-|x|): L = w (|x| c + (1-y+py) log1p(e)), where c = 1-y for x > 0 and p y
    otherwise. dL/dx = w ((1-y) s(x) - p y s(-x)), where s(|x|) = 1/(1+e) and s(-|x|) = e/(1+e). At
    an infinite x the loss is torch's (1-y) x + (1-y+py) softplus(-x).
    """
    logits, target = roles["input"], roles["target"]
    w, p = _weights(roles)
    power = torch.exp(-logits.abs())
    slope = 1 - target + p * target
    linear = logits.abs() * torch.where(logits > 0, 1 - target, p * target)
    infinite = (1 - target) * logits + slope * torch.where(logits < 0, torch.inf, 0.0)
    right, left = _sigmoids(logits, power)
    loss = torch.where(logits.isinf(), infinite, linear + slope * torch.log1p(power))
    gradient = (1 - target) * right - p * target * left
    return {"forward": w * loss, "backward": w * gradient}


def _sigmoids(logits: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
    large, small = 1 / (1 + power), power / (1 + power)
    positive = logits > 0
    return torch.where(positive, large, small), torch.where(positive, small, large)


def _certified(row: dict[str, Any]) -> dict[str, list[Any]]:
    """The same in ball arithmetic."""
    from flint import arb

    losses, gradient = [], []
    ones = [1.0] * len(row["input"])
    factors = (row.get("weight", ones), row.get("pos_weight", ones))
    for x, y, w, p in zip(row["input"], row["target"], *factors, strict=True):
        negative, positive = 1 - arb(y), arb(p) * arb(y)
        if x == -math.inf:  # torch's inf - inf, or 0 inf; the sigmoid is exactly 0
            losses.append(math.nan)
            gradient.append(-arb(w) * positive)
            continue
        power = (-abs(arb(x))).exp()
        linear = abs(arb(x)) * (negative if x > 0 else positive)
        losses.append(arb(w) * (linear + (negative + positive) * power.log1p()))
        large, small = 1 / (1 + power), power / (1 + power)
        right, left = (large, small) if x > 0 else (small, large)
        gradient.append(arb(w) * (negative * right - positive * left))
    return {"forward": losses, "backward": gradient}


SLACK_FACTOR = 6.0  # derived below


def _slack(roles: Roles) -> dict[str, Tensor]:
    """The two terms of the gradient, which cancel for soft targets; in the loss nothing does.

    A weighted loss has 4u of itself for its coefficients: 1 - y, p y, their sum and its product.
    """
    logits, target = roles["input"], roles["target"]
    w, p = _weights(roles)
    right, left = _sigmoids(logits, torch.exp(-logits.abs()))
    # A hard target leaves one of the two terms, and nothing to cancel.
    soft = (target != 0) & (target != 1)
    terms = w * ((1 - target) * right + p * target * left)
    loss = _truth(roles)["forward"].abs() * (4 / SLACK_FACTOR)
    weighted = "weight" in roles or "pos_weight" in roles
    return {
        "forward": torch.where(loss.isfinite(), loss, 0.0) if weighted else torch.zeros_like(loss),
        "backward": torch.where(soft, terms, 0.0),
    }


def _coin(draws: Draws) -> np.ndarray:
    return draws.generator("target").integers(0, 2, size=draws.shape).astype(np.float64)


def _draw_normal(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": layouts.gaussian(draws), "target": _coin(draws)}


def _draw_peak(draws: Draws) -> dict[str, np.ndarray]:
    peak = layouts.one_entry(draws, layouts.columns(draws))
    return {"input": peak, "target": peak.copy()}


def _draw_trough(draws: Draws) -> dict[str, np.ndarray]:
    where = layouts.columns(draws)
    other = layouts.one_entry(draws, layouts.beside(where, draws.shape[1]))
    return {"input": layouts.one_entry(draws, where), "target": other}


def _draw_constant(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": np.ones(draws.shape), "target": _coin(draws)}


def _draw_confident(draws: Draws) -> dict[str, np.ndarray]:
    target = _coin(draws)
    return {"input": np.abs(layouts.gaussian(draws)) * (2 * target - 1), "target": target}


def _draw_soft(draws: Draws) -> dict[str, np.ndarray]:
    soft = draws.generator("target").uniform(0.0, 1.0, size=draws.shape)
    return {"input": layouts.gaussian(draws), "target": soft}


def _draw_outlier(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": layouts.outlier(draws), "target": _coin(draws)}


def _draw_zeros(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": np.zeros(draws.shape), "target": _coin(draws)}


def _draw_subnormal(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": layouts.uniform(draws), "target": _coin(draws)}


def _draw_weighted(draws: Draws) -> dict[str, np.ndarray]:
    # Powers of two over 2**-8 .. 2**8: no rounding of the weights hides a wrong product.
    def weight(role: str) -> np.ndarray:
        return 2.0 ** draws.generator(role).integers(-8, 9, size=draws.shape)

    return _draw_soft(draws) | {"weight": weight("weight"), "pos_weight": weight("pos_weight")}


def _draw_nonfinite(draws: Draws) -> dict[str, np.ndarray]:
    # Each strange logit beside each target, among ordinary ones.
    base, target = layouts.gaussian(draws), _coin(draws)
    for row, strange in enumerate((np.nan, np.inf, -np.inf)):
        base[row, :2], target[row, :2] = strange, (0.0, 1.0)
    return {"input": base, "target": target}


REGIMES = (
    Regime("normal", "Gaussian logits, targets 0 or 1 at random", _draw_normal),
    Regime("peak", "one logit at the magnitude with target 1, zeros with target 0", _draw_peak),
    Regime("trough", "the same, but the target 1 belongs to one of the zeros", _draw_trough),
    Regime("constant", "every logit at the magnitude", _draw_constant),
    Regime("confident", "every logit on its target's side", _draw_confident),
    Regime("soft", "Gaussian logits, targets uniform in (0, 1)", _draw_soft),
    Regime("outlier", "a weak crowd and one entry 2**10 times larger", _draw_outlier),
    Regime("weighted", "soft targets, each with a weight and a positive weight", _draw_weighted),
    Regime(
        "nonfinite",
        "NaN and infinite logits among ordinary ones: none may be swallowed or spread",
        _draw_nonfinite,
        layouts.only_one,
    ),
    Regime("zeros", "every logit zero", _draw_zeros, layouts.no_magnitude),
    Regime(
        "subnormal",
        "logits of at most the smallest normal",
        _draw_subnormal,
        layouts.subnormal_range,
    ),
)


def _triton(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
) -> Tensor:
    return kernels.binary_cross_entropy_with_logits(
        on_triton(input), target, weight, reduction="none", pos_weight=pos_weight
    )


BINARY_CROSS_ENTROPY = Operation(
    name="binary_cross_entropy_with_logits",
    meaning="logistic loss of one logit and a target between 0 and 1",
    truth=_truth,
    certified=_certified,
    slack=_slack,
    # Soft targets: in each term 1 - y errs by u, the sigmoid by 4u (exponential 2u, sum u, quotient
    # u) and the product by u, before the terms are subtracted: 6u of their sum.
    slack_factor=SLACK_FACTOR,
    regimes=REGIMES,
    paths=(
        Path("naive", reference.naive, note="sigmoid, then y log h + (1-y) log(1-h)"),
        Path("clamped", reference.clamped, note="h clamped to [1e-9, 1-1e-9] first"),
        Path("torch_bce", reference.torch_bce, note="sigmoid, then F.binary_cross_entropy"),
        Path("torch", reference.torch_with_logits, note="F.binary_cross_entropy_with_logits"),
        Path("triton", _triton, claims=ALL_CLAIMS, note="kernels.binary_cross_entropy_with_logits"),
        *peers.paths("binary_cross_entropy_with_logits"),
    ),
)
