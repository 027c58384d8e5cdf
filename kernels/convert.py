"""Conversions between the dtype a tensor is stored in and the dtype its statistics are held in.

On a GPU these are the plain casts. Triton's interpreter (3.6 to 3.9) widens bf16 subnormals wrongly
and truncates where it should round to nearest even, and NumPy warns of every legal overflow to
infinity; there the bits are moved by hand.
"""

import triton
import triton.language as tl

from . import launch

_BY_HAND = tl.constexpr(launch.INTERPRETED)


@triton.jit
def widen(value, STATISTICS: tl.constexpr):
    """A loaded fp16, bf16, fp32 or fp64 value in the dtype of the statistics; exact."""
    if _BY_HAND:
        if value.dtype == tl.bfloat16:
            bits = value.to(tl.int16, bitcast=True).to(tl.int32) << 16
            value = bits.to(tl.float32, bitcast=True)
    return value.to(STATISTICS)


@triton.jit
def narrow(value, STORAGE: tl.constexpr):
    """A statistic in the dtype it is stored in, rounded to nearest even; above the largest finite
    value infinite.
    """
    if _BY_HAND:
        if value.dtype == tl.float64:
            if STORAGE != tl.float64:
                # 2**128 - 2**103, half-way between fp32's largest finite value and the next power
                # of two.
                value = tl.where(value >= 3.4028235677973366e38, float("inf"), value)
                value = tl.where(value <= -3.4028235677973366e38, float("-inf"), value)
        if STORAGE == tl.bfloat16:
            value = value.to(tl.float32)
            bits = value.to(tl.int32, bitcast=True)
            rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
            rounded = tl.where(value == value, rounded, 0x7FC0)
            return rounded.to(tl.int16).to(tl.bfloat16, bitcast=True)
        if STORAGE == tl.float16:
            # 65520 lies half-way between the largest finite value and the next power of two.
            value = tl.where(value >= 65520.0, float("inf"), value)
            value = tl.where(value <= -65520.0, float("-inf"), value)
    return value.to(STORAGE)
