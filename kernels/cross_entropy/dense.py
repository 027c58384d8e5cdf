"""Cross-entropy of class probabilities and of smoothed class indices, in one pass: the Triton
kernels.

Both are sums over all columns, with coefficients a_c = w_c ((1 - s) t_c + s / C) for a smoothing s
and the probabilities t_c, or 1 at the target and 0 elsewhere. With m the row's maximum, n the
number of columns that hold it, S the sum of exp(x_c - m) over the columns below it, A = sum a_c,

    log D = log1p((n - 1) + S),       loss = sum a_c (m - x_c) + A log D.

For nonnegative coefficients no term is negative: nothing cancels. A masked column (-inf) without a
coefficient counts as nothing. The sum follows a growing maximum as T + A (m_new - m_old), so that
the logits are read once. The gradient, for the upstream gradients g of the loss and h of m + log D,

    dx_c = (g (p_c (A - a_c) - a_c (1 - p_c)) + h p_c),      p_c = exp(x_c - m) / D,

has 1 - p_c from R = (n - 1) + S where x_c is the maximum: a one-hot row stays accurate where p_c
rounds to 1. A probability's own gradient is g w_c (1 - s) ((m - x_c) + log D).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .. import launch
from ..convert import widen
from ..elementary import add_compensated, log1p, power_of_two
from .exponential import (
    exp_difference,
    exp_difference_pair,
    log_rest,
    rescaled,
    sum_pairs,
)
from .rows import (
    block_maximum,
    double_from_bits,
    finite_reference,
    in_two_terms,
    load_at,
    load_labels,
    load_logits,
    row_loss,
    weighted,
)


@triton.jit
def sum_exactly(terms):
    """The sum over axis 1 of terms of any size: the parts that are multiples of a spacing chosen by
    the largest term add up exactly, the rest is small. Infinite and NaN terms count as they are.
    """
    size = tl.abs(terms)
    top = tl.max(tl.where(size < 1e30, size, 0.0), axis=1)
    if terms.dtype == tl.float64:
        spacing = top * 3.0 * 2.0**28  # splits 2**-23 below the top: 2**29 columns add up exactly
    else:
        spacing = top * 3.0 * 2.0**11  # splits 2**-10 below the top: 4096 columns add up exactly
    finite = tl.where(size < float("inf"), terms, 0.0)
    coarse = (finite + spacing[:, None]) - spacing[:, None]
    rest = tl.sum(finite - coarse, axis=1)
    return tl.sum(tl.where(size < float("inf"), coarse, terms), axis=1) + rest


@triton.jit
def add_finite(total, lost, strange, value):
    """Kahan's sum of what is finite; what is not is added up beside it, in `strange`."""
    finite = tl.abs(value) < float("inf")
    total, lost = add_compensated(total, lost, tl.where(finite, value, 0.0))
    return total, lost, strange + tl.where(finite, 0.0, value)


@triton.jit
def coefficients(
    target,
    weight,
    rows,
    columns,
    mask,
    label,
    n_columns,
    stride_row,
    stride_column,
    keep,
    share,
    PROBABILITIES: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    ACCUMULATE: tl.constexpr,
):
    """A tile of a_c, 0 outside the mask."""
    if PROBABILITIES:
        offsets = rows[:, None] * stride_row + columns[None, :] * stride_column
        a = widen(tl.load(target + offsets, mask=mask, other=0.0), ACCUMULATE)
        a = a * keep.to(ACCUMULATE) + share.to(ACCUMULATE)
    else:
        own = columns[None, :] == label[:, None]
        a = tl.where(own, (keep + share).to(ACCUMULATE), share.to(ACCUMULATE))
    if HAS_WEIGHT:
        w = widen(tl.load(weight + columns, mask=columns < n_columns, other=0.0), ACCUMULATE)
        a = a * w[None, :]
    return tl.where(mask, a, 0.0)


