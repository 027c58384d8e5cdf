"""Softmax: y_i = exp(x_i) / sum_j exp(x_j) along the last dimension.

A gradient of the sum of all outputs would be 0, so every regime draws its upstream gradient.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

import kernels
from harness.operation import ALL_CLAIMS, UPSTREAM, Draws, Operation, Path, Regime, Roles
from kernels.softmax import reference
from suites.catalog import layouts, peers
from suites.catalog.triton_path import on_triton


def powers_and_rest(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """exp(x - m), m, and the sum of all powers but one at the maximum, itself 1; (N, K), (N, 1)."""
    top = logits.amax(dim=1, keepdim=True)
    powers = torch.exp(logits - top)
    rest = powers.scatter(1, logits.argmax(dim=1, keepdim=True), 0.0).sum(dim=1, keepdim=True)
    return powers, top, torch.where(top.isfinite(), rest, torch.nan)


def certified_powers(logits: list[float]) -> tuple[list[Any], float, Any]:
    """The same for one row in ball arithmetic; a masked column (-inf) has power exactly 0."""
    from flint import arb

    top = max(logits)
    if math.isinf(top):
        raise ArithmeticError("the certified truth covers rows with a finite maximum")
    powers = [arb(0) if x == -math.inf else (arb(x) - top).exp() for x in logits]
    first = logits.index(top)
    rest = sum((power for j, power in enumerate(powers) if j != first), arb(0))
    return powers, top, rest


def _truth(roles: Roles) -> dict[str, Tensor]:
    """y = exp(x - m) / (1 + rest), and dx = y (g - sum y g) for the upstream gradient g."""
    powers, _, rest = powers_and_rest(roles["input"])
    y = powers / (1 + rest)
    g = roles[UPSTREAM]
    return {"forward": y, "backward": y * (g - (y * g).sum(dim=1, keepdim=True))}


def _certified(row: dict[str, Any]) -> dict[str, list[Any]]:
    """The same formulas in ball arithmetic."""
    from flint import arb

    powers, _, rest = certified_powers(row["input"])
    y = [power / (1 + rest) for power in powers]
    g = [arb(v) for v in row[UPSTREAM]]
    total = sum((a * b for a, b in zip(y, g, strict=True)), arb(0))
    return {"forward": y, "backward": [a * (b - total) for a, b in zip(y, g, strict=True)]}


def _slack(roles: Roles) -> dict[str, Tensor]:
    """The terms that cancel in the gradient: y (|g| + sum y |g|). Forward has none."""
    powers, _, rest = powers_and_rest(roles["input"])
    y = powers / (1 + rest)
    size = roles[UPSTREAM].abs()
    terms = y * (size + (y * size).sum(dim=1, keepdim=True))
    return {"forward": torch.zeros_like(y), "backward": terms}


def _with_upstream(base: np.ndarray, draws: Draws) -> dict[str, np.ndarray]:
    return {"input": base, UPSTREAM: draws.generator(UPSTREAM).standard_normal(draws.shape)}


def _draw_normal(draws: Draws) -> dict[str, np.ndarray]:
    return _with_upstream(layouts.gaussian(draws), draws)


def _draw_peak(draws: Draws) -> dict[str, np.ndarray]:
    return _with_upstream(layouts.one_entry(draws, layouts.columns(draws, "peak")), draws)


def _draw_trough(draws: Draws) -> dict[str, np.ndarray]:
    return _with_upstream(-layouts.one_entry(draws, layouts.columns(draws, "trough")), draws)


def _draw_constant(draws: Draws) -> dict[str, np.ndarray]:
    return _with_upstream(np.ones(draws.shape), draws)


def _draw_offset(draws: Draws) -> dict[str, np.ndarray]:
    return _with_upstream(1.0 + layouts.WEAK * layouts.gaussian(draws), draws)


def _draw_outlier(draws: Draws) -> dict[str, np.ndarray]:
    return _with_upstream(layouts.outlier(draws), draws)


def _draw_confident(draws: Draws) -> dict[str, np.ndarray]:
    where = layouts.columns(draws, "peak")
    crowd = -np.abs(layouts.gaussian(draws))
    crowd[np.arange(len(where)), where] = 1.0
    return _with_upstream(crowd, draws)


def _draw_masked(draws: Draws) -> dict[str, np.ndarray]:
    # Row 0 hides its first half and row 1 its second; the others hide half at random, never all.
    width = draws.shape[1]
    hidden = draws.generator("mask").random(draws.shape) < 0.5
    hidden[0] = np.arange(width) < width // 2
    hidden[1] = np.arange(width) >= width // 2
    hidden[2:, layouts.columns(draws, "visible")[2:]] = False
    base = layouts.gaussian(draws)
    base[hidden] = -np.inf
    return _with_upstream(base, draws)


def _draw_nonfinite(draws: Draws) -> dict[str, np.ndarray]:
    # What a broken layer hands on: a NaN, a +inf, a row that is masked whole; the last is sound.
    base, where = layouts.gaussian(draws), layouts.columns(draws, "where")
    base[0, where[0]] = np.nan
    base[1, where[1]] = np.inf
    base[2] = -np.inf
    return _with_upstream(base, draws)


def _draw_zeros(draws: Draws) -> dict[str, np.ndarray]:
    return _with_upstream(np.zeros(draws.shape), draws)


def _draw_subnormal(draws: Draws) -> dict[str, np.ndarray]:
    return _with_upstream(layouts.uniform(draws), draws)


REGIMES = (
    Regime("normal", "Gaussian logits", _draw_normal),
    Regime("peak", "one entry at the magnitude, zeros elsewhere", _draw_peak),
    Regime("trough", "one entry at minus the magnitude, zeros elsewhere", _draw_trough),
    Regime("constant", "every logit at the magnitude", _draw_constant),
    Regime("offset", "a common offset, differences 2**-10 of it", _draw_offset),
    Regime("outlier", "a weak crowd and one entry 2**10 times larger", _draw_outlier),
    Regime(
        "confident", "one entry far above the rest: its probability tends to 1", _draw_confident
    ),
    Regime("masked", "half of each row at -inf", _draw_masked),
    Regime(
        "nonfinite",
        "rows with NaN, +inf, nothing but masks: none may be swallowed or spread",
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


def _triton(input: Tensor) -> Tensor:
    return kernels.softmax(on_triton(input))


SOFTMAX = Operation(
    name="softmax",
    meaning="probabilities: exp(x_i) / sum exp(x)",
    truth=_truth,
    certified=_certified,
    slack=_slack,
    # Backward only: y_i (g_i - sum y g), in u of the statistics. At most (fp16 in fp32; fp64 and
    # the others need less): the exponential errs by 1.2, 1/d by 2, y's product by 1, that with g by
    # 1, the sum, rounded once, by 1: 6.2 of y sum y|g|. The difference errs by 1, y_i by 4.2, their
    # product by 1: 6.2 of y (|g| + sum y|g|). Of these 12.4, the 2 ULP cover 0.4.
    slack_factor=12.0,
    regimes=REGIMES,
    paths=(
        Path("naive", reference.naive, note="exp(x) / sum exp(x)"),
        Path("shifted", reference.shifted, note="exp(x - max) / sum, the textbook guard"),
        Path("torch", reference.torch_native, note="torch.softmax"),
        Path("triton", _triton, claims=ALL_CLAIMS, note="kernels.softmax"),
        *peers.paths("softmax"),
    ),
)
