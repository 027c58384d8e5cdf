"""One measured case and its id: stable, readable, and enough to run it again with the seed."""

import math
from dataclasses import dataclass, field
from typing import Literal

from harness.errors import InputError, unknown
from harness.formats import format_named

Pass = Literal["forward", "backward"]
PASSES: tuple[Pass, ...] = ("forward", "backward")


@dataclass(frozen=True, slots=True)
class Case:
    """A point of the stability sweep; `magnitude` is already rounded to the dtype.

    >>> Case("cross_entropy", "triton", "bf16", "peak", 9984.0, (8, 32000), "backward").id
    'cross_entropy/triton/bf16/peak@9984/8x32000/backward'
    """

    operation: str
    path: str
    dtype: str  # "fp16", "bf16", "fp32", "fp64"
    regime: str
    magnitude: float
    shape: tuple[int, ...]
    pass_: Pass
    options: tuple[tuple[str, str], ...] = field(default=())  # sorted (key, value) pairs

    @property
    def id(self) -> str:
        size = "x".join(str(extent) for extent in self.shape)
        regime = f"{self.regime}@{decimal(self.magnitude)}"
        parts = [self.operation, self.path, self.dtype, regime, size, self.pass_]
        parts += [f"{key}={value}" for key, value in sorted(self.options)]
        return "/".join(parts)


def decimal(value: float) -> str:
    """Shortest decimal that reads back as the same double, without a trailing `.0`.

    >>> decimal(9984.0), decimal(5.960464477539063e-08)
    ('9984', '5.960464477539063e-08')
    """
    text = repr(float(value))
    return text.removesuffix(".0")


def parse_case(text: str) -> Case:
    """Read a case back from its id.

    Raises:
        InputError: if the id is malformed, names an unknown dtype or pass, or gives a magnitude
            that is not a finite float of that dtype.
    """
    pattern = "OPERATION/PATH/DTYPE/REGIME@MAGNITUDE/SHAPE/PASS[/KEY=VALUE...]"
    parts = text.split("/")
    if len(parts) < 6 or not all(parts):
        raise InputError(f"malformed case id {text!r}; expected {pattern}")
    operation, path, dtype, regime_at, size, pass_ = parts[:6]
    regime, at, number = regime_at.rpartition("@")
    options = [part.partition("=") for part in parts[6:]]
    if not at or not regime or any(not (key and sign) for key, sign, _ in options):
        raise InputError(f"malformed case id {text!r}; expected {pattern}")
    if pass_ not in PASSES:
        raise unknown("pass", pass_, PASSES)
    try:
        magnitude = float(number)
        shape = tuple(int(extent) for extent in size.split("x"))
    except ValueError as error:
        raise InputError(f"malformed case id {text!r} ({error}); expected {pattern}") from None
    if min(shape) < 0:
        raise InputError(f"malformed case id {text!r}: the shape {size} has a negative extent")
    # Compared as signs, since -0 is no magnitude either.
    if math.copysign(1.0, magnitude) < 0 or format_named(dtype).round(magnitude) != magnitude:
        raise InputError(
            f"malformed case id {text!r}: {number} is not a finite {dtype} value, 0 or more"
        )
    pairs = tuple(sorted((key, value) for key, _, value in options))
    return Case(operation, path, dtype, regime, magnitude, shape, pass_, pairs)
