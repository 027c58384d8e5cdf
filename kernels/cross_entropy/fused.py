"""Cross-entropy of class indices in one pass: the Triton kernels.

With m the row's maximum, y the target, S the sum of exp(x_j - m) over all columns *but* y, and e_y
= exp(x_y - m), the log of the whole sum, log D, and the loss are

    log D = log1p(S)       where x_y is the maximum,
    log D = log(S + e_y)   elsewhere;          loss = (m - x_y) + log D.

All terms are nonnegative, so nothing cancels: the loss keeps its relative accuracy even where the
target's probability rounds to 1, and a common offset of the logits changes nothing. The gradient is
formed in backward only, from m and S, for the upstream gradients g of the loss and h of m + log D
(which the z-loss has):

    dx_j = (g + h) exp(x_j - m) / D,      dx_y = (h e_y - g S) / D.

A softcap replaces x by c tanh(x / c) as it is read, and multiplies the gradient by its slope.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .. import launch
from ..convert import narrow
from ..elementary import add_compensated, power_of_two, soft_cap
from .exponential import (
    exp_difference,
    exp_difference_pair,
    rescaled,
    scaled_pair,
    sum_pairs,
    times_slope,
)
from .rows import (
    block_maximum,
    double_from_bits,
    finite_reference,
    gradient_factors,
    in_two_terms,
    load_at,
    load_labels,
    load_logits,
    log_of_row,
    row_loss,
    without_target,
)


@triton.jit
def _forward_kernel(
    logits,  # (N, C), any strides
    target,  # (N,) int64
    weight,  # (C,), if HAS_WEIGHT
    loss,  # (N,) fp64 out: the row's loss
    excess,  # (N,) fp64 out, for fp64: what of it is beyond fp64, see `row_loss`
    maximum,  # (N,) out: m
    others,  # (N,) out: 2**BOOST S
    log_sum,  # (N,) fp64 out: log D
    mass,  # (N,) out: the row's weight, 0 where it is ignored
    n_rows,
    n_columns,
    ignore_index,
    stride_row,
    stride_column,
    z_bits,
    cap_bits,
    HAS_WEIGHT: tl.constexpr,
    HAS_Z: tl.constexpr,
    HAS_CAP: tl.constexpr,
    STATISTICS: tl.constexpr,
    SUMS: tl.constexpr,
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
    ignored, label = load_labels(target, rows, inside, n_columns, ignore_index)
    cap, cap_low = in_two_terms(double_from_bits(cap_bits), STATISTICS)
    if HAS_CAP:
        # Taken from the tiles below: computed anew, it might round differently there and here.
        x_y = tl.zeros([BLOCK_M], STATISTICS)
    else:
        x_y = load_at(logits, rows, label, stride_row, stride_column, STATISTICS)
    unboost = power_of_two(tl.full([BLOCK_M], -BOOST, tl.int32), SUMS)
    m = tl.full([BLOCK_M], float("-inf"), STATISTICS)
    total = tl.zeros([BLOCK_M], SUMS)
    lost = tl.zeros([BLOCK_M], SUMS)
    for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
        columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        mask = inside[:, None] & (columns < n_columns)[None, :]
        _, x = load_logits(
            logits, rows, columns, mask, stride_row, stride_column, cap, cap_low,
            HAS_CAP, STATISTICS,
        )  # fmt: skip
        own = columns[None, :] == label[:, None]
        if HAS_CAP:
            x_y += tl.sum(tl.where(own, x, 0.0), axis=1)
        new_m = block_maximum(x, m)
        subtract = finite_reference(new_m)
        if STATISTICS == tl.float64:
            terms, low = exp_difference_pair(x, subtract[:, None], BOOST)
            terms = without_target(terms, columns[None, :], label[:, None])
            terms = sum_pairs(terms, tl.where(own, 0.0, low), BOOST)
        else:
            terms = exp_difference(x, subtract[:, None], BOOST)
            terms = without_target(terms, columns[None, :], label[:, None])
            terms = tl.sum(terms.to(SUMS), axis=1)
        total, lost = rescaled(total, lost, m, subtract, BOOST, STATISTICS)
        total, lost = add_compensated(total, lost, terms)
        m = new_m

    tl.store(maximum + rows, m, mask=inside)
    tl.store(others + rows, total, mask=inside)
    total = total.to(tl.float64) * unboost.to(tl.float64)
    half_gap, log_d, log_low = log_of_row(total, x_y, m, label, ignored)
    tl.store(log_sum + rows, log_d, mask=inside)
    row_weight = tl.full([BLOCK_M], 1.0, STATISTICS)
    if HAS_WEIGHT:
        row_weight = load_at(weight, rows * 0, label, 0, 1, STATISTICS)
        row_weight = tl.where(label >= 0, row_weight, 1.0)
    row_weight = tl.where(ignored, 0.0, row_weight)
    tl.store(mass + rows, row_weight, mask=inside)
    normalizer = m.to(tl.float64) + log_d
    value, beyond = row_loss(
        half_gap,
        row_weight,
        row_weight,
        log_d,
        log_low,
        normalizer,
        double_from_bits(z_bits),
        HAS_Z,
    )
    tl.store(loss + rows, tl.where(ignored, 0.0, value), mask=inside)
    if STATISTICS == tl.float64:
        tl.store(excess + rows, tl.where(ignored, 0.0, beyond), mask=inside)


@triton.jit
def _backward_kernel(
    upstream,  # (N,) SUMS, stride 0 allowed: g
    upstream_z,  # (N,) SUMS, if HAS_Z: h
    logits,  # (N, C), any strides
    target,  # (N,) int64
    maximum,  # (N,) m
    others,  # (N,) 2**BOOST S
    gradient,  # (N, C) out, contiguous
    n_rows,
    n_columns,
    ignore_index,
    stride_upstream,
    stride_row,
    stride_column,
    cap_bits,
    HAS_Z: tl.constexpr,
    HAS_CAP: tl.constexpr,
    STATISTICS: tl.constexpr,
    SUMS: tl.constexpr,
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
    ignored, label = load_labels(target, rows, inside, n_columns, ignore_index)
    cap, cap_low = in_two_terms(double_from_bits(cap_bits), STATISTICS)
    x_y = load_at(logits, rows, label, stride_row, stride_column, STATISTICS)
    if HAS_CAP:
        x_y = soft_cap(x_y, cap, cap_low)
    g = tl.load(upstream + rows * stride_upstream, mask=inside, other=0.0)
    g = tl.where(ignored, 0.0, g)
    h = tl.zeros([BLOCK_M], SUMS)
    if HAS_Z:
        h = tl.load(upstream_z + rows, mask=inside, other=0.0)
        h = tl.where(ignored, 0.0, h)
    m = tl.load(maximum + rows, mask=inside, other=0.0)
    total = tl.load(others + rows, mask=inside, other=1.0)
    subtract = finite_reference(m)
    at_target, before, before_low, after = gradient_factors(
        g, h, total, x_y, m, label, ignored, HAS_Z, BOOST
    )
    for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
        columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        mask = inside[:, None] & (columns < n_columns)[None, :]
        raw, x = load_logits(
            logits, rows, columns, mask, stride_row, stride_column, cap, cap_low,
            HAS_CAP, STATISTICS,
        )  # fmt: skip
        if STATISTICS == tl.float64:
            high, low = exp_difference_pair(x, subtract[:, None], BOOST)
            out = scaled_pair(high, low, before[:, None], before_low[:, None], after[:, None])
        else:
            out = exp_difference(x, subtract[:, None], BOOST).to(SUMS)
            out = out * before[:, None] * after[:, None]
        out = tl.where(columns[None, :] == label[:, None], at_target[:, None], out)
        if HAS_CAP:
            out = times_slope(out, raw, cap, cap_low, BOOST)
        offsets = rows[:, None] * n_columns + columns[None, :]
        tl.store(gradient + offsets, narrow(out, gradient.dtype.element_ty), mask=mask)
