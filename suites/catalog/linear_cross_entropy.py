"""Cross-entropy of a linear layer: loss_i = logsumexp_v(x_i . w_v) - x_i . w_y, one loss a row."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

import kernels
from harness.formats import Format
from harness.operation import ALL_CLAIMS, Draws, Operation, Path, Regime, Roles
from kernels.linear_cross_entropy import reference
from suites.catalog import layouts, peers
from suites.catalog.triton_path import on_triton

CLASSES = 48


def _gradient_of_logits(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Loss (N,) and its gradient (N, C), from terms that do not cancel, in float64."""
    index = target[:, None]
    top = logits.amax(dim=1, keepdim=True)
    powers = torch.exp(logits - top)
    own = powers.gather(1, index)
    others = powers.scatter(1, index, 0.0).sum(dim=1, keepdim=True)
    gap = top - logits.gather(1, index)
    rest = torch.where(gap == 0, torch.log1p(others), torch.log(others + own))
    gradient = (powers / (others + own)).scatter(1, index, -others / (others + own))
    return (gap + rest)[:, 0], gradient


def _truth(roles: Roles) -> dict[str, Tensor]:
    weight = roles["linear_weight"]
    loss, gradient = _gradient_of_logits(roles["input"] @ weight.t(), roles["target"])
    return {"forward": loss, "backward": gradient @ weight}


def _certified(row: dict[str, Any]) -> dict[str, list[Any]]:
    """The same in ball arithmetic."""
    from flint import arb

    x = [arb(v) for v in row["input"]]
    weight = [[arb(v) for v in each] for each in row["linear_weight"]]
    logits = [sum((a * b for a, b in zip(x, w, strict=True)), arb(0)) for w in weight]
    y = row["target"]
    # The differences to the target's logit: no ball is asked which of them is the largest.
    powers = [(z - logits[y]).exp() for j, z in enumerate(logits) if j != y]
    others = sum(powers, arb(0))
    gradient = [power / (1 + others) for power in powers]
    gradient.insert(y, -1 / (1 + 1 / others))
    columns = zip(*weight, strict=True)
    return {
        "forward": [others.log1p()],
        "backward": [
            sum((d * w for d, w in zip(gradient, column, strict=True)), arb(0))
            for column in columns
        ],
    }


# From here on the rounding of an fp32 logit is of the size of 1, and a probability's error too.
_LARGE = 1e5


def _slack(roles: Roles) -> dict[str, Tensor]:
    """The terms that cancel in the logits, and in the sum over classes; see `slack_factor`.

    With A the largest sum |x_h w_h| of a row, a logit errs by (H + 1) u A at most. The loss, a
    difference of logits, errs by twice that; a probability p, or 1 - p, relatively by its
    exponential, which is less than 1.72 times it up to 1, and absolutely by 1 beyond.
    """
    x, weight = roles["input"], roles["linear_weight"]
    terms = (x.abs() @ weight.abs().t()).amax(dim=1, keepdim=True)
    _, gradient = _gradient_of_logits(x @ weight.t(), roles["target"])
    share = torch.where(terms > _LARGE, 1.0, 1.72 * gradient.abs())
    return {"forward": terms[:, 0], "backward": (terms + 1) * (share @ weight.abs())}


def _weight(draws: Draws) -> np.ndarray:
    return draws.generator("linear_weight").standard_normal((CLASSES, draws.shape[1])) / 8


def _target(draws: Draws) -> np.ndarray:
    return draws.generator("target").integers(0, CLASSES, size=draws.shape[0])


def _drawn(draws: Draws, base: np.ndarray) -> dict[str, np.ndarray]:
    return {"input": base, "linear_weight": _weight(draws), "target": _target(draws)}


def _draw_normal(draws: Draws) -> dict[str, np.ndarray]:
    return _drawn(draws, layouts.gaussian(draws))


def _draw_peak(draws: Draws) -> dict[str, np.ndarray]:
    return _drawn(draws, layouts.one_entry(draws, layouts.columns(draws, "peak")))


def _draw_outlier(draws: Draws) -> dict[str, np.ndarray]:
    return _drawn(draws, layouts.outlier(draws))


def _draw_zeros(draws: Draws) -> dict[str, np.ndarray]:
    return _drawn(draws, np.zeros(draws.shape))


def _logits_fit(fmt: Format) -> tuple[float, float]:
    """Up to where a sum of 64 products, Gaussian by an eighth of that, stays within the dtype."""
    return fmt.smallest, fmt.largest if fmt.name == "fp16" else fmt.largest / 256


REGIMES = (
    Regime("normal", "Gaussian rows", _draw_normal, _logits_fit, shared=("linear_weight",)),
    Regime(
        "peak",
        "one entry at the magnitude, zeros elsewhere",
        _draw_peak,
        _logits_fit,
        shared=("linear_weight",),
    ),
    Regime(
        "outlier",
        "a weak crowd and one entry 2**10 times larger",
        _draw_outlier,
        _logits_fit,
        shared=("linear_weight",),
    ),
    Regime(
        "zeros",
        "every logit zero",
        _draw_zeros,
        layouts.no_magnitude,
        shared=("linear_weight",),
    ),
)


def _triton(input: Tensor, linear_weight: Tensor, target: Tensor) -> Tensor:
    return kernels.linear_cross_entropy(on_triton(input), linear_weight, target, reduction="none")


LINEAR_CROSS_ENTROPY = Operation(
    name="linear_cross_entropy",
    meaning="cross-entropy of a linear layer's output, the logits never held whole",
    truth=_truth,
    certified=_certified,
    slack=_slack,
    # Twice the (H + 1) u of a logit, H = 64, and 2u for the loss's own roundings. A gradient is a
    # sum of C = 48 such terms, each with 6u of its own, which the same factor covers.
    slack_factor=132.0,
    regimes=REGIMES,
    paths=(
        Path("naive", reference.naive, note="logits, exp, divide by the sum, log, pick"),
        Path("torch", reference.torch_native, note="F.linear, then F.cross_entropy"),
        Path("triton", _triton, claims=ALL_CLAIMS, note="kernels.linear_cross_entropy"),
        *peers.paths("linear_cross_entropy"),
    ),
)
