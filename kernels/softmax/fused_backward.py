"""softmax and log-softmax of the rows of a matrix: the Triton kernel of the backward pass.

With y_i = exp(x_i - m) / d formed anew from x and the saved m and d, not from a rounded result,

    softmax:      dx_i = y_i (g_i - sum_j y_j g_j),
    log-softmax:  dx_i = g_i - y_i sum_j g_j.

A y far below the dtype's smallest number counts where g is large, and the products of a row may
span more than the dtype's range. So all but fp16 (of a short range: fp32) compute in fp64. fp64
itself holds each product as a mantissa and an exponent of its own, and the sum as a mantissa with
the exponent of its largest term.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .. import launch
from ..convert import narrow, widen
from ..elementary import divide, exponent_of, power_of_two, times_power_of_two
from ..row import load_row, store_piece
from .exponential import exp_difference
from .fused import add_to_pair, finite_reference

_NOTHING = tl.constexpr(-5000)  # below the exponent of any product


@triton.jit
def _scale_down(mantissa, exponent):
    """mantissa * 2**exponent for an exponent up to 1; far below, next to nothing."""
    return mantissa * power_of_two(tl.maximum(exponent, -1022), mantissa.dtype)


@triton.jit
def _split(value):
    """value as mantissa * 2**exponent, the mantissa within (-4, 4) or not finite."""
    exponent = exponent_of(value)
    return value * power_of_two(-exponent, value.dtype), exponent


@triton.jit
def _power(x, m, WIDE: tl.constexpr, BOOST: tl.constexpr):
    """A tile of exp(x - m) * 2**BOOST in the dtype WIDE."""
    return exp_difference(x, finite_reference(m)[:, None], 0.0, BOOST, WIDE)


@triton.jit
def _accumulate(power, g, scale, t, high, low, LOG: tl.constexpr):
    """What the rows' sum of y g, or of g, is after one more tile: in fp64 (high + low) * 2**t."""
    if g.dtype == tl.float64:
        term, exponent = _split(g)
        if not LOG:
            part, shift = _split(power)
            term *= part
            exponent += shift
        exponent = tl.where(term == 0.0, _NOTHING, exponent)
        new_t = tl.maximum(t, tl.max(exponent, axis=1))
        high, low = _scale_down(high, t - new_t), _scale_down(low, t - new_t)
        term = _scale_down(term, exponent - new_t[:, None])
        # Multiples of 2**-17 add up exactly, the rest is small; an infinity has no rest.
        coarse = (term + 51539607552.0) - 51539607552.0  # 1.5 * 2**35
        fine = tl.where(tl.abs(term) < float("inf"), term - coarse, 0.0)
        new, lost = add_to_pair(high, low + tl.sum(fine, axis=1), tl.sum(coarse, axis=1))
        return new_t, new, tl.where(tl.abs(new) < float("inf"), lost, 0.0)
    else:
        term = g.to(power.dtype)
        if not LOG:
            term *= power * scale[:, None]
        return t, high + tl.sum(term.to(tl.float64), axis=1), low


@triton.jit
def _gradient(power, g, scale, d, t, total, LOG: tl.constexpr, BOOST: tl.constexpr):
    """A tile of the gradient, from the row's sum: total * 2**t in fp64, else total."""
    if g.dtype == tl.float64:
        part, exponent = _split(power)
        exponent -= BOOST
        own, own_exponent = _split(g)
        total = tl.broadcast_to(total[:, None], part.shape)
        t = t[:, None]
        d = tl.broadcast_to(d[:, None], part.shape)
        if LOG:
            total = divide(total * part, d)
            t += exponent
        # The difference of g and the total, relative to the larger exponent of the two.
        top = tl.maximum(own_exponent, t)
        out = _scale_down(own, own_exponent - top) - _scale_down(total, t - top)
        if not LOG:
            out = divide(out * part, d)
            top += exponent
        return times_power_of_two(out, tl.maximum(top, -2044))
    else:
        y = power * scale[:, None]
        total = total.to(y.dtype)[:, None]
        if LOG:
            return g.to(y.dtype) - y * total
        else:
            return y * (g.to(y.dtype) - total)


