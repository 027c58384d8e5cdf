"""What the kernels of cross-entropy share: reading logits and targets, and a row's loss."""

import triton
import triton.language as tl

from ..convert import widen
from ..elementary import soft_cap

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
    """2 gap_weight half_gap + mass (log_sum + log_low) + z_loss log_normalizer**2 in fp64.

    As a pair (loss, excess), the excess in units of 2**1024; one of them is zero. For fp32
    statistics fp64 holds any loss, and there is no excess.
    """
    gap_weight, mass = gap_weight.to(tl.float64), mass.to(tl.float64)
    half = half_gap.to(tl.float64)
    excess = weighted(half * (2.0 * _HALF_UNIT), gap_weight * _HALF_UNIT)
    excess += weighted(log_sum.to(tl.float64) * _HALF_UNIT, mass * _HALF_UNIT)
    if HAS_Z:
        scaled = log_normalizer * _HALF_UNIT
        excess += (z_loss * scaled) * scaled
    large = (tl.abs(excess) >= _LARGE) & (tl.abs(excess) < float("inf"))
    loss = 2.0 * weighted(tl.where(large, 0.0, half), gap_weight)
    mass = tl.where(large, 0.0, mass)
    loss += weighted(log_sum.to(tl.float64), mass) + weighted(log_low.to(tl.float64), mass)
    if HAS_Z:
        normalizer = tl.where(large, 0.0, log_normalizer)
        loss += (z_loss * normalizer) * normalizer
    return loss, tl.where(large, excess, 0.0)
