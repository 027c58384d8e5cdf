"""exp(x - reference) * 2**BOOST over the whole range, in fp64 as an unevaluated sum of two terms.

A gradient is a product of exponentials, a quotient and the upstream scale, and is to be right to 2
ULP in fp64, too, where nothing wider absorbs the roundings in between. So there exponentials and
quotients come as pairs whose sum is several bits more accurate than fp64.
"""

import triton
import triton.language as tl

from ..elementary import (
    cap_ratio,
    divide,
    exp_corrected,
    leading_half,
    power_of_two,
    residual,
    times_power_of_two,
    unboosting_factors,
)

# Below, exp(x) * 2**BOOST cannot matter: with 2**127 (fp64: 2**960) taken out and the dtype's
# largest value in, it is below the smallest subnormal.
_FAR = tl.constexpr(195.0)
_FAR_DOUBLE = tl.constexpr(1460.0)

_LOG2_E = tl.constexpr(1.4426950408889634)
# ln 2 in two parts (fdlibm's): the first has 32 significant bits, so that n times it is exact.
_LN2_HIGH = tl.constexpr(6.93147180369123816490e-01)
_LN2_LOW = tl.constexpr(1.90821492927058770002e-10)
# 1.5 * 2**52: adding it rounds to the nearest integer, which stands in the low bits of the sum.
_ROUND = tl.constexpr(6755399441055744.0)
_ROUND_BITS = tl.constexpr(0x4338000000000000)


@triton.jit
def exp_pair(x, correction, BOOST: tl.constexpr):
    """exp(x + correction) * 2**BOOST in fp64 as a sum of two terms, right to 0.3 unit roundoffs.

    Cody and Waite's x = n ln 2 + r, |r| <= 0.347; then exp(r) = 1 + (r + r**2 series), the Taylor
    series to degree 13 with a remainder below r**14 / 14! < 2**-57. Only r**2 / 2 <= 0.06 bears the
    series' roundings; the sum of 1 and r is kept exact. The first term is 1 + r, the second not
    small beside it.
    """
    shifted = x * _LOG2_E + _ROUND
    n = shifted - _ROUND
    exponent = (shifted.to(tl.int64, bitcast=True) - _ROUND_BITS).to(tl.int32)
    high = x - n * _LN2_HIGH
    low = correction - n * _LN2_LOW
    r = high + low
    low = (high - r) + low
    series = r * (1.0 / 6227020800.0) + (1.0 / 479001600.0)
    series = series * r + (1.0 / 39916800.0)
    series = series * r + (1.0 / 3628800.0)
    series = series * r + (1.0 / 362880.0)
    series = series * r + (1.0 / 40320.0)
    series = series * r + (1.0 / 5040.0)
    series = series * r + (1.0 / 720.0)
    series = series * r + (1.0 / 120.0)
    series = series * r + (1.0 / 24.0)
    series = series * r + (1.0 / 6.0)
    series = series * r + 0.5
    one = 1.0 + r
    rest = ((1.0 - one) + r) + (r * r * series + low)
    exponent += BOOST
    return times_power_of_two(one, exponent), times_power_of_two(rest, exponent)


@triton.jit
def _near_difference(x, reference, BOOST: tl.constexpr):
    """Where x lies too far below the reference to matter; elsewhere the difference, 0 for an x
    above it, and what that subtraction lost (Knuth's TwoSum).
    """
    # Without a boost what is farther is zero, and leaves what a power of two can be made of.
    if x.dtype == tl.float64:
        far = x < reference - (_FAR_DOUBLE if BOOST > 0 else 800.0)
    else:
        far = x < reference - (_FAR if BOOST > 0 else 128.0)
    near = tl.where(far | (x > reference), reference, x)
    difference = near - reference
    back = difference - near
    lost = (near - (difference - back)) - (reference + back)
    return far, difference, lost


@triton.jit
def exp_difference(x, reference, BOOST: tl.constexpr):
    """exp(x - reference) * 2**BOOST, x -inf or finite, reference >= x finite; NaN passes through.

    An x above the reference gives 2**BOOST: it occurs only where the reference stands in for an
    infinite maximum.
    """
    far, difference, lost = _near_difference(x, reference, BOOST)
    if x.dtype == tl.float64:
        high, low = exp_pair(difference, lost, BOOST)
        result = high + low
    else:
        result = exp_corrected(difference, lost, BOOST)
    return tl.where(far, 0.0, result)


@triton.jit
def exp_difference_pair(x, reference, BOOST: tl.constexpr):
    """The same for fp64 as a sum of two terms."""
    far, difference, lost = _near_difference(x, reference, BOOST)
    high, low = exp_pair(difference, lost, BOOST)
    return tl.where(far, 0.0, high), tl.where(far, 0.0, low)


