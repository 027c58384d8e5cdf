"""exp(x - reference) over a range that its dtype does not hold, and right to its last bits.

A quotient of two exponentials is to be within 2 ULP in fp64, too, where nothing wider helps. So
what would be a further rounding goes into the argument, before the exponential rounds: the error of
the subtraction, and a correction by the caller (that of the sum it divides by). Where results are
smaller than any float, they are held as 2**BOOST times themselves, or in a wider dtype.
"""

import triton
import triton.language as tl

from ..elementary import times_power_of_two

# Below, exp(x) times the dtype's largest value is less than its smallest subnormal: nothing is lost
# if it is 0.
_FAR_SINGLE = tl.constexpr(195.0)
_FAR_DOUBLE = tl.constexpr(1460.0)

_LOG2_E = tl.constexpr(1.4426950408889634)
# ln 2 in two parts: the first has so few significant bits that its product with n is exact; the
# second is fdlibm's for fp64.
_LN2_HIGH_SINGLE = tl.constexpr(0.693359375)
_LN2_LOW_SINGLE = tl.constexpr(-2.12194440054690583e-4)
_LN2_HIGH_DOUBLE = tl.constexpr(6.93147180369123816490e-01)
_LN2_LOW_DOUBLE = tl.constexpr(1.90821492927058770002e-10)
# 1.5 * 2**23 and 1.5 * 2**52: adding it rounds to the nearest integer, which stands in the low bits
# of the sum.
_ROUND_SINGLE = tl.constexpr(12582912.0)
_ROUND_BITS_SINGLE = tl.constexpr(0x4B400000)
_ROUND_DOUBLE = tl.constexpr(6755399441055744.0)
_ROUND_BITS_DOUBLE = tl.constexpr(0x4338000000000000)


@triton.jit
def _reduce(x, correction):
    """Cody and Waite's x + correction = n ln 2 + r, |r| <= 0.347: n (int32), r, and what r lost."""
    if x.dtype == tl.float64:
        shifted = x * _LOG2_E + _ROUND_DOUBLE
        n = shifted - _ROUND_DOUBLE
        exponent = (shifted.to(tl.int64, bitcast=True) - _ROUND_BITS_DOUBLE).to(tl.int32)
        high = x - n * _LN2_HIGH_DOUBLE
        low = correction - n * _LN2_LOW_DOUBLE
    else:
        shifted = x * _LOG2_E + _ROUND_SINGLE
        n = shifted - _ROUND_SINGLE
        exponent = shifted.to(tl.int32, bitcast=True) - _ROUND_BITS_SINGLE
        high = x - n * _LN2_HIGH_SINGLE
        low = correction - n * _LN2_LOW_SINGLE
    r = high + low
    return exponent, r, (high - r) + low


@triton.jit
def _series(r, low):
    """exp(r + low), the Taylor series to degree 7, in fp64 13: a remainder below 2**-27, 2**-57.

    What r lost enters before the last addition rounds: the relative error is at most 1.2 u.
    """
    if r.dtype == tl.float64:
        series = r * (1.0 / 6227020800.0) + (1.0 / 479001600.0)
        series = series * r + (1.0 / 39916800.0)
        series = series * r + (1.0 / 3628800.0)
        series = series * r + (1.0 / 362880.0)
        series = series * r + (1.0 / 40320.0)
        series = series * r + (1.0 / 5040.0)
    else:
        series = tl.full(r.shape, 1.0 / 5040.0, r.dtype)
    series = series * r + (1.0 / 720.0)
    series = series * r + (1.0 / 120.0)
    series = series * r + (1.0 / 24.0)
    series = series * r + (1.0 / 6.0)
    series = series * r + 0.5
    return 1.0 + (r + (r * r * series + low))


@triton.jit
def exp_difference(x, reference, correction, BOOST: tl.constexpr, RESULT: tl.constexpr):
    """exp(x - reference + correction) * 2**BOOST in the dtype RESULT, that of x or fp64.

    x is finite or -inf, the reference finite and at least x, the correction a few ULP at most; NaN
    passes through. An x above the reference gives 2**BOOST: it occurs only where the reference
    stands in for an infinite maximum. BOOST is at least 64 where RESULT is the dtype of x.
    """
    if x.dtype == tl.float64:
        far = x < reference - _FAR_DOUBLE
    else:
        far = x < reference - _FAR_SINGLE
    near = tl.where(far | (x > reference), reference, x)
    difference = near - reference
    back = difference - near
    lost = (near - (difference - back)) - (reference + back)  # Knuth's TwoSum
    exponent, r, low = _reduce(difference, lost + correction)
    result = times_power_of_two(_series(r, low).to(RESULT), exponent + BOOST)
    return tl.where(far, 0.0, result)
