"""Elementary functions for Triton kernels that hold their accuracy over the whole range.

The hardware's exponential loses about |x| units in the last place, its logarithm is inaccurate near
1, and the interpreter has no libdevice. So the few functions that the kernels need are written here
from additions, multiplications and exponent bits, once for fp32 and once for fp64; a GPU and the
interpreter run the same text. Nothing below relies on a product being rounded before it is added,
so fused multiply-adds may form freely.
"""

import triton
import triton.language as tl

# --- powers of two --------------------------------------------------------------------------------


@triton.jit
def power_of_two(exponent, DTYPE: tl.constexpr):
    """2**exponent, exactly, from the exponent bits; `exponent` within the normal range of DTYPE."""
    if DTYPE == tl.float64:
        bits = (exponent.to(tl.int64) + 1023) << 52
    else:
        bits = (exponent.to(tl.int32) + 127) << 23
    return bits.to(DTYPE, bitcast=True)


@triton.jit
def exponent_of(magnitude):
    """The k (int32) with 2**k <= magnitude < 2**(k+1), clamped so that 2**k, 2**-k are normal."""
    if magnitude.dtype == tl.float64:
        exponent = ((magnitude.to(tl.int64, bitcast=True) >> 52) & 0x7FF) - 1023
        exponent = tl.minimum(tl.maximum(exponent, -1022), 1022)
    else:
        exponent = ((magnitude.to(tl.int32, bitcast=True) >> 23) & 0xFF) - 127
        exponent = tl.minimum(tl.maximum(exponent, -126), 126)
    return exponent.to(tl.int32)


@triton.jit
def times_power_of_two(value, exponent):
    """value * 2**exponent for an exponent up to twice the normal range.

    Two steps in the same direction: an intermediate overflows or underflows only where the result
    does.
    """
    half = exponent >> 1
    return value * power_of_two(half, value.dtype) * power_of_two(exponent - half, value.dtype)


@triton.jit
def unboosting_factors(scale, BOOST: tl.constexpr):
    """The (pre, post) with value * pre * post = value / 2**BOOST * scale, for a |value| up to about
    2**BOOST: the first product overflows only where the result does, and loses no bits that the
    result would hold.
    """
    unboost = power_of_two(tl.full(scale.shape, -BOOST, tl.int32), scale.dtype)
    large = tl.abs(scale) >= 1.0
    return tl.where(large, scale * unboost, scale), tl.where(large, 1.0, unboost)


# --- sums and quotients ---------------------------------------------------------------------------


@triton.jit
def add_compensated(total, lost, value):
    """Kahan's sum: the new total, and what the addition lost (to be taken off the next value)."""
    value = value - lost
    new = total + value
    return new, (new - total) - value


@triton.jit
def sum_terms(terms, SUMS: tl.constexpr, BOOST: tl.constexpr):
    """The sum over axis 1 of terms within [0, 2**BOOST], in the dtype SUMS.

    fp64 has nothing wider, so its terms are split: the parts that are multiples of 2**(BOOST - 30)
    add up exactly, the rest is small.
    """
    if terms.dtype == tl.float64:
        spacing = tl.full(terms.shape, 1.5 * 2.0 ** (22 + BOOST), tl.float64)
        high = (terms + spacing) - spacing
        return tl.sum(high, axis=1) + tl.sum(terms - high, axis=1)
    else:
        return tl.sum(terms.to(SUMS), axis=1)


@triton.jit
def sum_squares(z, SUMS: tl.constexpr):
    """The sum over axis 1 of z**2 for z within (-4, 4), in the dtype SUMS; fp64 is split as in
    `sum_terms`, at 2**-17.
    """
    if z.dtype == tl.float64:
        high = (z + 51539607552.0) - 51539607552.0  # 1.5 * 2**35
        return tl.sum(high * high, axis=1) + tl.sum((z - high) * (z + high), axis=1)
    else:
        wide = z.to(SUMS)
        return tl.sum(wide * wide, axis=1)


@triton.jit
def divide(numerator, denominator):
    """The correctly rounded quotient (a GPU's plain fp32 division is not)."""
    if numerator.dtype == tl.float64:
        return numerator / denominator
    else:
        return tl.div_rn(numerator, denominator)


@triton.jit
def square_root(x):
    """The correctly rounded square root (a GPU's plain fp32 root is not)."""
    if x.dtype == tl.float64:
        return tl.sqrt(x)
    else:
        return tl.sqrt_rn(x)


# --- exponential ----------------------------------------------------------------------------------

_LOG2_E = tl.constexpr(1.4426950408889634)
# ln 2 in two parts: the first has 10 significant bits, so that its product with n (8 bits) is
# exact.
_LN2_HIGH = tl.constexpr(0.693359375)
_LN2_LOW = tl.constexpr(-2.12194440054690583e-4)
# 1.5 * 2**23: adding it rounds to the nearest integer and leaves that integer in the low bits of
# the sum.
_ROUND = tl.constexpr(12582912.0)
_ROUND_BITS = tl.constexpr(0x4B400000)


