"""x / sqrt(mean(x**2) + eps) * weight along the rows of a matrix: the Triton kernel.

A sum of squares overflows from sqrt(max) on and vanishes below sqrt(min). Where the arithmetic of
`kernels.norms` is no wider than the input, each row is divided by a power of two s taken from the
exponent bits of its largest element, or of sqrt(eps) where that is larger, exact to do and to undo:

    z = x / s,    r = sqrt(mean(z**2) + eps / s**2),    y = z / r * weight.

A row that fits on chip is read once; a wider one carries the pair (s, sum of squares) from block to
block, as LAPACK's dnrm2 does. The gradients are in `kernels.norm_backward`:

    dx = (h - y' mean(h y')) / (s r)  with h = g weight, y' = z / r,
    dweight = sum over rows g y'.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .. import launch
from ..convert import narrow, widen
from ..norms import root_of, save_scale, take_in_squares, weighted_direction
from ..row import load_row, load_shared, store_piece


@triton.jit
def _forward_kernel(
    x_ptr,  # (N, K) contiguous
    weight_ptr,  # (K,) contiguous, or anything where there is none
    y_ptr,  # (N, K) out
    statistics_ptr,  # (N, 2) fp64 out, see `kernels.norms.save_scale`
    n_rows,
    n_columns,
    EPS: tl.constexpr,
    LEAST: tl.constexpr,  # exponent of the least s
    ELEMENTS: tl.constexpr,
    SCALED: tl.constexpr,
    EXTENDED: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    PIECES: tl.constexpr,  # of a row that is held on chip, else ()
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STATIC_BLOCKS: tl.constexpr,
    UNIT: tl.constexpr,  # what n_columns is a multiple of
):
    n_columns = launch.known_multiple(n_columns, UNIT)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = rows < n_rows
    exponent = tl.full([BLOCK_M], LEAST, tl.int32)
    squares = tl.zeros([BLOCK_M], tl.float64)
    lost = tl.zeros([BLOCK_M], tl.float64)
    if len(PIECES) > 0:
        row = load_row(x_ptr, rows, inside, n_columns, n_columns, 0.0, PIECES)
        for i in tl.static_range(len(PIECES)):
            x = widen(row[i], ELEMENTS)
            exponent, squares, lost = take_in_squares(x, exponent, squares, lost, SCALED)
    else:
        for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
            columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
            mask = inside[:, None] & (columns < n_columns)[None, :]
            offsets = rows[:, None] * n_columns + columns[None, :]
            x = widen(tl.load(x_ptr + offsets, mask=mask, other=0.0), ELEMENTS)
            exponent, squares, lost = take_in_squares(x, exponent, squares, lost, SCALED)
    root, under = root_of(squares, exponent, n_columns, EPS, SCALED)

    save_scale(statistics_ptr, rows, inside, root, exponent, 2, EXTENDED)
    if len(PIECES) > 0:
        if HAS_WEIGHT:
            shared = load_shared(weight_ptr, n_columns, 0.0, PIECES)
        start = 0
        for i in tl.static_range(len(PIECES)):
            x = widen(row[i], ELEMENTS)
            weight = x
            if HAS_WEIGHT:
                weight = widen(shared[i], ELEMENTS)[None, :]
            y = weighted_direction(x, weight, exponent, root, under, HAS_WEIGHT, SCALED)
            y = narrow(y, y_ptr.dtype.element_ty)
            store_piece(y_ptr, rows, inside, n_columns, n_columns, y, start)
            start += PIECES[i]
    else:
        for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
            columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
            mask = inside[:, None] & (columns < n_columns)[None, :]
            offsets = rows[:, None] * n_columns + columns[None, :]
            x = widen(tl.load(x_ptr + offsets, mask=mask, other=0.0), ELEMENTS)
            weight = x
            if HAS_WEIGHT:
                loaded = tl.load(weight_ptr + columns, mask=columns < n_columns, other=0.0)
                weight = widen(loaded, ELEMENTS)[None, :]
            y = weighted_direction(x, weight, exponent, root, under, HAS_WEIGHT, SCALED)
            tl.store(y_ptr + offsets, narrow(y, y_ptr.dtype.element_ty), mask=mask)
