"""The gradients of `dense`, which has their formulas: of the logits, and of class probabilities."""

from __future__ import annotations

import triton
import triton.language as tl

from .. import launch
from ..convert import narrow, widen
from ..elementary import divide, power_of_two, unboosting_factors
from .dense import coefficients
from .exponential import (
    divide_pair,
    exp_difference,
    exp_difference_pair,
    scaled_pair,
    times_slope,
    unboosting_pair,
)
from .rows import (
    double_from_bits,
    finite_reference,
    in_two_terms,
    load_labels,
    load_logits,
    weighted,
)

_CERTAIN = tl.constexpr(2.0**-64)  # below, log1p(R) is R


@triton.jit
def _backward_kernel(
    upstream,  # (N,) ACCUMULATE, stride 0 allowed: g
    upstream_z,  # (N,) ACCUMULATE, if HAS_Z: h
    logits,  # (N, C), any strides
    target,  # (N, C) probabilities, any strides, or (N,) int64
    weight,  # (C,), if HAS_WEIGHT
    maximum,  # (N,) m
    others,  # (N,) 2**BOOST R
    mass,  # (N,) A
    gradient,  # (N, C) out, contiguous
    n_rows,
    n_columns,
    ignore_index,
    stride_upstream,
    stride_row,
    stride_column,
    stride_target_row,
    stride_target_column,
    keep_bits,
    share_bits,
    cap_bits,
    PROBABILITIES: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_Z: tl.constexpr,
    HAS_CAP: tl.constexpr,
    STATISTICS: tl.constexpr,
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
    g = tl.load(upstream + rows * stride_upstream, mask=inside, other=0.0)
    g = tl.where(ignored, 0.0, g)
    h = tl.zeros([BLOCK_M], ACCUMULATE)
    if HAS_Z:
        h = tl.where(ignored, 0.0, tl.load(upstream_z + rows, mask=inside, other=0.0))
    m = tl.load(maximum + rows, mask=inside, other=0.0)
    a_sum = tl.load(mass + rows, mask=inside, other=0.0)
    boosted = tl.load(others + rows, mask=inside, other=0.0).to(ACCUMULATE)
    rest = boosted * power_of_two(tl.full([BLOCK_M], -BOOST, tl.int32), ACCUMULATE)
    subtract = finite_reference(m)
    defined = (m > float("-inf")) & (m < float("inf")) & (ignored | (label >= 0))
    normalizer = tl.where(defined, 1.0 + rest, float("nan"))
    if ACCUMULATE == tl.float64:
        lost = tl.where(rest > 1.0, (rest - normalizer) + 1.0, (1.0 - normalizer) + rest)
        quotient, quotient_low = divide_pair(g, normalizer, lost)
        before, before_low, after = unboosting_pair(quotient, quotient_low, BOOST)
        at_top = scaled_pair(boosted, tl.zeros_like(boosted), before, before_low, after)
    else:
        quotient = divide(g, normalizer)
        before, after = unboosting_factors(quotient, BOOST)
        at_top = boosted * before * after
    if HAS_Z:
        z_before, z_after = unboosting_factors(divide(h, normalizer), BOOST)
    for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
        columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        mask = inside[:, None] & (columns < n_columns)[None, :]
        raw, x = load_logits(
            logits, rows, columns, mask, stride_row, stride_column, cap, cap_low,
            HAS_CAP, STATISTICS,
        )  # fmt: skip
        a = coefficients(
            target, weight, rows, columns, mask, label, n_columns,
            stride_target_row, stride_target_column, keep, share,
            PROBABILITIES, HAS_WEIGHT, ACCUMULATE,
        )  # fmt: skip
        if STATISTICS == tl.float64:
            e, low = exp_difference_pair(x, subtract[:, None], BOOST)
            out = scaled_pair(e, low, before[:, None], before_low[:, None], 1.0)
            e += low
        else:
            e = exp_difference(x, subtract[:, None], BOOST).to(ACCUMULATE)
            out = e * before[:, None]
        apart = a_sum[:, None] - a  # A - a_c
        if not (PROBABILITIES or HAS_WEIGHT):
            # Smoothed indices: what the others add up to is known, and need not cancel.
            spread = share * (n_columns - 1)
            own = columns[None, :] == label[:, None]
            apart = tl.where(own, spread.to(ACCUMULATE), (keep + spread).to(ACCUMULATE))
        out = out * apart * after[:, None]
        e = e * power_of_two(tl.full(e.shape, -BOOST, tl.int32), ACCUMULATE)
        # g (1 - p_c), at the maximum from R while that is held as 2**BOOST times itself.
        beside = (normalizer[:, None] - e) * quotient[:, None]
        out -= weighted(tl.where(x == m[:, None], at_top[:, None], beside), a)
        if HAS_Z:
            z = exp_difference(x, subtract[:, None], BOOST).to(ACCUMULATE)
            out += z * z_before[:, None] * z_after[:, None]
        if HAS_CAP:
            out = times_slope(out, raw, cap, cap_low, BOOST)
        offsets = rows[:, None] * n_columns + columns[None, :]
        tl.store(gradient + offsets, narrow(out, gradient.dtype.element_ty), mask=mask)


@triton.jit
def _target_kernel(
    upstream,  # (N,) ACCUMULATE, stride 0 allowed: g
    logits,  # (N, C), any strides
    weight,  # (C,), if HAS_WEIGHT
    maximum,  # (N,) m
    others,  # (N,) 2**BOOST R
    log_sum,  # (N,) fp64: log D
    gradient,  # (N, C) out, contiguous
    n_rows,
    n_columns,
    stride_upstream,
    stride_row,
    stride_column,
    keep_bits,
    cap_bits,
    HAS_WEIGHT: tl.constexpr,
    HAS_CAP: tl.constexpr,
    STATISTICS: tl.constexpr,
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
    cap, cap_low = in_two_terms(double_from_bits(cap_bits), STATISTICS)
    m = tl.load(maximum + rows, mask=inside, other=0.0)
    log_d = tl.load(log_sum + rows, mask=inside, other=0.0).to(ACCUMULATE)
    boosted = tl.load(others + rows, mask=inside, other=0.0).to(ACCUMULATE)
    g = tl.load(upstream + rows * stride_upstream, mask=inside, other=0.0)
    g = g * double_from_bits(keep_bits).to(ACCUMULATE)
    subtract = finite_reference(m).to(ACCUMULATE)
    for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
        columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        mask = inside[:, None] & (columns < n_columns)[None, :]
        _, x = load_logits(
            logits, rows, columns, mask, stride_row, stride_column, cap, cap_low,
            HAS_CAP, STATISTICS,
        )  # fmt: skip
        half = subtract[:, None] * 0.5 - x.to(ACCUMULATE) * 0.5
        certain = (half == 0.0) & (log_d < _CERTAIN)[:, None]
        half += 0.5 * log_d[:, None]
        scale = tl.broadcast_to(g[:, None], half.shape)
        if HAS_WEIGHT:
            w = widen(tl.load(weight + columns, mask=columns < n_columns, other=0.0), ACCUMULATE)
            scale = scale * w[None, :]
        # Log D of a certain row may be subnormal, or less, and a large scale lift it out again.
        certain = certain & (tl.abs(scale) < float("inf"))
        before, after = unboosting_factors(scale, BOOST)
        out = tl.where(certain, boosted[:, None] * before * after, 2.0 * weighted(half, scale))
        offsets = rows[:, None] * n_columns + columns[None, :]
        tl.store(gradient + offsets, narrow(out, gradient.dtype.element_ty), mask=mask)
