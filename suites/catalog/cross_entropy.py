"""Cross-entropy with class indices: L = log sum_j exp(x_j - x_y), one loss a row."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

import kernels
from harness.operation import ALL_CLAIMS, Draws, Operation, Path, Regime, Roles
from kernels.cross_entropy import reference
from suites.catalog import layouts, peers
from suites.catalog.triton_path import on_triton

IGNORED = -100


def _truth(roles: Roles) -> dict[str, Tensor]:
    """Loss and gradient in float64, the target's own column left out of the sum.

    With m the row's maximum, d_j = x_j - m and S = sum over j != y of exp(d_j):
    L = log1p(S) where x_y = m, else (m - x_y) + log(S + exp(d_y)): no term cancels.
    dL/dx_j = exp(d_j) / D and dL/dx_y = -S / D, with D = S + exp(d_y).
    """
    logits, target = roles["input"], roles["target"]
    kept, column = target != IGNORED, target.clamp(min=0)[:, None]
    top = logits.amax(dim=1, keepdim=True)
    powers = torch.exp(logits - top)
    own = powers.gather(1, column)
    rest = powers.scatter(1, column, 0.0).sum(dim=1, keepdim=True)
    chosen = logits.gather(1, column)
    loss = torch.where(
        chosen == top, torch.log1p(rest), (top - chosen) + torch.log(rest + own)
    ).squeeze(1)
    gradient = (powers / (rest + own)).scatter(1, column, -rest / (rest + own))
    return {
        "forward": torch.where(kept, loss, 0.0),
        "backward": torch.where(kept[:, None], gradient, 0.0),
    }


def _certified(row: dict[str, Any]) -> dict[str, list[Any]]:
    """The same formulas in ball arithmetic; a masked column (-inf) contributes exactly nothing."""
    from flint import arb

    logits, target = row["input"], row["target"]
    if target == IGNORED:
        return {"forward": [arb(0)], "backward": [arb(0)] * len(logits)}
    top = max(logits)
    if math.isinf(top):
        raise ArithmeticError("the certified truth covers rows with a finite maximum")
    powers = [arb(0) if x == -math.inf else (arb(x) - top).exp() for x in logits]
    rest = sum((power for j, power in enumerate(powers) if j != target), arb(0))
    whole = rest + powers[target]
    gradient: list[Any] = [power / whole for power in powers]
    gradient[target] = -rest / whole
    if logits[target] == -math.inf:
        return {"forward": [math.inf], "backward": gradient}
    if logits[target] == top:
        loss = rest.log1p()
    else:
        loss = (arb(top) - logits[target]) + whole.log()
    return {"forward": [loss], "backward": gradient}


def _slack(roles: Roles) -> dict[str, Tensor]:
    """What rounding costs beyond 2 ULP: see the derivation at `slack_factor` below."""
    exact = _truth(roles)
    return {
        "forward": torch.zeros_like(exact["forward"]),
        "backward": exact["backward"].abs(),
    }


def _draw_normal(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": layouts.gaussian(draws), "target": layouts.columns(draws)}


def _draw_peak(draws: Draws) -> dict[str, np.ndarray]:
    where = layouts.columns(draws)
    return {"input": layouts.one_entry(draws, where), "target": where}


def _draw_trough(draws: Draws) -> dict[str, np.ndarray]:
    where = layouts.columns(draws)
    return {
        "input": layouts.one_entry(draws, where),
        "target": layouts.beside(where, draws.shape[1]),
    }


def _draw_constant(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": np.ones(draws.shape), "target": layouts.columns(draws)}


def _draw_offset(draws: Draws) -> dict[str, np.ndarray]:
    crowd = layouts.WEAK * layouts.gaussian(draws)
    return {"input": 1.0 + crowd, "target": layouts.columns(draws)}


def _draw_outlier(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": layouts.outlier(draws), "target": layouts.columns(draws)}


def _draw_confident(draws: Draws) -> dict[str, np.ndarray]:
    crowd = -np.abs(layouts.gaussian(draws))
    where = layouts.columns(draws)
    crowd[np.arange(len(where)), where] = 1.0
    return {"input": crowd, "target": where}


def _draw_masked(draws: Draws) -> dict[str, np.ndarray]:
    # Row 0 hides its first half and row 1 its second, with the target in the other half, so that
    # whole first and last blocks are masked; the others hide half their entries at random. Targets
    # stay visible.
    rows, width = draws.shape
    half = width // 2
    base, where = layouts.gaussian(draws), layouts.columns(draws)
    hidden = draws.generator("mask").random(draws.shape) < 0.5
    hidden[0] = np.arange(width) < half
    hidden[1] = np.arange(width) >= half
    where[0], where[1] = half + where[0] % half, where[1] % half
    hidden[np.arange(rows), where] = False
    base[hidden] = -np.inf
    return {"input": base, "target": where}


def _draw_masked_blocks(draws: Draws) -> dict[str, np.ndarray]:
    width = draws.shape[1]
    base, where = layouts.gaussian(draws), layouts.columns(draws)
    hidden = 70_000  # more than the 65,536 columns that any kernel takes at once
    base[0, :hidden] = -np.inf
    base[1, width - hidden :] = -np.inf
    where[0] = hidden + where[0] % (width - hidden)
    where[1] = where[1] % (width - hidden)
    return {"input": base, "target": where}


def _draw_nonfinite(draws: Draws) -> dict[str, np.ndarray]:
    # What a broken layer hands on: a NaN, a +inf, a masked target, a row that is masked whole.
    base, where = layouts.gaussian(draws), layouts.columns(draws)
    base[0, layouts.beside(where, draws.shape[1])[0]] = np.nan
    base[1, layouts.beside(where, draws.shape[1])[1]] = np.inf
    base[2, where[2]] = -np.inf
    base[3] = -np.inf
    return {"input": base, "target": where}


def _draw_zeros(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": np.zeros(draws.shape), "target": layouts.columns(draws)}


def _draw_subnormal(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": layouts.uniform(draws), "target": layouts.columns(draws)}


def _draw_all_ignored(draws: Draws) -> dict[str, np.ndarray]:
    ignored = np.full(draws.shape[0], IGNORED, dtype=np.int64)
    return {"input": layouts.gaussian(draws), "target": ignored}


REGIMES = (
    Regime("normal", "Gaussian logits, random targets", _draw_normal),
    Regime("peak", "one entry at the magnitude, zeros elsewhere; the target is it", _draw_peak),
    Regime("trough", "the same; the target is one of the zeros", _draw_trough),
    Regime("constant", "every logit at the magnitude", _draw_constant),
    Regime("offset", "a common offset, differences 2**-10 of it", _draw_offset),
    Regime("outlier", "a weak crowd and one entry 2**10 times larger", _draw_outlier),
    Regime(
        "confident", "the target far above the rest: its probability tends to 1", _draw_confident
    ),
    Regime("masked", "half of each row at -inf, whole blocks among them", _draw_masked),
    Regime(
        "masked_blocks",
        "70,000 of 131,072 columns at -inf: the first ones, and the last ones",
        _draw_masked_blocks,
        layouts.only_one,
        shape=(2, 131_072),
    ),
    Regime(
        "nonfinite",
        "rows with NaN, +inf, a masked target, nothing but masks: none may be swallowed or spread",
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
    Regime("all_ignored", "every target is ignore_index", _draw_all_ignored),
)


def _triton(input: Tensor, target: Tensor) -> Tensor:
    return kernels.cross_entropy(on_triton(input), target, reduction="none")


CROSS_ENTROPY = Operation(
    name="cross_entropy",
    meaning="log-softmax and negative log-likelihood of one class a row",
    truth=_truth,
    certified=_certified,
    slack=_slack,
    # Backward only, where the slack is the element itself. The exponential errs by at most 1 ULP =
    # 2u, the compensated sum, the quotient, the product and the last rounding by u each: 6u. 2 ULP
    # of the result cover 2u of these wherever it lies in its binade, and 4u remain.
    slack_factor=4.0,
    regimes=REGIMES,
    paths=(
        Path("naive", reference.naive, note="exp, divide by the sum, log, pick"),
        Path("softmax_log", reference.softmax_log, note="torch.softmax, then log"),
        Path("clamped", reference.clamped, note="log(max(p, 1e-9)), the quick fix"),
        Path("torch", reference.torch_native, note="torch.nn.functional.cross_entropy"),
        Path("triton", _triton, claims=ALL_CLAIMS, note="kernels.cross_entropy"),
        Path(
            "liger",
            peers.liger_cross_entropy,
            overwrites_input=True,
            launch_magnitudes=1,  # a program a row: a millisecond each in the interpreter
            note="liger-kernel's fused cross-entropy, on a clone of its input",
        ),
    ),
)
