"""The gradients of the parameters of rms_norm and layer_norm: sums over rows, a column each, in the
arithmetic of `kernels.norm_gradients`.

The sums are deterministic: each program adds up a chunk of rows for some columns, in order, and a
second kernel adds up the chunks. There are no atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import launch
from .convert import narrow, widen
from .norm_gradients import direction, load_statistics
from .norms import LOWEST, accumulate, accumulate_shifted, shift, split


@triton.jit
def _store_partial(pointer, n_columns, columns, total, exponent, EXTENDED: tl.constexpr):
    """One chunk's sums; for fp64 inputs their exponents go behind the sums of all chunks."""
    chunk = tl.program_id(1).to(tl.int64)
    tl.store(pointer + chunk * n_columns + columns, total, mask=columns < n_columns)
    if EXTENDED:
        behind = (chunk + tl.num_programs(1)) * n_columns + columns
        tl.store(pointer + behind, exponent.to(tl.float64), mask=columns < n_columns)


@triton.jit
def parameters_kernel(
    upstream,  # (N, K) contiguous
    x_ptr,  # (N, K) contiguous; not read where no weight gradient is wanted
    statistics_ptr,  # (N, 2) or, for layer_norm, (N, 5) fp64
    weight_partial,  # (chunks, K) fp64 out; (2, chunks, K) for fp64 inputs
    bias_partial,  # the same
    n_rows,
    n_columns,
    n_blocks,  # of rows in a chunk
    ELEMENTS: tl.constexpr,
    CENTRED: tl.constexpr,
    EXTENDED: tl.constexpr,
    WANT_WEIGHT: tl.constexpr,
    WANT_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STATIC_BLOCKS: tl.constexpr,
    UNIT: tl.constexpr,  # what n_columns is a multiple of
):
    """The sums of g y' and of g over a chunk of rows, for one block of columns."""
    n_columns = launch.known_multiple(n_columns, UNIT)
    columns = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    first = tl.program_id(1).to(tl.int64) * n_blocks
    weight_total = tl.zeros([BLOCK_N], tl.float64)
    weight_lost, bias_total, bias_lost = weight_total, weight_total, weight_total
    weight_exponent = tl.full([BLOCK_N], LOWEST, tl.int32)
    bias_exponent = weight_exponent
    for block in range(launch.block_count(n_blocks, 1, STATIC_BLOCKS)):
        rows = (first + block) * BLOCK_M + tl.arange(0, BLOCK_M)
        inside = rows < n_rows
        mask = inside[:, None] & (columns < n_columns)[None, :]
        offsets = rows[:, None] * n_columns + columns[None, :]
        g = widen(tl.load(upstream + offsets, mask=mask, other=0.0), ELEMENTS)
        if EXTENDED:
            g, g_exponent = split(g)
        if WANT_WEIGHT:
            x = widen(tl.load(x_ptr + offsets, mask=mask, other=0.0), ELEMENTS)
            root, _, mean, low, scale = load_statistics(statistics_ptr, rows, inside, CENTRED)
            y, y_exponent = direction(x, root, mean, low, scale, CENTRED, EXTENDED)
            term = tl.where(mask, g * y, 0.0)
            if EXTENDED:
                weight_total, weight_lost, weight_exponent = accumulate_shifted(
                    weight_total, weight_lost, weight_exponent, term, g_exponent + y_exponent, 0
                )
            else:
                term = tl.sum(term.to(tl.float64), axis=0)
                weight_total, weight_lost = accumulate(weight_total, weight_lost, term)
        if WANT_BIAS:
            if EXTENDED:
                bias_total, bias_lost, bias_exponent = accumulate_shifted(
                    bias_total, bias_lost, bias_exponent, g, g_exponent, 0
                )
            else:
                term = tl.sum(g.to(tl.float64), axis=0)
                bias_total, bias_lost = accumulate(bias_total, bias_lost, term)
    if WANT_WEIGHT:
        _store_partial(weight_partial, n_columns, columns, weight_total, weight_exponent, EXTENDED)
    if WANT_BIAS:
        _store_partial(bias_partial, n_columns, columns, bias_total, bias_exponent, EXTENDED)


@triton.jit
def sum_chunks_kernel(
    partial,  # (chunks, K) fp64; (2, chunks, K) for fp64 inputs
    gradient,  # (K,) out
    n_chunks,
    n_columns,
    EXTENDED: tl.constexpr,
    CHUNKS: tl.constexpr,  # the next power of two
    BLOCK_N: tl.constexpr,
):
    """The sum over chunks, in the parameter's dtype."""
    columns = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    chunks = tl.arange(0, CHUNKS).to(tl.int64)
    mask = (chunks < n_chunks)[:, None] & (columns < n_columns)[None, :]
    where = chunks[:, None] * n_columns + columns[None, :]
    terms = tl.load(partial + where, mask=mask, other=0.0)
    if EXTENDED:
        behind = (chunks + n_chunks)[:, None] * n_columns + columns[None, :]
        exponent = tl.load(partial + behind, mask=mask, other=0.0)
        zero = tl.zeros([BLOCK_N], tl.float64)
        lowest = tl.full([BLOCK_N], LOWEST, tl.int32)
        total, _, top = accumulate_shifted(zero, zero, lowest, terms, exponent.to(tl.int32), 0)
        total = shift(total, top)
    else:
        total = tl.sum(terms, axis=0)
    tl.store(gradient + columns, narrow(total, gradient.dtype.element_ty), mask=columns < n_columns)
