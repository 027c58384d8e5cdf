"""What a regime may add to plain inputs: an upstream gradient, shared inputs, options."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import harness
from harness.execute import missing_parameters
from harness.formats import FORMATS
from harness.operation import ALL_CLAIMS, UPSTREAM, Draws, Operation, Path, Regime, Roles
from harness.plan import Item
from harness.record import Record
from harness.sweep import sweep_item
from suites.selftest import toy

# y = power * x * weight, a weight a column: one shared role, one option, an upstream of its own.


def _truth(roles: Roles, power: float) -> dict[str, Tensor]:
    scale = power * roles["weight"]
    return {"forward": roles["input"] * scale, "backward": roles[UPSTREAM] * scale}


def _certified(row: dict[str, Any], power: float) -> dict[str, list[Any]]:
    from flint import arb

    def scaled(role: str) -> list[Any]:
        pairs = zip(row[role], row["weight"], strict=True)
        return [arb(power) * arb(x) * arb(w) for x, w in pairs]

    return {"forward": scaled("input"), "backward": scaled(UPSTREAM)}


def _slack(roles: Roles, power: float) -> dict[str, Tensor]:
    return {name: torch.zeros_like(roles["input"]) for name in ("forward", "backward")}


def _draw(draws: Draws) -> dict[str, np.ndarray]:
    return {
        "input": draws.generator("input").choice([-1.0, 1.0], size=draws.shape),
        "weight": 1.0 + draws.generator("weight").integers(0, 4, size=draws.shape[1]),
        UPSTREAM: draws.generator(UPSTREAM).choice([1.0, 2.0, 3.0], size=draws.shape),
    }


REGIME = Regime("weighted", "a weight a column", _draw, options={"power": 2.0}, shared=("weight",))
WEIGHTED = Operation("weighted", "power * x * weight", _truth, _certified, _slack, (REGIME,), ())


def _right(input: Tensor, weight: Tensor, *, power: float) -> Tensor:
    return input * (weight * power)


def _ignores_upstream(input: Tensor, weight: Tensor, *, power: float) -> Tensor:
    return _OnesBackward.apply(input, weight * power)


class _OnesBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return input * scale

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (scale,) = ctx.saved_tensors
        return torch.ones_like(upstream) * scale, None


def _spoils_weight(input: Tensor, weight: Tensor, *, power: float) -> Tensor:
    result = input * (weight * power)
    weight.mul_(2.0)
    return result


def _measured(function: Callable[..., Tensor], dtype: str) -> list[Record]:
    path = Path("planted", function, claims=ALL_CLAIMS)
    passes = ("forward", "backward")
    item = Item(WEIGHTED, path, FORMATS[dtype], REGIME, (1.0, 4.0), passes)
    return sweep_item(item, seed=0, device="cpu", refine=False)


# The cheapest format, and the one whose truth is certified row by row.
@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
def test_extras_reach_path_and_truth(dtype: str) -> None:
    """A path that uses all three is right in both passes, and the option stands in the id."""
    records = _measured(_right, dtype)
    assert [record.verdict.word for record in records] == ["ok"] * 4
    assert records[0].id == f"weighted/planted/{dtype}/weighted@1/4x64/forward/power=2"


def test_a_backward_that_ignores_its_upstream_is_found() -> None:
    """With upstream ones it would pass; with the drawn one its gradient is wrong."""
    words = {record["pass"]: record.verdict.word for record in _measured(_ignores_upstream, "fp32")}
    assert words == {"forward": "ok", "backward": "inaccurate"}


def test_a_changed_shared_input_is_found() -> None:
    """Writing to the weight that all rows share is reported for every magnitude."""
    words = {record.verdict.word for record in _measured(_spoils_weight, "fp32")}
    assert words == {"mutated_input"}


def test_what_a_signature_lacks_is_unsupported() -> None:
    """A path without a place for the weight or the option is recorded as such, with the reason."""
    records = _measured(lambda input: input, "fp32")
    assert {record.verdict.word for record in records} == {"unsupported"}
    assert records[0]["reason"] == "takes no weight, power"


@pytest.mark.parametrize(
    # One of each kind of parameter that takes an input or an option.
    ("function", "lacking"),
    [
        (lambda input, weight, *, power: input, ""),
        (lambda *inputs, **options: None, ""),
        (lambda input, weight, power: input, ""),
        (lambda input, *, power: input, "weight"),
        (torch.relu, ""),  # a builtin does not tell
    ],
    ids=["exact", "anything", "positional", "no_weight", "builtin"],
)
def test_missing_parameters(function: Callable[..., Tensor], lacking: str) -> None:
    """The upstream gradient is no parameter; every other role and option needs a place."""
    assert missing_parameters(function, ["input", "weight", UPSTREAM], ["power"]) == lacking


def test_assert_stable_leaves_out_what_a_function_does_not_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A function of the input alone is held to the plain regimes; one that lacks all is refused."""
    regimes = (*toy.TOY.regimes, REGIME)
    monkeypatch.setattr(toy, "OPERATIONS", (replace(toy.TOY, regimes=regimes),))
    harness.assert_stable(lambda input: input * 1.0, "toy", catalog=toy.__name__)
    with pytest.raises(harness.InputError, match="takes fewer inputs"):
        harness.assert_stable(lambda: torch.ones(1), "toy", catalog=toy.__name__)