@triton.jit
def _backward_kernel(
    upstream,  # (N, K) contiguous
    x_ptr,  # (N, K) contiguous
    maximum_ptr,  # (N,) m
    normalizer_ptr,  # (N,) d
    gradient,  # (N, K) out
    n_rows,
    n_columns,
    LOG: tl.constexpr,
    STATISTICS: tl.constexpr,
    WIDE: tl.constexpr,
    BOOST: tl.constexpr,
    PIECES: tl.constexpr,  # of a row that is held on chip, else ()
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STATIC_BLOCKS: tl.constexpr,
    UNIT: tl.constexpr,  # what n_columns is a multiple of
):
    n_columns = launch.known_multiple(n_columns, UNIT)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = rows < n_rows
    m = tl.load(maximum_ptr + rows, mask=inside, other=0.0)
    d = tl.load(normalizer_ptr + rows, mask=inside, other=1.0)
    scale = d.to(WIDE)
    if STATISTICS != tl.float64:
        scale = power_of_two(tl.full([BLOCK_M], -BOOST, tl.int32), WIDE) / scale

    # First pass: the sum. Only fp64 uses its exponent, t, and its second part.
    t = tl.full([BLOCK_M], _NOTHING, tl.int32)
    high = tl.zeros([BLOCK_M], tl.float64)
    low = tl.zeros([BLOCK_M], tl.float64)
    if len(PIECES) > 0:
        row = load_row(x_ptr, rows, inside, n_columns, n_columns, float("-inf"), PIECES)
        g_row = load_row(upstream, rows, inside, n_columns, n_columns, 0.0, PIECES)
        powers = ()
        for i in tl.static_range(len(PIECES)):
            x = widen(row[i], STATISTICS)
            powers = powers + (_power(x, m, WIDE, BOOST),)  # type: ignore[assignment]
            g = widen(g_row[i], STATISTICS)
            t, high, low = _accumulate(powers[i], g, scale, t, high, low, LOG)
    else:
        for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
            columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
            mask = inside[:, None] & (columns < n_columns)[None, :]
            offsets = rows[:, None] * n_columns + columns[None, :]
            x = widen(tl.load(x_ptr + offsets, mask=mask, other=float("-inf")), STATISTICS)
            g = widen(tl.load(upstream + offsets, mask=mask, other=0.0), STATISTICS)
            power = _power(x, m, WIDE, BOOST)
            t, high, low = _accumulate(power, g, scale, t, high, low, LOG)

    total = high + low
    if STATISTICS == tl.float64:
        if not LOG:
            total = total / d
            t -= BOOST
        total, exponent = _split(total)
        t += exponent
    if len(PIECES) > 0:
        start = 0
        for i in tl.static_range(len(PIECES)):
            g = widen(g_row[i], STATISTICS)
            out = _gradient(powers[i], g, scale, d, t, total, LOG, BOOST)
            out = narrow(out, gradient.dtype.element_ty)
            store_piece(gradient, rows, inside, n_columns, n_columns, out, start)
            start += PIECES[i]
    else:
        for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
            columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
            mask = inside[:, None] & (columns < n_columns)[None, :]
            offsets = rows[:, None] * n_columns + columns[None, :]
            x = widen(tl.load(x_ptr + offsets, mask=mask, other=float("-inf")), STATISTICS)
            g = widen(tl.load(upstream + offsets, mask=mask, other=0.0), STATISTICS)
            power = _power(x, m, WIDE, BOOST)
            out = _gradient(power, g, scale, d, t, total, LOG, BOOST)
            tl.store(gradient + offsets, narrow(out, gradient.dtype.element_ty), mask=mask)
