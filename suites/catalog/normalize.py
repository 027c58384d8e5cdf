"""Normalisation: y = x / ||x||_2 along the last dimension; a zero vector's direction is zero."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

import kernels
from harness.operation import ALL_CLAIMS, Draws, Operation, Path, Regime, Roles
from kernels.normalize import reference
from suites.catalog import layouts, peers
from suites.catalog.triton_path import on_triton


def _scaled(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(x / s, its norm, s) with s a power of two near max|x|, so that no square leaves float64."""
    top = values.abs().amax(dim=1, keepdim=True)
    _, exponent = torch.frexp(top)
    part = torch.ldexp(values, -exponent)
    norm = part.square().sum(dim=1, keepdim=True).sqrt()
    return part, norm, exponent


def _truth(roles: Roles) -> dict[str, Tensor]:
    """y = x / ||x|| and, for upstream ones, dx = (1 - y sum(y)) / ||x||; zeros for a zero row."""
    part, norm, exponent = _scaled(roles["input"])
    safe = torch.where(norm == 0, 1.0, norm)
    direction = part / safe
    tangent = (1 - direction * direction.sum(dim=1, keepdim=True)) / safe
    gradient = torch.where(norm == 0, 0.0, torch.ldexp(tangent, -exponent))
    return {"forward": direction, "backward": gradient}


def _certified(row: dict[str, Any]) -> dict[str, list[Any]]:
    """The same in ball arithmetic, which needs no scaling."""
    from flint import arb

    values = [arb(x) for x in row["input"]]
    if not any(row["input"]):
        return {"forward": values, "backward": values}
    norm = sum((x * x for x in values), arb(0)).sqrt()
    direction = [x / norm for x in values]
    total = sum(direction, arb(0))
    return {"forward": direction, "backward": [(1 - y * total) / norm for y in direction]}


def _slack(roles: Roles) -> dict[str, Tensor]:
    """The terms that cancel in the gradient: (1 + |y| sum |y|) / ||x||. Forward has none."""
    part, norm, exponent = _scaled(roles["input"])
    safe = torch.where(norm == 0, 1.0, norm)
    size = (part / safe).abs()
    terms = (1 + size * size.sum(dim=1, keepdim=True)) / safe
    terms = torch.ldexp(terms, -exponent).clamp(max=torch.finfo(torch.float64).max)
    return {
        "forward": torch.zeros_like(size),
        "backward": torch.where(norm == 0, 0.0, terms),
    }


def _draw_normal(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": layouts.gaussian(draws)}


def _draw_peak(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": layouts.one_entry(draws, layouts.columns(draws, "peak"))}


def _draw_constant(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": np.ones(draws.shape)}


def _draw_outlier(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": layouts.outlier(draws)}


def _draw_zeros(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": np.zeros(draws.shape)}


def _draw_subnormal(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": layouts.uniform(draws)}


REGIMES = (
    Regime("normal", "Gaussian entries", _draw_normal),
    Regime("peak", "one entry at the magnitude, zeros elsewhere", _draw_peak),
    Regime("constant", "every entry at the magnitude", _draw_constant),
    Regime("outlier", "a weak crowd and one entry 2**10 times larger", _draw_outlier),
    Regime("zeros", "the zero vector", _draw_zeros, layouts.no_magnitude),
    Regime(
        "subnormal",
        "entries of at most the smallest normal",
        _draw_subnormal,
        layouts.subnormal_range,
    ),
)


def _triton(input: Tensor) -> Tensor:
    # eps=0: the direction of every vector that is not zero, however small.
    return kernels.normalize(on_triton(input), dim=-1, eps=0.0)


NORMALIZE = Operation(
    name="normalize",
    meaning="the direction of a vector: x / ||x||_2",
    truth=_truth,
    certified=_certified,
    slack=_slack,
    # (1 - y_i sum_j y_j) / ||x||: each y errs by 3u (root, quotient, half the sum of squares), so
    # the product by 3u, by 3u more from the sum's terms, by 2u for adding them up and by u itself;
    # the difference by u and the division by the norm by 2u: 12u of the terms.
    slack_factor=12.0,
    regimes=REGIMES,
    paths=(
        Path("naive", reference.naive, note="x / sqrt(sum x^2)"),
        Path("epsilon", reference.epsilon, note="x / (sqrt(sum x^2) + 1e-12), the advice"),
        Path("torch", reference.torch_native, note="F.normalize, whose eps is 1e-12"),
        Path("triton", _triton, claims=ALL_CLAIMS, note="kernels.normalize with eps=0"),
        *peers.paths("normalize"),
    ),
)
