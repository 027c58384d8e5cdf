"""What the kernels of rms_norm and layer_norm share: in what arithmetic, and over what range.

Per dtype of the input the cheapest arithmetic that is right over the dtype's whole range. Sums over
a row or a column are fp64 throughout; the elements are

    fp16    fp32, as they are: squares fit. The gradient in fp64 where a parameter is wider.
    bf16    fp32, each row scaled by a power of two s; the gradient in fp64, where g w x / r of any
            three bf16 values fits unscaled.
    fp32    fp64, as they are: any product that occurs fits.
    fp64    fp64, where nothing is wider: numbers are held as pairs m 2**k (`split`), k an int32,
            and row scales, sums and quotients in two parts.

A row's statistics go from forward to backward as a few fp64 numbers. `EXTENDED` marks fp64 inputs
and `SCALED` those whose rows have a scale (bf16 forward, fp64); both are decided when compiling.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from .elementary import exponent_of, power_of_two, sum_squares

# The exponent of zero: below that of any product of four doubles.
LOWEST = tl.constexpr(-20000)
# A bf16 row is scaled to 2**110 where the weight may bring small elements back: exact for each
# element (from 2**-133 on), and times sqrt(K) still finite in fp32.
_RAISED = tl.constexpr(110)


def element_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype of forward's arithmetic on elements."""
    return torch.float32 if x.element_size() == 2 else torch.float64


def gradient_dtype(x: torch.Tensor, weight: torch.Tensor | None) -> torch.dtype:
    """The dtype of backward's arithmetic on elements: fp32 where no product leaves its range."""
    short = x.dtype == torch.float16 and (weight is None or weight.dtype == torch.float16)
    return torch.float32 if short else torch.float64


def is_scaled(dtype: torch.dtype) -> bool:
    """Whether forward divides rows of this dtype by a power of two."""
    return dtype in (torch.bfloat16, torch.float64)


