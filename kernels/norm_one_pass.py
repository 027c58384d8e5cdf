"""All gradients of rms_norm and layer_norm from one read of x and of the upstream gradient.

A program goes through a chunk of rows, in order. Of each it holds x and the upstream gradient on
chip, writes dx as `kernels.norm_gradients` has it, and adds g y' and g to sums in fp64 that it
keeps in registers, one an element of its tile; at the end it stores the chunk's sum of each column,
for `kernels.norm_parameters.sum_chunks_kernel` to add up. There are no atomics, and rows are cut
into chunks by their number alone: the same bits on every run.

The sums need no compensation: fp64 loses 2**-53 of their terms with each row, and what is judged
is the unit roundoff of fp32, 2**-24. For fp64 inputs, whose sums are pairs with an exponent and a
compensation, and for rows wider than the table of launch shapes says, registers do not suffice;
these take the two kernels.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import launch
from .convert import narrow, widen
from .norm_gradients import direction, load_statistics, means, project, reject, weighted
from .norms import LOWEST
from .row import load_row, load_shared, store_piece


@triton.jit
def _nothing(BLOCK_M: tl.constexpr, PIECES: tl.constexpr):
    """Sums before the first row, as a tuple of (BLOCK_M, piece) tiles; by tl.full,
    since tl.zeros of triton 3.6 takes no element of a tuple.
    """
    sums = ()
    for i in tl.static_range(len(PIECES)):
        tile = tl.full([BLOCK_M, PIECES[i]], 0.0, tl.float64)
        sums = sums + (tile,)  # type: ignore[assignment]
    return sums


@triton.jit
def _store_sums(pointer, n_columns, sums, PIECES: tl.constexpr):
    """The chunk's sum of each column."""
    chunk = tl.program_id(0).to(tl.int64) * n_columns
    start = 0
    for i in tl.static_range(len(PIECES)):
        columns = start + tl.arange(0, PIECES[i])
        total = tl.sum(sums[i], axis=0)
        tl.store(pointer + chunk + columns, total, mask=columns < n_columns)
        start += PIECES[i]


@triton.jit
def one_pass_kernel(
    upstream,  # (N, K) contiguous
    x_ptr,  # (N, K) contiguous
    weight_ptr,  # (K,) contiguous, or anything where there is none
    statistics_ptr,  # (N, 2) or, for layer_norm, (N, 5) fp64
    gradient,  # (N, K) out
    weight_partial,  # (chunks, K) fp64 out, or anything where it is not wanted
    bias_partial,  # the same
    n_rows,
    n_columns,
    n_blocks,  # of rows in a chunk
    ELEMENTS: tl.constexpr,
    CENTRED: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    WANT_WEIGHT: tl.constexpr,
    WANT_BIAS: tl.constexpr,
    PIECES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    STATIC_BLOCKS: tl.constexpr,
    UNIT: tl.constexpr,  # what n_columns is a multiple of
):
    """dx of one program's chunk of rows, and the chunk's sums of g y' and of g."""
    n_columns = launch.known_multiple(n_columns, UNIT)
    if HAS_WEIGHT:
        shared = load_shared(weight_ptr, n_columns, 0.0, PIECES)
    first = tl.program_id(0).to(tl.int64) * n_blocks
    of_weight = _nothing(BLOCK_M, PIECES)
    of_bias = _nothing(BLOCK_M, PIECES)
    for block in range(launch.block_count(n_blocks, 1, STATIC_BLOCKS)):
        rows = (first + block) * BLOCK_M + tl.arange(0, BLOCK_M)
        inside = rows < n_rows
        root, exponent, mean, low, scale = load_statistics(statistics_ptr, rows, inside, CENTRED)
        x_row = load_row(x_ptr, rows, inside, n_columns, n_columns, 0.0, PIECES)
        g_row = load_row(upstream, rows, inside, n_columns, n_columns, 0.0, PIECES)
        dot = tl.zeros([BLOCK_M], tl.float64)
        dot_lost, total, total_lost = dot, dot, dot
        unused = tl.full([BLOCK_M], LOWEST, tl.int32)  # exponents, which only fp64 has
        start = 0
        for i in tl.static_range(len(PIECES)):
            x, g = widen(x_row[i], ELEMENTS), widen(g_row[i], ELEMENTS)
            weight = g
            if HAS_WEIGHT:
                weight = widen(shared[i], ELEMENTS)[None, :]
            mask = inside[:, None] & (start + tl.arange(0, PIECES[i]) < n_columns)[None, :]
            y, zero = direction(x, root, mean, low, scale, CENTRED, False)
            h, _ = weighted(g, weight, HAS_WEIGHT, False)
            dot, dot_lost, unused, total, total_lost, unused = project(
                y, zero, h, zero, mask, dot, dot_lost, unused, total, total_lost, unused,
                CENTRED, False,
            )  # fmt: skip
            start += PIECES[i]
        dot, total = means(dot, total, n_columns)
        start = 0
        weight_sums, bias_sums = (), ()
        for i in tl.static_range(len(PIECES)):
            x, g = widen(x_row[i], ELEMENTS), widen(g_row[i], ELEMENTS)
            weight = g
            if HAS_WEIGHT:
                weight = widen(shared[i], ELEMENTS)[None, :]
            y, zero = direction(x, root, mean, low, scale, CENTRED, False)
            h, _ = weighted(g, weight, HAS_WEIGHT, False)
            out = reject(
                y, zero, h, zero, root, exponent, dot, unused, total, unused, CENTRED, False
            )
            out = narrow(out, gradient.dtype.element_ty)
            store_piece(gradient, rows, inside, n_columns, n_columns, out, start)
            # Beyond the row's end the sums may hold anything: a lane is added to its own alone.
            if WANT_WEIGHT:
                weight_sums = weight_sums + (of_weight[i] + (g * y).to(tl.float64),)  # type: ignore[assignment]
            if WANT_BIAS:
                bias_sums = bias_sums + (of_bias[i] + g.to(tl.float64),)  # type: ignore[assignment]
            start += PIECES[i]
        if WANT_WEIGHT:
            of_weight = weight_sums
        if WANT_BIAS:
            of_bias = bias_sums
    if WANT_WEIGHT:
        _store_sums(weight_partial, n_columns, of_weight, PIECES)
    if WANT_BIAS:
        _store_sums(bias_partial, n_columns, of_bias, PIECES)
