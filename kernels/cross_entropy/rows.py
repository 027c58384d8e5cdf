"""What the kernels of cross-entropy share: reading logits and targets, a row's loss and factors."""

import triton
import triton.language as tl

from ..convert import widen
from ..elementary import divide, log, log1p, power_of_two, soft_cap, unboosting_factors
from .exponential import divide_pair, exp_difference, log_rest, scaled_pair, unboosting_pair

# A row's loss beyond 2**928 is held as 2**1024 times a number of its own, so that a mean is finite
# where single rows are not.
_LARGE = tl.constexpr(2.0**-96)
_HALF_UNIT = tl.constexpr(2.0**-512)


@triton.jit
def finite_reference(maximum):
    """What to subtract: the maximum so far, or 0 while it is infinite (-inf minus -inf would be
    NaN).
    """
    return tl.where((maximum > float("-inf")) & (maximum < float("inf")), maximum, 0.0)


@triton.jit
def double_from_bits(bits):
    """The fp64 number with these bits: as an argument Triton would round it to fp32."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def in_two_terms(value, DTYPE: tl.constexpr):
    """An fp64 number as two terms of DTYPE, fp32 or fp64."""
    high = value.to(DTYPE)
    return high, (value - high.to(tl.float64)).to(DTYPE)


@triton.jit
def load_labels(target, rows, inside, n_columns, ignore_index):
    """Per row: is it ignored, and its class, or -1 for none."""
    label = tl.load(target + rows, mask=inside, other=0)
    ignored = label == ignore_index
    has_class = inside & (label != ignore_index) & (label >= 0) & (label < n_columns)
    return ignored, tl.where(has_class, label, -1)


@triton.jit
def load_at(pointer, rows, label, stride_row, stride_column, STATISTICS: tl.constexpr):
    """Each row's element in the column of its class; 0 where it has none."""
    has_class = label >= 0
    offset = rows * stride_row + tl.where(has_class, label, 0) * stride_column
    return widen(tl.load(pointer + offset, mask=has_class, other=0.0), STATISTICS)


@triton.jit
def load_logits(
    logits,
    rows,
    columns,
    mask,
    stride_row,
    stride_column,
    cap,
    cap_low,
    HAS_CAP: tl.constexpr,
    STATISTICS: tl.constexpr,
):
    """A tile of logits as given, and as softcapped, -inf outside the mask."""
    offsets = rows[:, None] * stride_row + columns[None, :] * stride_column
    raw = widen(tl.load(logits + offsets, mask=mask, other=float("-inf")), STATISTICS)
    x = raw
    if HAS_CAP:
        x = tl.where(mask, soft_cap(raw, cap, cap_low), float("-inf"))
    return raw, x


@triton.jit
def block_maximum(x, maximum):
    """The rows' maximum so far. Reductions drop NaN or not, by version and device: it is taken out
    here, the sums carry it.
    """
    return tl.maximum(maximum, tl.max(tl.where(x == x, x, float("-inf")), axis=1))


@triton.jit
def weighted(value, weight):
    """value * weight, 0 where one is zero and the other infinite; NaN stays NaN."""
    empty = ((weight == 0.0) & (value == value)) | ((value == 0.0) & (weight == weight))
    return tl.where(empty, 0.0, value) * tl.where(empty, 0.0, weight)


@triton.jit
def row_loss(
    half_gap, gap_weight, mass, log_sum, log_low, log_normalizer, z_loss, HAS_Z: tl.constexpr
):
    """2 gap_weight half_gap + mass (log_sum + log_low) + z_loss log_normalizer**2 in fp64, the logs
    given in fp64.

    As a pair (loss, excess), the excess in units of 2**1024; one of them is zero. For fp32
    statistics fp64 holds any loss, and there is no excess.
    """
    gap_weight, mass = gap_weight.to(tl.float64), mass.to(tl.float64)
    half = half_gap.to(tl.float64)
    excess = weighted(half * (2.0 * _HALF_UNIT), gap_weight * _HALF_UNIT)
    excess += weighted(log_sum * _HALF_UNIT, mass * _HALF_UNIT)
    if HAS_Z:
        scaled = log_normalizer * _HALF_UNIT
        excess += (z_loss * scaled) * scaled
    large = (tl.abs(excess) >= _LARGE) & (tl.abs(excess) < float("inf"))
    loss = 2.0 * weighted(tl.where(large, 0.0, half), gap_weight)
    mass = tl.where(large, 0.0, mass)
    loss += weighted(log_sum, mass) + weighted(log_low, mass)
    if HAS_Z:
        normalizer = tl.where(large, 0.0, log_normalizer)
        loss += (z_loss * normalizer) * normalizer
    return loss, tl.where(large, excess, 0.0)