def least_exponent(eps: float, dtype: torch.dtype) -> int:
    """The least k that a row of this dtype is scaled by 2**k: about sqrt(eps), so that eps / s**2
    stays below 4; where the row is smaller still, its squares vanish beside eps.
    """
    if not is_scaled(dtype):
        return 0
    smallest = -1074 if dtype == torch.float64 else -126
    if eps == 0.0:
        return smallest
    return max((math.frexp(eps)[1] - 1) // 2, smallest)


# --- numbers of any size --------------------------------------------------------------------------


@triton.jit
def split(x):
    """(m, k) with x = m 2**k; |m| within [1, 4), smaller where x is subnormal. Zero is (0, LOWEST),
    and what is not finite keeps itself as m.
    """
    k = exponent_of(tl.abs(x))
    return x * power_of_two(-k, tl.float64), tl.where(x == 0.0, LOWEST, k)


@triton.jit
def shift(value, k):
    """value * 2**k in fp64 for any k: four steps in the same direction, one of which may round."""
    size = tl.minimum(tl.abs(k), 4000)
    sign = tl.where(k < 0, -1, 1)
    quarter = size >> 2
    step = ((sign * quarter + 1023).to(tl.int64) << 52).to(tl.float64, bitcast=True)
    last = ((sign * (size - 3 * quarter) + 1023).to(tl.int64) << 52).to(tl.float64, bitcast=True)
    return value * step * step * step * last


@triton.jit
def shift_down(value, k):
    """value * 2**k in fp64 for k <= 0, in two steps; below k = -2000 it is 0 anyway."""
    k = tl.maximum(k, -2000)
    half = k >> 1
    first = ((half + 1023).to(tl.int64) << 52).to(tl.float64, bitcast=True)
    second = ((k - half + 1023).to(tl.int64) << 52).to(tl.float64, bitcast=True)
    return value * first * second


@triton.jit
def row_exponent(x):
    """Per row of a tile, the exponent of its largest finite element; in fp64 of a subnormal too."""
    size = tl.abs(x)
    top = tl.max(tl.where(size < float("inf"), size, 0.0), axis=1)
    if x.dtype == tl.float64:
        small = top < 1e-200
        raised = tl.where(small, top, 0.0) * 2.0**200
        return exponent_of(tl.where(small, raised, top)) - tl.where(small, 200, 0)
    else:
        return exponent_of(top)


@triton.jit
def accumulate(total, lost, value):
    """Kahan's sum; a total that is not finite loses nothing, so that an infinity stays one."""
    value = value - lost
    new = total + value
    lost = (new - total) - value
    return new, tl.where(lost == lost, lost, 0.0)


@triton.jit
def accumulate_shifted(total, lost, exponent, value, k, AXIS: tl.constexpr):
    """The sum (total - lost) 2**exponent after the numbers value 2**k of one more tile, summed over
    an axis.
    """
    k = tl.where(value == 0.0, LOWEST, k)
    new = tl.maximum(exponent, tl.max(k, axis=AXIS))
    down = shift_down(value, k - tl.expand_dims(new, AXIS))
    total, lost = shift_down(total, exponent - new), shift_down(lost, exponent - new)
    # Multiples of 2**-17 add up exactly, however many and in whatever order; the rest is small. An
    # infinity has no rest.
    coarse = (down + 51539607552.0) - 51539607552.0  # 1.5 * 2**35
    fine = tl.where(tl.abs(down) < float("inf"), down - coarse, 0.0)
    total, lost = accumulate(total, lost, tl.sum(coarse, axis=AXIS))
    total, lost = accumulate(total, lost, tl.sum(fine, axis=AXIS))
    return total, lost, new


@triton.jit
def _leading_half(x):
    """x without the lower 27 of its 53 bits: the product of two such numbers is exact."""
    return (x.to(tl.int64, bitcast=True) & -134217728).to(tl.float64, bitcast=True)


# --- statistics of a row --------------------------------------------------------------------------


@triton.jit
def sum_squares_wide(z):
    """The sum of squares of each row of a tile, in fp64; fp64 within (-4, 4) split as usual."""
    if z.dtype == tl.float64:
        total = sum_squares(z, tl.float64)
        # An infinity has no parts: their sum would be NaN.
        return tl.where(total == total, total, tl.sum(z * z, axis=1))
    else:
        return tl.sum((z * z).to(tl.float64), axis=1)


@triton.jit
def scaled_down(x, exponent):
    """Rows of a tile divided by 2**exponent; in two steps where that is no normal fp64 number."""
    if x.dtype == tl.float64:
        half = (-exponent) >> 1
        x = x * power_of_two(half, tl.float64)[:, None]
        return x * power_of_two(-exponent - half, tl.float64)[:, None]
    else:
        return x * power_of_two(-exponent, x.dtype)[:, None]


@triton.jit
def take_in_squares(x, exponent, squares, lost, SCALED: tl.constexpr):
    """(s, sum of (x / s)**2) of each row after one more tile of it."""
    if SCALED:
        new = tl.maximum(exponent, row_exponent(x))
        down = 2 * (exponent - new)
        squares, lost = shift_down(squares, down), shift_down(lost, down)
        exponent = new
        x = scaled_down(x, exponent)
    if SCALED or x.dtype == tl.float32:
        tile = sum_squares_wide(x)
    else:
        tile = tl.sum(x * x, axis=1)
    squares, lost = accumulate(squares, lost, tile)
    return exponent, squares, lost


@triton.jit
def mean_of(total, rest, count, EXTENDED: tl.constexpr):
    """(total + rest) / count as the sum of two numbers; the second is 0 where fp64 has bits to
    spare. The first is a multiple of 2**-17, so that its product with a count is exact.
    """
    high = total / count
    low = high * 0.0
    if EXTENDED:
        high = (high + 51539607552.0) - 51539607552.0  # 1.5 * 2**35
        low = ((total - high * count) + rest) / count
    return high, low


@triton.jit
def centred(z, mean, mean_low):
    """z - mean for a tile of fp32 or fp64 and rows' means in fp64.

    The mean's rounding error is subtracted after it: rows of a large offset keep all their bits.
    """
    high = mean.to(z.dtype)
    low = (mean - high.to(tl.float64)) + mean_low
    return (z - high[:, None]) - low.to(z.dtype)[:, None]


@triton.jit
def take_in_moments(
    x, inside, before, count, exponent, total, rest, squares, lost,
    SCALED: tl.constexpr, EXTENDED: tl.constexpr,
):  # fmt: skip
    """(s, sum z, sum (z - mean)**2), z = x / s, of each row after one more tile of `count` columns.

    The tile's own moments are merged with those of the columns `before` as Chan, Golub and LeVeque
    do; never a difference of large squares.
    """
    if SCALED:
        new = tl.maximum(exponent, row_exponent(x))
        down = exponent - new
        total, rest = shift_down(total, down), shift_down(rest, down)
        squares, lost = shift_down(squares, 2 * down), shift_down(lost, 2 * down)
        exponent = new
        x = scaled_down(x, exponent)
    if EXTENDED:
        # Multiples of 2**-17 add up exactly; what is left is small.
        high = (x + 51539607552.0) - 51539607552.0
        tile_total, tile_rest = tl.sum(high, axis=1), tl.sum(x - high, axis=1)
    else:
        tile_total = tl.sum(x.to(tl.float64), axis=1)
        tile_rest = tile_total * 0.0
    mean, mean_low = mean_of(tile_total, tile_rest, count, EXTENDED)
    difference = tl.where(inside, centred(x, mean, mean_low), 0.0)
    if SCALED or x.dtype == tl.float32:
        tile_squares = sum_squares_wide(difference)
    else:
        tile_squares = tl.sum(difference * difference, axis=1)
    old, old_low = mean_of(total, rest, tl.maximum(before, 1.0), EXTENDED)
    step = (mean - old) + (mean_low - old_low)
    tile_squares += step * step * (before * count / (before + count))
    squares, lost = accumulate(squares, lost, tile_squares)
    # Knuth's TwoSum
    new_total = total + tile_total
    back = new_total - total
    rest += ((total - (new_total - back)) + (tile_total - back)) + tile_rest
    return exponent, new_total, rest, squares, lost


@triton.jit
def root_of(squares, exponent, n_columns, EPS: tl.constexpr, SCALED: tl.constexpr):
    """sqrt(mean square + eps / s**2), and the number under the root."""
    floor = tl.full(squares.shape, EPS, tl.float64)
    if SCALED:
        floor = shift(floor, -2 * exponent)
    under = squares / n_columns + floor
    return tl.sqrt(under), under


@triton.jit
def save_scale(pointer, rows, inside, root, exponent, STRIDE: tl.constexpr, EXTENDED: tl.constexpr):
    """Store the first two statistics of each row: r and the exponent of s for fp64 inputs, which
    have no room for the product; s r and 0 for the others.
    """
    if EXTENDED:
        tl.store(pointer + rows * STRIDE, root, mask=inside)
        tl.store(pointer + rows * STRIDE + 1, exponent.to(tl.float64), mask=inside)
    else:
        tl.store(pointer + rows * STRIDE, shift(root, exponent), mask=inside)
        tl.store(pointer + rows * STRIDE + 1, tl.zeros(root.shape, tl.float64), mask=inside)


# --- elements -------------------------------------------------------------------------------------


@triton.jit
def inverse_of(root, DTYPE: tl.constexpr):
    """1 / root; 0 for a row whose root is 0, which holds nothing but zeros.

    Above 1e38, where fp32 ends, the elements are 0 or their quotient overflows fp16 anyway: there
    it is 1e38, so that 0 times it is 0.
    """
    inverse = tl.where(root == 0.0, 0.0, 1.0 / tl.where(root == 0.0, 1.0, root))
    if DTYPE == tl.float32:
        inverse = tl.where(inverse > 1e38, 1e38, inverse)
    return inverse.to(DTYPE)


@triton.jit
def weighted_direction(
    x, weight, exponent, root, under, HAS_WEIGHT: tl.constexpr, SCALED: tl.constexpr
):
    """x / (s r) * weight for a tile of rows, rounded once or nearly so."""
    if not SCALED:
        y = x * inverse_of(root, x.dtype)[:, None]
        if HAS_WEIGHT:
            y = y * weight
    elif x.dtype == tl.float32:
        up = _RAISED - exponent
        z = x * power_of_two(up >> 1, tl.float32)[:, None]
        factor = power_of_two(up - (up >> 1), tl.float32) * inverse_of(root, tl.float32)
        y = z * factor[:, None]
        lower = power_of_two(tl.full([1, 1], -_RAISED, tl.int32), tl.float32)
        if HAS_WEIGHT:
            large = tl.abs(weight) >= 1.0
            y = y * tl.where(large, weight * lower, weight) * tl.where(large, 1.0, lower)
        else:
            y = y * lower
    else:
        y = _extended_direction(x, weight, exponent, root, under, HAS_WEIGHT)
    return y


@triton.jit
def _extended_direction(x, weight, exponent, root, under, HAS_WEIGHT: tl.constexpr):
    """The same for fp64, within 1.3 ULP: root, quotient and product carry what they round away.

    r + r' = sqrt(under) with r a multiple of 2**-24, so that r**2 is exact; q + q' = m / (r + r').
    Halves of 26 bits multiply exactly, whether or not a product is fused with an addition.
    """
    root = tl.where(root == 0.0, 1.0, root)
    high = (root + 402653184.0) - 402653184.0  # 1.5 * 2**28
    low = (under - high * high) / (high + root)
    m, k = split(x)
    plain = m / root[:, None]
    quotient = _leading_half(plain)
    rest = ((m - quotient * high[:, None]) - quotient * low[:, None]) / root[:, None]
    if HAS_WEIGHT:
        w, w_exponent = split(weight)
        k += w_exponent
        w_high = _leading_half(w)
        y = quotient * w_high + (quotient * (w - w_high) + rest * w)
        plain = plain * w
    else:
        y = quotient + rest
    y = tl.where(y == y, y, plain)  # what is not finite has no parts
    return shift(y, tl.maximum(k, LOWEST) - exponent[:, None])
