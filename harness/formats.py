"""The four floating formats: limits, units in the last place, and floats counted one by one."""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import InputError, unknown

if TYPE_CHECKING:  # readers of runs need limits and floats, and not the seconds of importing torch
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Format:
    """One binary floating format.

    Positive floats are numbered by their bit pattern (their *ordinal*): 0 is zero, 1 the smallest
    subnormal, and neighbours differ by one, which is what a bisection to adjacent floats needs.
    """

    name: str  # "fp16", "bf16", "fp32", "fp64": how people and test ids say it
    bits: int  # storage width
    precision: int  # significand bits, the hidden one included
    max_exponent: int  # largest e with 2**e finite

    @property
    def dtype(self) -> "torch.dtype":
        import torch

        names = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}
        found: torch.dtype = getattr(torch, names[self.name])
        return found

    @property
    def min_exponent(self) -> int:
        """Smallest e with 2**e normal."""
        return 1 - self.max_exponent

    @property
    def largest(self) -> float:
        """Largest finite value."""
        return (2.0 - 2.0 ** (1 - self.precision)) * 2.0**self.max_exponent

    @property
    def smallest_normal(self) -> float:
        return 2.0**self.min_exponent

    @property
    def smallest(self) -> float:
        """Smallest subnormal: the spacing of floats around zero."""
        return math.ldexp(1.0, self.min_exponent - self.precision + 1)

    @property
    def unit_roundoff(self) -> float:
        """Half the spacing of floats just above 1: the relative error of one rounding."""
        return 2.0**-self.precision

    @property
    def overflow_threshold(self) -> tuple[float, float]:
        """`(largest, half its ulp)`: a value of at least their sum rounds to infinity.

        Given as two parts because for fp64 the sum itself is not a float.
        """
        return self.largest, math.ldexp(1.0, self.max_exponent - self.precision)

    @property
    def bit_dtype(self) -> "torch.dtype":
        """The integer type that views this format's bits."""
        import torch

        return {16: torch.int16, 32: torch.int32, 64: torch.int64}[self.bits]

    def round(self, value: float) -> float:
        """Round to the nearest float of this format; beyond its range, to its largest float."""
        if math.isnan(value):
            raise InputError("a magnitude must be a number, not NaN")
        inside = max(-self.largest, min(self.largest, value))
        # Scaled so that a unit in the last place is 1: exact, and rounded once. torch would round a
        # double to a half by way of fp32, which is twice.
        lowest = self.min_exponent - self.precision + 1
        place = max(math.frexp(inside)[1] - self.precision, lowest)
        return math.ldexp(round(math.ldexp(inside, -place)), place)

    def ordinal(self, value: float) -> int:
        """The number of a non-negative float of this format, counted from zero."""
        if self.name == "bf16":
            return int(struct.unpack("<I", struct.pack("<f", value))[0]) >> 16
        code, integer = {16: ("<e", "<H"), 32: ("<f", "<I"), 64: ("<d", "<Q")}[self.bits]
        return int(struct.unpack(integer, struct.pack(code, value))[0])

    def from_ordinal(self, ordinal: int) -> float:
        """The float with this number; the inverse of `ordinal`."""
        if self.name == "bf16":
            return float(struct.unpack("<f", struct.pack("<I", ordinal << 16))[0])
        code, integer = {16: ("<e", "<H"), 32: ("<f", "<I"), 64: ("<d", "<Q")}[self.bits]
        return float(struct.unpack(code, struct.pack(integer, ordinal))[0])

    def ulp(
        self,
        value: "Tensor",  # float64, any shape
    ) -> "Tensor":  # float64, same shape
        """Spacing of this format's floats at each value; at zero and below, of its subnormals."""
        import torch

        _, exponent = torch.frexp(value.abs().clamp(max=self.largest))
        # frexp gives 2**(e-1) <= |x| < 2**e, so the spacing there is 2**(e - precision).
        lowest = self.min_exponent - self.precision + 1
        spacing = (exponent.to(torch.int64) - self.precision).clamp(min=lowest)
        spacing = torch.where(value == 0, lowest, spacing)  # frexp gives zero the exponent of 1/2
        return torch.ldexp(torch.ones_like(value), spacing)


FORMATS: Mapping[str, Format] = {
    each.name: each
    for each in (
        Format("fp16", bits=16, precision=11, max_exponent=15),
        Format("bf16", bits=16, precision=8, max_exponent=127),
        Format("fp32", bits=32, precision=24, max_exponent=127),
        Format("fp64", bits=64, precision=53, max_exponent=1023),
    )
}


def format_named(name: str) -> Format:
    """The format people call `name`.

    Raises:
        InputError: for any name but fp16, bf16, fp32 and fp64.
    """
    if name not in FORMATS:
        raise unknown("dtype", name, FORMATS)
    return FORMATS[name]


def format_of(dtype: "torch.dtype") -> Format:
    """The format of a torch dtype; raises InputError for one that is not swept."""
    for each in FORMATS.values():
        if each.dtype == dtype:
            return each
    raise unknown("dtype", str(dtype), [str(each.dtype) for each in FORMATS.values()])


def statistics_format(storage: Format) -> Format:
    """The format in which sums are kept: fp32, or fp64 for fp64."""
    return FORMATS["fp64"] if storage.name == "fp64" else FORMATS["fp32"]