# --- rows with a class, see `kernels.cross_entropy.fused` -----------------------------------------


@triton.jit
def without_target(terms, columns, target):
    """The terms of the sum S: all but the target's own column."""
    return tl.where(columns == target, 0.0, terms)


@triton.jit
def _logit_within(x_y, subtract):
    """Outside a row whose maximum is finite the target's logit may be anything: compute with what
    is subtracted instead.
    """
    return tl.where((x_y <= subtract) | (x_y != x_y), x_y, subtract)


@triton.jit
def log_of_row(total, x_y, m, label, ignored):
    """((m - x_y) / 2, log D, what log D lacks) in fp64, once a row, so that the roundings here are
    none beside those of S; from S in fp64. Only fp64 needs the last.
    """
    PRECISE: tl.constexpr = m.dtype == tl.float64
    m, x_y = m.to(tl.float64), x_y.to(tl.float64)
    subtract = finite_reference(m)
    at_maximum = x_y == m
    x_y = _logit_within(x_y, subtract)
    e_y = exp_difference(x_y, subtract, 0)
    half_gap = tl.where(at_maximum | (label < 0), 0.0, subtract * 0.5 - x_y * 0.5)
    most = tl.maximum(total, 1.0)
    log_d = tl.where(at_maximum, log1p(total), log(most + e_y))
    log_d = tl.where(total == total, log_d, total)
    log_low = tl.zeros_like(log_d)
    if PRECISE:
        first = tl.where(at_maximum, 1.0, most)
        log_low = log_rest(log_d, first, tl.where(at_maximum, total, e_y))
    # An infinite maximum (all -inf, or a +inf) or a target that names no class has no loss; an
    # ignored row's is 0.
    defined = (label >= 0) & (m > float("-inf")) & (m < float("inf"))
    return half_gap, tl.where(defined | ignored, log_d, float("nan")), log_low


@triton.jit
def gradient_factors(g, h, total, x_y, m, label, ignored, HAS_Z: tl.constexpr, BOOST: tl.constexpr):
    """(dx_y, before, before_low, after) of each row, from 2**BOOST S: with the exponential held as
    2**BOOST times itself, dx_j = exp(x_j - m) * (before + before_low) * after; the low part is that
    of fp64 alone.
    """
    subtract = finite_reference(m)
    x_y = _logit_within(x_y, subtract)
    e_y = tl.where(label >= 0, exp_difference(x_y, subtract, 0), 0.0).to(total.dtype)
    # As in torch, a row without a loss has no gradient either, and a non-finite row has none even
    # where it is ignored.
    defined = (m > float("-inf")) & (m < float("inf")) & (ignored | (label >= 0))
    plain = total * power_of_two(tl.full(total.shape, -BOOST, tl.int32), total.dtype)
    normalizer = tl.where(defined, plain + e_y, float("nan"))
    # The upstream scale enters before 2**BOOST is taken out and the gradient is rounded to the
    # logits' dtype: what a loss scaler relies on.
    if m.dtype == tl.float64:
        # What the normalizer's rounding lost; S and e_y are nonnegative (Dekker's fast TwoSum).
        large, small = tl.maximum(plain, e_y), tl.minimum(plain, e_y)
        lost = (large - normalizer) + small
        ratio, ratio_low = divide_pair(g, normalizer, lost)
        at_high, at_low, at_after = unboosting_pair(ratio, ratio_low, BOOST)
        at_target = -scaled_pair(total, tl.zeros_like(total), at_high, at_low, at_after)
        if HAS_Z:
            at_target += e_y * (h / normalizer)
            ratio, ratio_low = divide_pair(g + h, normalizer, lost)
        before, before_low, after = unboosting_pair(ratio, ratio_low, BOOST)
    else:
        before, after = unboosting_factors(g, BOOST)
        at_target = -divide(total, normalizer) * before * after
        if HAS_Z:
            at_target += divide(e_y, normalizer) * h
        before, after = unboosting_factors(divide(g + h, normalizer), BOOST)
        before_low = tl.zeros_like(before)
    return at_target, before, before_low, after
