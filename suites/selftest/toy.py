"""A catalog small enough to see through: y = x, with paths whose fate is known beforehand."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.operation import ALL_CLAIMS, Draws, Operation, Path, Regime, Roles

LIMIT = 100.0  # where the fragile path turns to NaN


def _truth(roles: Roles) -> dict[str, Tensor]:
    return {"forward": roles["input"], "backward": torch.ones_like(roles["input"])}


def _certified(row: dict[str, Any]) -> dict[str, list[Any]]:
    from flint import arb

    return {"forward": [arb(x) for x in row["input"]], "backward": [arb(1)] * len(row["input"])}


def _slack(roles: Roles) -> dict[str, Tensor]:
    return {name: torch.zeros_like(roles["input"]) for name in ("forward", "backward")}


def _constant(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": np.ones(draws.shape)}


def _signs(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": draws.generator("input").choice([-1.0, 1.0], size=draws.shape)}


def _honest(input: Tensor) -> Tensor:
    return input * 1.0


def _fragile(input: Tensor) -> Tensor:
    return torch.where(input.abs() > LIMIT, torch.nan, input)


def _raising(input: Tensor) -> Tensor:
    raise ValueError("this path always\nraises")


HONEST = Path("honest", _honest, claims=ALL_CLAIMS)
FRAGILE = Path("fragile", _fragile)
LYING = Path("lying", _fragile, claims=ALL_CLAIMS)
RAISING = Path("raising", _raising)

TOY = Operation(
    name="toy",
    meaning="the identity",
    truth=_truth,
    certified=_certified,
    slack=_slack,
    regimes=(Regime("constant", "every entry", _constant), Regime("signs", "plus, minus", _signs)),
    # The raising one first: what comes after it must be measured all the same.
    paths=(RAISING, HONEST, FRAGILE),
)
OPERATIONS = (TOY,)