@triton.jit
def rescaled(total, lost, before, reference, BOOST: tl.constexpr, STATISTICS: tl.constexpr):
    """A compensated sum of terms exp(x - before) as one of exp(x - reference), both held as
    2**BOOST times themselves: total and lost times exp(before - reference).

    In fp64, where nothing is wider, what the product rounds away goes into `lost`: a row whose
    maximum grows from block to block would add up an error of each.
    """
    # Both factors carry 2**BOOST: take one out first where the product would overflow, else last.
    unboost = power_of_two(tl.full(total.shape, -BOOST, tl.int32), total.dtype)
    large = total >= 1.0
    first, last = tl.where(large, unboost, 1.0), tl.where(large, 1.0, unboost)
    total, lost = total * first, lost * first
    if STATISTICS == tl.float64:
        first_term, second_term = exp_difference_pair(before, reference, BOOST)
        high = first_term + second_term
        low = (first_term - high) + second_term
        product = total * high
        rounded = residual(product, total, high)  # product - total * high
        lost = (rounded - total * low) + lost * high
        lost = tl.where(tl.abs(lost) < float("inf"), lost, 0.0)  # of an infinite total it is NaN
    else:
        high = exp_difference(before.to(total.dtype), reference.to(total.dtype), BOOST)
        product = total * high
        lost = lost * high
    return product * last, lost * last


@triton.jit
def log_rest(logarithm, first, second):
    """What a logarithm of (first + second) in fp64 lacks: one step of Newton's, (first + second)
    exp(-logarithm) - 1, from a pair.

    Both are nonnegative, and not both zero; 0 where one of them, or the logarithm, is not finite.
    """
    finite = (tl.abs(logarithm) < 700.0) & (first < 1e300) & (second < 1e300)
    first, second = tl.where(finite, first, 1.0), tl.where(finite, second, 0.0)
    whole = first + second
    # What that addition lost (Dekker's fast TwoSum).
    large, small = tl.maximum(first, second), tl.minimum(first, second)
    lost = (large - whole) + small
    high, low = exp_pair(tl.where(finite, logarithm, 0.0), tl.zeros_like(whole), 0)
    return ((whole - high) - low + lost) / whole


@triton.jit
def split_sum(high, low, BOOST: tl.constexpr):
    """The sum over axis 1 of pairs within [0, 2**BOOST] in two terms: the parts that are multiples
    of 2**(BOOST - 30), which add up exactly, and the rest, which is small.
    """
    spacing = tl.full(high.shape, 1.5 * 2.0 ** (22 + BOOST), tl.float64)
    coarse = (high + spacing) - spacing
    return tl.sum(coarse, axis=1), tl.sum((high - coarse) + low, axis=1)


@triton.jit
def sum_pairs(high, low, BOOST: tl.constexpr):
    """The sum over axis 1 of pairs within [0, 2**BOOST], see `split_sum`."""
    coarse, rest = split_sum(high, low, BOOST)
    return coarse + rest


@triton.jit
def divide_pair(numerator, high, low):
    """numerator / (high + low) in fp64 as a sum of two terms, |low| being a rounding of high."""
    quotient = numerator / high
    # Near the largest float the residual's products would overflow.
    scale = tl.where(tl.abs(quotient) > 1e290, 2.0**-60, 1.0)
    rest = residual(numerator * scale, quotient * scale, high) - quotient * scale * low
    rest = rest / high / scale
    return quotient, tl.where(tl.abs(rest) < float("inf"), rest, 0.0)


@triton.jit
def scaled_pair(high, low, factor_high, factor_low, after):
    """(high + low) * (factor_high + factor_low) * after: little more than one rounding, since the
    product of the leading halves is exact.
    """
    first, factor = leading_half(high), leading_half(factor_high)
    rest, factor_rest = (high - first) + low, (factor_high - factor) + factor_low
    out = first * factor + (rest * factor_high + first * factor_rest)
    # What is not finite has no parts.
    return tl.where(out == out, out, (high + low) * factor_high) * after


@triton.jit
def unboosting_pair(high, low, BOOST: tl.constexpr):
    """`unboosting_factors` for a scale in two terms: (high, low, after)."""
    unboost = power_of_two(tl.full(high.shape, -BOOST, tl.int32), tl.float64)
    large = tl.abs(high) >= 1.0
    before = tl.where(large, unboost, 1.0)
    return high * before, low * before, tl.where(large, 1.0, unboost)


@triton.jit
def times_slope(value, x, cap, cap_low, BOOST: tl.constexpr):
    """value times the slope of `elementary.soft_cap` at x, sech(x / cap)**2 = 4 e / (1 + e)**2 with
    e = exp(-2 |x| / cap), relatively accurate where it underflows; NaN where x is. BOOST is at
    least 2.
    """
    inside, ratio, rest = cap_ratio(x, cap, cap_low)
    exponent = -2.0 * tl.abs(ratio)
    correction = tl.where(ratio < 0.0, 2.0, -2.0) * rest
    if x.dtype == tl.float64:
        # Far below, the exponential would leave what it is made for; the slope is 0 there.
        inside = inside & (exponent > -_FAR_DOUBLE)
        high, low = exp_pair(tl.where(inside, exponent, 0.0), correction, BOOST - 2)
        power = high + low
    else:
        inside = inside & (exponent > -_FAR)
        power = exp_corrected(tl.where(inside, exponent, 0.0), correction, BOOST - 2)
    one = 1.0 + power * power_of_two(tl.full(x.shape, 2 - BOOST, tl.int32), x.dtype)
    slope = divide(4.0 * power, one * one)
    slope = tl.where(inside, slope, tl.where(x == x, 0.0, x))
    before, after = unboosting_factors(value, BOOST - 2)
    return before * slope.to(value.dtype) * after