# 64 ln 2, its first part a multiple of 2**-43: adding it to x within (-1024, -600) is exact.
_SHIFT_HIGH = tl.constexpr(390207173010335.0 / 8796093022208.0)
_SHIFT_LOW = tl.constexpr(-5.62123739673937e-15)


@triton.jit
def exp_corrected(x, correction, BOOST: tl.constexpr):
    """exp(x + correction) * 2**BOOST, for a correction of at most a few ULP of x; x up to ln(max).

    fp32: Cody and Waite's reduction x = n ln 2 + r, |r| <= 0.347, then the Taylor series to degree
    7, whose remainder is below r**8 / 40320 < 2**-27, and an exact scaling by 2**n in two steps, so
    that subnormal results are rounded once and not flushed. x must not lie below -170. fp64: the
    library's exponential, right down to subnormal values of exp(x) itself where BOOST is 64. NaN
    passes through.
    """
    if x.dtype == tl.float64:
        if BOOST == 64:
            # Where exp(x) itself would be subnormal, 2**64 goes into the argument.
            low = x < -600.0
            correction += tl.where(low, tl.full(x.shape, _SHIFT_LOW, tl.float64), 0.0)
            shifted = x + tl.where(low, tl.full(x.shape, _SHIFT_HIGH, tl.float64), 0.0)
            result = tl.exp(shifted) * tl.where(low, 1.0, 18446744073709551616.0)
        else:
            result = tl.exp(x) * power_of_two(tl.full(x.shape, BOOST, tl.int32), tl.float64)
        result += result * correction
    else:
        shifted = x * _LOG2_E + _ROUND
        n = shifted - _ROUND
        exponent = shifted.to(tl.int32, bitcast=True) - _ROUND_BITS
        high = x - n * _LN2_HIGH
        low = correction - n * _LN2_LOW
        r = high + low
        low = (high - r) + low  # what that addition lost (Dekker's fast TwoSum)
        series = r * (1.0 / 5040.0) + (1.0 / 720.0)
        series = series * r + (1.0 / 120.0)
        series = series * r + (1.0 / 24.0)
        series = series * r + (1.0 / 6.0)
        series = series * r + 0.5
        result = times_power_of_two(1.0 + (r + (r * r * series + low)), exponent + BOOST)
    return result


@triton.jit
def exp_difference(x, reference, BOOST: tl.constexpr = 0):
    """exp(x - reference) * 2**BOOST, x -inf or finite, reference >= x finite; NaN passes through.

    The subtraction's rounding error (Knuth's TwoSum) is folded back in: without it the result would
    lose |x - reference| units in the last place. Where the result underflows anyway nothing is
    computed, so nothing overflows. An x above the reference gives 2**BOOST: it occurs only where
    the reference stands in for an infinite maximum.
    """
    if x.dtype == tl.float64:
        far = x < reference - 800.0
    elif BOOST > 0:
        far = x < reference - 170.0
    else:
        far = x < reference - 128.0
    near = tl.where(far | (x > reference), reference, x)
    difference = near - reference
    back = difference - near
    lost = (near - (difference - back)) - (reference + back)
    return tl.where(far, 0.0, exp_corrected(difference, lost, BOOST))


# --- logarithms -----------------------------------------------------------------------------------
# FreeBSD msun's s_log1p.c, e_log.c and k_logf.h (after fdlibm): the argument is 2**k * (1 + f) with
# 1 + f within [sqrt(1/2), sqrt(2)], s = f / (2 + f), and log(1 + f) = f - f*f/2 + s * (f*f/2 +
# R(s*s)) with R a minimax polynomial of remainder below 2**-58 (fp64) or 2**-34 (fp32). The
# result's error stays below 1 unit in the last place.


