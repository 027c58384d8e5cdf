"""(x - mean) / sqrt(var + eps) * weight + bias along the rows of a matrix: the Triton kernel.

A variance as mean(x**2) - mean**2 cancels, and squares overflow or vanish. So the moments are taken
about the mean, tile by tile, each tile about its own, and merged as Chan, Golub and LeVeque do.
Where the arithmetic of `kernels.norms` is no wider than the input, each row is divided by a power
of two s taken from the exponent bits of its largest element, or of sqrt(eps) where that is larger:

    z = x / s,    m = mean(z),    r = sqrt(mean((z - m)**2) + eps / s**2),
    y = (z - m) / r * weight + bias.

The mean is held in more bits than an element has (fp64, for fp64 inputs two numbers) and what its
rounding lost is subtracted, too: of a row with a large offset z - m keeps what the inputs hold, and
of a constant row it is exactly 0.

A row that fits on chip is read once; a wider one carries the moments from block to block. The
gradients are in `kernels.norm_backward`:

    dx = (h - mean(h) - y' mean(h y')) / (s r)  with h = g weight, y' = (z - m) / r,
    dweight = sum over rows g y',    dbias = sum over rows g.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .. import launch
from ..convert import narrow, widen
from ..norms import (
    centred,
    inverse_of,
    mean_of,
    root_of,
    save_scale,
    scaled_down,
    shift,
    take_in_moments,
)
from ..row import load_row, load_shared, store_piece


@triton.jit
def _affine(
    x, weight, bias, exponent, mean, mean_low, root,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, SCALED: tl.constexpr, EXTENDED: tl.constexpr,
    HALVED: tl.constexpr,
):  # fmt: skip
    """A tile of y. HALVED where a product may overflow that the bias brings back: half of each term
    is added, and the sum doubled.
    """
    if SCALED:
        x = scaled_down(x, exponent)
    y = centred(x, mean, mean_low)
    if EXTENDED:
        y = y / tl.where(root == 0.0, 1.0, root)[:, None]
    else:
        y = y * inverse_of(root, y.dtype)[:, None]
    if HALVED:
        y = y * 0.5
    if HAS_WEIGHT:
        y = y * weight
    if HAS_BIAS:
        if HALVED:
            y = y + bias * 0.5
        else:
            y = y + bias
    if HALVED:
        y = y * 2.0
    return y


@triton.jit
def _save(
    pointer, rows, inside, root, exponent, mean, mean_low, squares,
    EPS: tl.constexpr, LEAST: tl.constexpr, EXTENDED: tl.constexpr,
):  # fmt: skip
    """Store the five statistics of each row; the mean in units of x but for fp64 inputs."""
    if EXTENDED:
        # Beside the squares of a large row eps may vanish, but not where they are 0.
        floor = tl.sqrt(
            shift(tl.full(root.shape, EPS, tl.float64), tl.full(root.shape, -2 * LEAST, tl.int32))
        )
        constant = squares == 0.0
        root = tl.where(constant, floor, root)
        save_scale(pointer, rows, inside, root, tl.where(constant, LEAST, exponent), 5, EXTENDED)
    else:
        save_scale(pointer, rows, inside, root, exponent, 5, EXTENDED)
        mean = shift(mean, exponent)
    tl.store(pointer + rows * 5 + 2, mean, mask=inside)
    tl.store(pointer + rows * 5 + 3, mean_low, mask=inside)
    tl.store(pointer + rows * 5 + 4, exponent.to(tl.float64), mask=inside)


@triton.jit
def _forward_kernel(
    x_ptr,  # (N, K) contiguous
    weight_ptr,  # (K,) contiguous, or anything where there is none
    bias_ptr,  # the same
    y_ptr,  # (N, K) out
    statistics_ptr,  # (N, 5) fp64 out, see `_save`
    n_rows,
    n_columns,
    EPS: tl.constexpr,
    LEAST: tl.constexpr,  # exponent of the least s
    ELEMENTS: tl.constexpr,
    SCALED: tl.constexpr,
    EXTENDED: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HALVED: tl.constexpr,
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
    total = tl.zeros([BLOCK_M], tl.float64)
    rest, squares, lost = total, total, total
    if len(PIECES) > 0:
        row = load_row(x_ptr, rows, inside, n_columns, n_columns, 0.0, PIECES)
        start = 0
        for i in tl.static_range(len(PIECES)):
            mask = inside[:, None] & (start + tl.arange(0, PIECES[i]) < n_columns)[None, :]
            before = tl.full([BLOCK_M], start, tl.float64)
            count = tl.minimum(before * 0.0 + (n_columns - start), PIECES[i])
            exponent, total, rest, squares, lost = take_in_moments(
                widen(row[i], ELEMENTS), mask, before, count, exponent, total, rest, squares, lost,
                SCALED, EXTENDED,
            )  # fmt: skip
            start += PIECES[i]
    else:
        for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
            columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
            mask = inside[:, None] & (columns < n_columns)[None, :]
            offsets = rows[:, None] * n_columns + columns[None, :]
            x = widen(tl.load(x_ptr + offsets, mask=mask, other=0.0), ELEMENTS)
            before = total * 0.0 + block * BLOCK_N
            count = tl.minimum(n_columns - before, BLOCK_N)
            exponent, total, rest, squares, lost = take_in_moments(
                x, mask, before, count, exponent, total, rest, squares, lost, SCALED, EXTENDED
            )
    root, _ = root_of(squares, exponent, n_columns, EPS, SCALED)
    mean, mean_low = mean_of(total, rest, n_columns, EXTENDED)

    _save(
        statistics_ptr, rows, inside, root, exponent, mean, mean_low, squares, EPS, LEAST, EXTENDED
    )
    if len(PIECES) > 0:
        if HAS_WEIGHT:
            weights = load_shared(weight_ptr, n_columns, 0.0, PIECES)
        if HAS_BIAS:
            biases = load_shared(bias_ptr, n_columns, 0.0, PIECES)
        start = 0
        for i in tl.static_range(len(PIECES)):
            x = widen(row[i], ELEMENTS)
            weight, bias = x, x
            if HAS_WEIGHT:
                weight = widen(weights[i], ELEMENTS)[None, :]
            if HAS_BIAS:
                bias = widen(biases[i], ELEMENTS)[None, :]
            y = _affine(
                x, weight, bias, exponent, mean, mean_low, root,
                HAS_WEIGHT, HAS_BIAS, SCALED, EXTENDED, HALVED,
            )  # fmt: skip
            y = narrow(y, y_ptr.dtype.element_ty)
            store_piece(y_ptr, rows, inside, n_columns, n_columns, y, start)
            start += PIECES[i]
    else:
        for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
            columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
            mask = inside[:, None] & (columns < n_columns)[None, :]
            offsets = rows[:, None] * n_columns + columns[None, :]
            x = widen(tl.load(x_ptr + offsets, mask=mask, other=0.0), ELEMENTS)
            weight, bias = x, x
            if HAS_WEIGHT:
                loaded = tl.load(weight_ptr + columns, mask=columns < n_columns, other=0.0)
                weight = widen(loaded, ELEMENTS)[None, :]
            if HAS_BIAS:
                loaded = tl.load(bias_ptr + columns, mask=columns < n_columns, other=0.0)
                bias = widen(loaded, ELEMENTS)[None, :]
            y = _affine(
                x, weight, bias, exponent, mean, mean_low, root,
                HAS_WEIGHT, HAS_BIAS, SCALED, EXTENDED, HALVED,
            )  # fmt: skip
            tl.store(y_ptr + offsets, narrow(y, y_ptr.dtype.element_ty), mask=mask)