@triton.jit
def _forward_kernel(
    logits,  # (N, C), any strides
    target,  # (N, C) probabilities, any strides, or (N,) int64
    weight,  # (C,), if HAS_WEIGHT
    loss,  # (N,) fp64 out: the row's loss
    excess,  # (N,) fp64 out, for fp64: what of it is beyond fp64, see `row_loss`
    maximum,  # (N,) out: m
    others,  # (N,) out: 2**BOOST R
    log_sum,  # (N,) fp64 out: log D
    mass,  # (N,) ACCUMULATE out: A
    row_weight,  # (N,) out, for class indices: the target's weight, 0 where it is ignored
    n_rows,
    n_columns,
    ignore_index,
    stride_row,
    stride_column,
    stride_target_row,
    stride_target_column,
    keep_bits,  # 1 - s
    share_bits,  # s / C
    z_bits,
    cap_bits,
    PROBABILITIES: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_Z: tl.constexpr,
    HAS_CAP: tl.constexpr,
    STATISTICS: tl.constexpr,
    SUMS: tl.constexpr,
    ACCUMULATE: tl.constexpr,
    BOOST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STATIC_BLOCKS: tl.constexpr,
    UNIT: tl.constexpr,  # what n_columns and stride_row are multiples of
):
    n_columns = launch.known_multiple(n_columns, UNIT)
    stride_row = launch.known_multiple(stride_row, UNIT)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = rows < n_rows
    label = tl.zeros([BLOCK_M], tl.int64)
    ignored = label != 0
    if not PROBABILITIES:
        ignored, label = load_labels(target, rows, inside, n_columns, ignore_index)
    cap, cap_low = in_two_terms(double_from_bits(cap_bits), STATISTICS)
    keep, share = double_from_bits(keep_bits), double_from_bits(share_bits)
    unboost = power_of_two(tl.full([BLOCK_M], -BOOST, tl.int32), SUMS)
    one = power_of_two(tl.full([BLOCK_M], BOOST, tl.int32), SUMS)
    m = tl.full([BLOCK_M], float("-inf"), STATISTICS)
    at_top = tl.zeros([BLOCK_M], SUMS)  # n
    total = tl.zeros([BLOCK_M], SUMS)  # 2**BOOST S
    lost = tl.zeros([BLOCK_M], SUMS)
    # Smoothed indices without weights have one coefficient but for the target's, which is added at
    # the end, and A is known.
    UNIFORM: tl.constexpr = not (PROBABILITIES or HAS_WEIGHT)
    x_y = tl.zeros([BLOCK_M], STATISTICS)
    half_gap = tl.zeros([BLOCK_M], ACCUMULATE)  # sum a_c (m - x_c) / 2: the halves cannot overflow
    gap_lost = tl.zeros([BLOCK_M], ACCUMULATE)
    gap_strange = tl.zeros([BLOCK_M], ACCUMULATE)  # infinite: a masked class has a coefficient
    a_sum = tl.zeros([BLOCK_M], ACCUMULATE)
    a_lost = tl.zeros([BLOCK_M], ACCUMULATE)
    a_strange = tl.zeros([BLOCK_M], ACCUMULATE)
    for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
        columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        mask = inside[:, None] & (columns < n_columns)[None, :]
        _, x = load_logits(
            logits, rows, columns, mask, stride_row, stride_column, cap, cap_low,
            HAS_CAP, STATISTICS,
        )  # fmt: skip
        if UNIFORM:
            a = tl.where(mask, share.to(ACCUMULATE), 0.0)
            x_y += tl.sum(tl.where(columns[None, :] == label[:, None], x, 0.0), axis=1)
        else:
            a = coefficients(
                target, weight, rows, columns, mask, label, n_columns,
                stride_target_row, stride_target_column, keep, share,
                PROBABILITIES, HAS_WEIGHT, ACCUMULATE,
            )  # fmt: skip
        new_m = block_maximum(x, m)
        before_subtract, subtract = finite_reference(m), finite_reference(new_m)
        top = x == subtract[:, None]
        if STATISTICS == tl.float64:
            terms, low = exp_difference_pair(x, subtract[:, None], BOOST)
            terms = sum_pairs(tl.where(top, 0.0, terms), tl.where(top, 0.0, low), BOOST)
        else:
            terms = tl.where(top, 0.0, exp_difference(x, subtract[:, None], BOOST))
            terms = tl.sum(terms.to(SUMS), axis=1)
        # What held the old maximum lies below the new one.
        grows = new_m > m
        total, lost = add_compensated(total, lost, tl.where(grows, at_top * one, 0.0))
        at_top = tl.where(grows, 0.0, at_top) + tl.sum(top.to(SUMS), axis=1)
        total, lost = rescaled(total, lost, m, subtract, BOOST, STATISTICS)
        total, lost = add_compensated(total, lost, terms)

        shift = weighted(
            subtract.to(ACCUMULATE) * 0.5 - before_subtract.to(ACCUMULATE) * 0.5, a_sum
        )
        half_gap, gap_lost = add_compensated(half_gap, gap_lost, shift)
        below = subtract[:, None].to(ACCUMULATE) * 0.5 - x.to(ACCUMULATE) * 0.5
        counts = (a != 0.0) & (below > 0.0)  # beside an infinite maximum the row is NaN anyhow
        terms = tl.where(counts, a, 0.0) * tl.where(counts, below, 0.0)
        half_gap, gap_lost, gap_strange = add_finite(
            half_gap, gap_lost, gap_strange, sum_exactly(terms)
        )
        if UNIFORM:
            held = tl.sum(mask.to(tl.int32), axis=1).to(ACCUMULATE)
            a_sum += held * share.to(ACCUMULATE)
        else:
            a_sum, a_lost, a_strange = add_finite(a_sum, a_lost, a_strange, sum_exactly(a))
        m = new_m

    a_sum += a_strange
    half_gap += gap_strange
    if UNIFORM:
        a_sum = tl.zeros_like(a_sum) + (keep + share * n_columns).to(ACCUMULATE)
    at_top = tl.maximum(at_top - 1.0, 0.0)
    tl.store(maximum + rows, m, mask=inside)
    tl.store(others + rows, total + at_top * one, mask=inside)
    rest = total.to(tl.float64) * unboost.to(tl.float64) + at_top.to(tl.float64)
    log_d = log1p(rest)
    log_low = tl.zeros_like(log_d)
    if STATISTICS == tl.float64:
        log_low = log_rest(log_d, tl.full([BLOCK_M], 1.0, tl.float64), rest)
    defined = (m > float("-inf")) & (m < float("inf"))
    log_d = tl.where(defined & (ignored | (label >= 0)), log_d, float("nan"))
    tl.store(log_sum + rows, log_d, mask=inside)
    tl.store(mass + rows, a_sum, mask=inside)
    if not PROBABILITIES:
        w = tl.full([BLOCK_M], 1.0, STATISTICS)
        if HAS_WEIGHT:
            w = load_at(weight, rows * 0, label, 0, 1, STATISTICS)
            w = tl.where(label >= 0, w, 1.0)
        tl.store(row_weight + rows, tl.where(ignored, 0.0, w), mask=inside)
    normalizer = m.to(tl.float64) + log_d
    if UNIFORM:
        # What rounding the share to ACCUMULATE did to every term alike is taken back.
        half_gap = half_gap.to(tl.float64) * (share / share.to(ACCUMULATE).to(tl.float64))
        subtract = finite_reference(m).to(tl.float64)
        x_y = tl.where(label >= 0, x_y.to(tl.float64), subtract)
        half_gap += weighted(subtract * 0.5 - x_y * 0.5, tl.zeros_like(subtract) + keep)
    unit = tl.full([BLOCK_M], 1.0, ACCUMULATE)
    z_loss = double_from_bits(z_bits)
    value, beyond = row_loss(half_gap, unit, a_sum, log_d, log_low, normalizer, z_loss, HAS_Z)
    value = tl.where(defined & (ignored | (label >= 0)), value, float("nan"))
    tl.store(loss + rows, tl.where(ignored, 0.0, value), mask=inside)
    if STATISTICS == tl.float64:
        tl.store(excess + rows, tl.where(ignored, 0.0, beyond), mask=inside)