@triton.jit
def _split(u):
    """For a normal positive u, k and f: u = 2**k * (1 + f), 1 + f in [sqrt(1/2), sqrt(2))."""
    if u.dtype == tl.float64:
        # Adding the distance from sqrt(1/2) to 1 carries into the exponent exactly where 1 + f
        # would exceed sqrt(2).
        bits = u.to(tl.int64, bitcast=True) + (0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
        k = (bits >> 52) - 1023
        mantissa = (bits & 0x000FFFFFFFFFFFFF) + 0x3FE6A09E667F3BCD
    else:
        bits = u.to(tl.int32, bitcast=True) + (0x3F800000 - 0x3F3504F3)
        k = (bits >> 23) - 127
        mantissa = (bits & 0x007FFFFF) + 0x3F3504F3
    return k.to(u.dtype), mantissa.to(u.dtype, bitcast=True) - 1.0


@triton.jit
def _log_from_parts(k, f, c):
    """log(2**k * (1 + f)) + c, for a small correction c."""
    half_square = 0.5 * f * f
    s = f / (2.0 + f)
    z = s * s
    if f.dtype == tl.float64:
        series = z * 1.479819860511658591e-01 + 1.531383769920937332e-01
        series = z * series + 1.818357216161805012e-01
        series = z * series + 2.222219843214978396e-01
        series = z * series + 2.857142874366239149e-01
        series = z * series + 3.999999999940941908e-01
        series = z * (z * series + 6.666666666666735130e-01)
        high = k * 6.93147180369123816490e-01
        low = k * 1.90821492927058770002e-10 + c
    else:
        series = z * 0.24279078841 + 0.28498786688
        series = z * series + 0.40000972152
        series = z * (z * series + 0.66666662693)
        high = k * 6.9313812256e-01
        low = k * 9.0580006145e-06 + c
    return high - ((half_square - (s * (half_square + series) + low)) - f)


@triton.jit
def log(u):
    """log(u) for a normal positive u; NaN passes through."""
    k, f = _split(u)
    return _log_from_parts(k, f, f * 0.0)


@triton.jit
def log1p(x):
    """log(1 + x) for finite x >= 0, accurate down to the smallest subnormal; NaN passes through."""
    u = 1.0 + x
    k, f = _split(u)
    # What 1 + x rounded away; above 2 it is the 1 that suffers.
    lost = tl.where(u > 2.0, 1.0 - (u - x), x - (u - 1.0)) / u
    small = x < 0.41421
    return _log_from_parts(
        tl.where(small, 0.0, k), tl.where(small, x, f), tl.where(small, 0.0, lost)
    )


# --- soft cap -------------------------------------------------------------------------------------


@triton.jit
def leading_half(x):
    """x rounded to half its significant bits: a product of two such halves is exact."""
    if x.dtype == tl.float64:
        bits = (x.to(tl.int64, bitcast=True) + 0x4000000) & -0x8000000
    else:
        bits = (x.to(tl.int32, bitcast=True) + 0x800) & -0x1000
    return bits.to(x.dtype, bitcast=True)


@triton.jit
def residual(numerator, quotient, denominator):
    """numerator - quotient * denominator, accurately, for the rounded quotient; every product in it
    is exact, so that it makes no difference which of them are fused with a sum.
    """
    q_high, d_high = leading_half(quotient), leading_half(denominator)
    q_low, d_low = quotient - q_high, denominator - d_high
    return (((numerator - q_high * d_high) - q_high * d_low) - q_low * d_high) - q_low * d_low


# Beyond |x| = 2**7 cap (2**10 in fp64) the cap is reached and its slope is below every float.
_SATURATED = tl.constexpr(2.0**-7)
_SATURATED_DOUBLE = tl.constexpr(2.0**-10)


@triton.jit
def cap_ratio(x, cap, cap_low):
    """Two terms whose sum is x / (cap + cap_low), 0 where that is saturated or x is NaN or inf."""
    if x.dtype == tl.float64:
        inside = tl.abs(x) * _SATURATED_DOUBLE < cap
    else:
        inside = tl.abs(x) * _SATURATED < cap
    x = tl.where(inside, x, 0.0)
    cap = tl.broadcast_to(cap, x.shape)
    ratio = divide(x, cap)
    # Of a subnormal ratio the remainder would say nothing, and it is not asked for.
    rest = tl.where(tl.abs(ratio) > 1e-30, residual(x, ratio, cap) - ratio * cap_low, 0.0)
    return inside, ratio, divide(rest, cap)


@triton.jit
def soft_cap(x, cap, cap_low):
    """cap * tanh(x / cap) for a cap in two terms, within 2 ULP; the cap itself at infinity.

    |x| < 0.625 cap: x plus a small rest, S. L. Moshier's approximations of tanh (Cephes, tanh.c and
    tanhf.c). Beyond: cap - cap * 2 e / (1 + e) with e = exp(-2 |x| / cap). NaN passes through.
    """
    inside, ratio, rest = cap_ratio(x, cap, cap_low)
    size = tl.abs(ratio)
    small = tl.where(size < 0.625, ratio, 0.0)
    z = small * small
    if x.dtype == tl.float64:
        series = z * -9.64399179425052238628e-1 - 9.92877231001918586564e1
        series = z * series - 1.61468768441708447952e3
        below = (z + 1.12811678491632931402e2) * z + 2.23548839060100448583e3
        series = series / (below * z + 4.84406305325125486048e3)
    else:
        series = z * -5.70498872745e-3 + 2.06390887954e-2
        series = z * series - 5.37397155531e-2
        series = z * series + 1.33314422036e-1
        series = z * series - 3.33332819422e-1
    near = x + cap * (small * z * series)
    large = tl.minimum(size, 20.0)
    power = exp_corrected(-2.0 * large, tl.where(ratio < 0.0, 2.0, -2.0) * rest, 0)
    far = cap - (cap * (2.0 * power / (1.0 + power)) - cap_low)
    far = tl.where(inside, far, cap)
    far = tl.where(x < 0.0, -far, far)
    return tl.where((inside & (size < 0.625)) | (x != x), near, far)
