"""Station two: the exact result of a batch, in float64 or, for fp64 inputs, in certified balls."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness.formats import Format
from harness.inputs import Batch
from harness.operation import Expected, Operation

# A ball is narrow enough when it fixes the truth to 2**-20 ulp of a double, or to 2**-73 of the
# terms that cancel in it, or lies so near zero that no double feels it. Precision doubles until so.
_PRECISIONS = (128, 256, 512, 1024, 2048, 4096)
_ACCURATE_BITS = 73
_UNFELT = 2.0**-1074  # a radius that converts to less than the smallest double


def expected_of(operation: Operation, fmt: Format, batch: Batch) -> dict[str, Expected]:
    """The truth of a batch, forward and backward, computed from the inputs already rounded.

    For fp16, bf16 and fp32 inputs the operation's float64 formulas are the truth: their rounding is
    at least 2**29 times finer than what is judged. fp64 inputs get ball arithmetic (Arb, through
    python-flint), whose radius bounds its own error.

    Raises:
        ArithmeticError: if a ball cannot be made narrow enough.
    """
    roles = batch.widened()
    slack = operation.slack(roles, **batch.options)
    if fmt.name != "fp64":
        values = operation.truth(roles, **batch.options)
        return {name: Expected.of(values[name], slack[name]) for name in values}
    return _certified(operation, batch, roles, slack)


def _certified(
    operation: Operation, batch: Batch, roles: dict[str, Tensor], slack: dict[str, Tensor]
) -> dict[str, Expected]:
    rows = next(iter(roles.values())).shape[0]
    columns = {role: value.tolist() for role, value in roles.items()}
    scales = {name: value.reshape(rows, -1).tolist() for name, value in slack.items()}
    found: dict[str, list[list[tuple[float, float, bool]]]] = {name: [] for name in slack}
    first = next(iter(roles.values())).reshape(rows, -1)
    # NaN, +inf or nothing but masks: no ball says more than the formulas' NaN and inf do.
    strange = (~(first < math.inf)).any(dim=1) | (first == -math.inf).all(dim=1)
    formulas = operation.truth(roles, **batch.options) if bool(strange.any()) else {}
    for row in range(rows):
        if strange[row]:
            for name in found:
                plain = formulas[name][row].reshape(-1).tolist()
                found[name].append([(value, 0.0, False) for value in plain])
            continue
        inputs = {
            role: values if role in batch.shared else values[row]
            for role, values in columns.items()
        }
        scale = {name: scales[name][row] for name in scales}
        balls = _narrow_balls(operation, inputs, batch.options, scale)
        for name in found:
            found[name].append([_split(ball) for ball in balls[name]])
    expected = {}
    for name, parts in found.items():
        shape = slack[name].shape
        # (rows, elements of a row, 3): high, low and the flag as one block of doubles
        block = torch.tensor(parts, dtype=torch.float64).reshape(*shape, 3)
        high, low, overflows = block.unbind(-1)
        expected[name] = Expected(high, low, slack[name], overflows.bool())
    return expected


def _narrow_balls(
    operation: Operation,
    inputs: dict[str, Any],
    options: Mapping[str, Any],
    scales: dict[str, list[float]],
) -> dict[str, list[Any]]:
    import flint  # heavy, and needed for fp64 alone

    before = flint.ctx.prec
    try:
        for precision in _PRECISIONS:
            flint.ctx.prec = precision
            balls = operation.certified(inputs, **options)
            if all(
                _narrow(ball, scale)
                for name, row in balls.items()
                for ball, scale in zip(row, scales[name], strict=True)
            ):
                return balls
    finally:
        flint.ctx.prec = before
    raise ArithmeticError(
        f"the truth of {operation.name} could not be certified at {_PRECISIONS[-1]} bits"
        f" for the row {inputs}"
    )


def _narrow(ball: Any, scale: float) -> bool:
    """Whether a ball (or a plain float: an infinity that the operation's definition gives) is."""
    if isinstance(ball, float) or ball.rel_accuracy_bits() >= _ACCURATE_BITS:
        return True
    radius = float(ball.rad())
    return radius <= math.ldexp(scale, -_ACCURATE_BITS) or radius < _UNFELT


def _split(ball: Any) -> tuple[float, float, bool]:
    """A ball as (high, low, overflows): the nearest double, what is left, whether none fits."""
    if isinstance(ball, float):
        return ball, 0.0, False
    middle = ball.mid()
    high = float(middle)
    if math.isinf(high):
        return high, 0.0, True
    return high, float((middle - high).mid()), False
