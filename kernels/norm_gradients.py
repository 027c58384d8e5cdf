"""The gradient of the input of rms_norm and layer_norm, row by row, and what its kernel shares with
those of the parameters' gradients.

With h = g weight, y' the direction before the weight, and d = s r what it was divided by:

    dx = (h - y' mean(h y')) / d               rms_norm
    dx = (h - mean(h) - y' mean(h y')) / d     layer_norm (CENTRED)
    dweight = sum over rows g y',    dbias = sum over rows g.

Where the arithmetic is wider than the input (see `kernels.norms`) these are computed as written,
with sums in fp64. For fp64 inputs (EXTENDED) g, h, y' and their products are pairs (m, k) = m 2**k
and each sum has an exponent of its own, the largest among its terms: a sum loses only what lies
2**1000 below it, and nothing overflows before the result does.

Where the input and a parameter want gradients, `kernels.norm_one_pass` computes all of them from
one read; otherwise, and for rows that it cannot hold, the kernel here and those of
`kernels.norm_parameters` read x and the upstream gradient once each.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import launch
from .convert import narrow, widen
from .norms import (
    LOWEST,
    accumulate,
    accumulate_shifted,
    centred,
    inverse_of,
    scaled_down,
    shift,
    shift_down,
    split,
)
from .row import load_row, load_shared, store_piece


@triton.jit
def load_statistics(pointer, rows, inside, CENTRED: tl.constexpr):
    """(r, its exponent, mean, what the mean's rounding lost, the exponent of s) of each row.

    d = r 2**exponent. The last is another only where a row of layer_norm is constant, and r is
    that of eps alone.
    """
    if CENTRED:
        root = tl.load(pointer + rows * 5, mask=inside, other=1.0)
        exponent = tl.load(pointer + rows * 5 + 1, mask=inside, other=0.0).to(tl.int32)
        mean = tl.load(pointer + rows * 5 + 2, mask=inside, other=0.0)
        low = tl.load(pointer + rows * 5 + 3, mask=inside, other=0.0)
        scale = tl.load(pointer + rows * 5 + 4, mask=inside, other=0.0).to(tl.int32)
        return root, exponent, mean, low, scale
    else:
        root = tl.load(pointer + rows * 2, mask=inside, other=1.0)
        exponent = tl.load(pointer + rows * 2 + 1, mask=inside, other=0.0).to(tl.int32)
        return root, exponent, root * 0.0, root * 0.0, exponent


@triton.jit
def direction(x, root, mean, low, scale, CENTRED: tl.constexpr, EXTENDED: tl.constexpr):
    """y' of a tile, and its exponents (0 but for fp64 rows of rms_norm)."""
    if EXTENDED:
        divisor = tl.where(root == 0.0, 1.0, root)[:, None]
        if CENTRED:
            y = centred(scaled_down(x, scale), mean, low) / divisor
            k = tl.zeros(x.shape, tl.int32)
        else:
            m, k = split(x)
            y = m / divisor
            k -= scale[:, None]
    else:
        if CENTRED:
            x = centred(x, mean, low)
        y = x * inverse_of(root, x.dtype)[:, None]
        k = tl.zeros([1, 1], tl.int32)
    return y, k


@triton.jit
def weighted(g, weight, HAS_WEIGHT: tl.constexpr, EXTENDED: tl.constexpr):
    """h = g weight of a tile, and its exponents (0 but for fp64)."""
    if EXTENDED:
        h, k = split(g)
        if HAS_WEIGHT:
            w, w_exponent = split(weight)
            h = h * w
            k += w_exponent
        k = tl.where(h == 0.0, LOWEST, k)
    else:
        h = g
        if HAS_WEIGHT:
            h = g * weight
        k = tl.zeros([1, 1], tl.int32)
    return h, k


@triton.jit
def project(
    y, y_exponent, h, h_exponent, inside, dot, dot_lost, dot_exponent, total, total_lost,
    total_exponent, CENTRED: tl.constexpr, EXTENDED: tl.constexpr,
):  # fmt: skip
    """The sums of h y' and, for layer_norm, of h of each row after one more tile of it."""
    product = tl.where(inside, h * y, 0.0)
    if EXTENDED:
        dot, dot_lost, dot_exponent = accumulate_shifted(
            dot, dot_lost, dot_exponent, product, h_exponent + y_exponent, 1
        )
        if CENTRED:
            total, total_lost, total_exponent = accumulate_shifted(
                total, total_lost, total_exponent, h, h_exponent, 1
            )
    else:
        dot, dot_lost = accumulate(dot, dot_lost, tl.sum(product.to(tl.float64), axis=1))
        if CENTRED:
            total, total_lost = accumulate(total, total_lost, tl.sum(h.to(tl.float64), axis=1))
    return dot, dot_lost, dot_exponent, total, total_lost, total_exponent


@triton.jit
def means(dot, total, n_columns):
    """The means of h y' and of h from their sums. An infinite mean(h) makes the whole row NaN, as
    in torch, whatever the sign of y' mean(h y').
    """
    total = total / n_columns
    return dot / n_columns, tl.where(tl.abs(total) < float("inf"), total, float("nan"))


@triton.jit
def reject(
    y, y_exponent, h, h_exponent, root, exponent, dot, dot_exponent, total, total_exponent,
    CENTRED: tl.constexpr, EXTENDED: tl.constexpr,
):  # fmt: skip
    """A tile of dx, given the means of h y' and of h."""
    along = y * dot.to(y.dtype)[:, None]
    if EXTENDED:
        k = tl.where(along == 0.0, LOWEST, y_exponent + dot_exponent[:, None])
        top = tl.maximum(h_exponent, k)
        if CENTRED:
            top = tl.maximum(top, total_exponent[:, None])
        out = shift_down(h, h_exponent - top)
        if CENTRED:
            out = out - shift_down(total[:, None], total_exponent[:, None] - top)
        out = out - shift_down(along, k - top)
        out = out / tl.where(root == 0.0, 1.0, root)[:, None]
        out = shift(out, tl.where((root == 0.0)[:, None], 0, top - exponent[:, None]))
        out = tl.where((root == 0.0)[:, None], 0.0, out)
    else:
        if CENTRED:
            h = h - total.to(h.dtype)[:, None]
        out = (h - along) * inverse_of(root, h.dtype)[:, None]
    return out


@triton.jit
def input_kernel(
    upstream,  # (N, K) contiguous
    x_ptr,  # (N, K) contiguous
    weight_ptr,  # (K,) contiguous, or anything where there is none
    statistics_ptr,  # (N, 2) or, for layer_norm, (N, 5) fp64
    gradient,  # (N, K) out
    n_rows,
    n_columns,
    ELEMENTS: tl.constexpr,
    CENTRED: tl.constexpr,
    EXTENDED: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    PIECES: tl.constexpr,  # of a row that is held on chip, else ()
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STATIC_BLOCKS: tl.constexpr,
    UNIT: tl.constexpr,  # what n_columns is a multiple of
):
    """dx of one program's rows; reads x and the upstream gradient once where they fit on chip."""
    n_columns = launch.known_multiple(n_columns, UNIT)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = rows < n_rows
    root, exponent, mean, low, scale = load_statistics(statistics_ptr, rows, inside, CENTRED)
    dot = tl.zeros([BLOCK_M], tl.float64)
    dot_lost, total, total_lost = dot, dot, dot
    dot_exponent = tl.full([BLOCK_M], LOWEST, tl.int32)
    total_exponent = dot_exponent
    if len(PIECES) > 0:
        x_row = load_row(x_ptr, rows, inside, n_columns, n_columns, 0.0, PIECES)
        g_row = load_row(upstream, rows, inside, n_columns, n_columns, 0.0, PIECES)
        if HAS_WEIGHT:
            shared = load_shared(weight_ptr, n_columns, 0.0, PIECES)
        start = 0
        for i in tl.static_range(len(PIECES)):
            x, g = widen(x_row[i], ELEMENTS), widen(g_row[i], ELEMENTS)
            weight = g
            if HAS_WEIGHT:
                weight = widen(shared[i], ELEMENTS)[None, :]
            mask = inside[:, None] & (start + tl.arange(0, PIECES[i]) < n_columns)[None, :]
            y, y_exponent = direction(x, root, mean, low, scale, CENTRED, EXTENDED)
            h, h_exponent = weighted(g, weight, HAS_WEIGHT, EXTENDED)
            dot, dot_lost, dot_exponent, total, total_lost, total_exponent = project(
                y, y_exponent, h, h_exponent, mask, dot, dot_lost, dot_exponent, total, total_lost,
                total_exponent, CENTRED, EXTENDED,
            )  # fmt: skip
            start += PIECES[i]
    else:
        for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
            columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
            mask = inside[:, None] & (columns < n_columns)[None, :]
            offsets = rows[:, None] * n_columns + columns[None, :]
            x = widen(tl.load(x_ptr + offsets, mask=mask, other=0.0), ELEMENTS)
            g = widen(tl.load(upstream + offsets, mask=mask, other=0.0), ELEMENTS)
            weight = g
            if HAS_WEIGHT:
                loaded = tl.load(weight_ptr + columns, mask=columns < n_columns, other=0.0)
                weight = widen(loaded, ELEMENTS)[None, :]
            y, y_exponent = direction(x, root, mean, low, scale, CENTRED, EXTENDED)
            h, h_exponent = weighted(g, weight, HAS_WEIGHT, EXTENDED)
            dot, dot_lost, dot_exponent, total, total_lost, total_exponent = project(
                y, y_exponent, h, h_exponent, mask, dot, dot_lost, dot_exponent, total, total_lost,
                total_exponent, CENTRED, EXTENDED,
            )  # fmt: skip

    dot, total = means(dot, total, n_columns)
    if len(PIECES) > 0:
        start = 0
        for i in tl.static_range(len(PIECES)):
            x, g = widen(x_row[i], ELEMENTS), widen(g_row[i], ELEMENTS)
            weight = g
            if HAS_WEIGHT:
                weight = widen(shared[i], ELEMENTS)[None, :]
            y, y_exponent = direction(x, root, mean, low, scale, CENTRED, EXTENDED)
            h, h_exponent = weighted(g, weight, HAS_WEIGHT, EXTENDED)
            out = reject(
                y, y_exponent, h, h_exponent, root, exponent, dot, dot_exponent, total,
                total_exponent, CENTRED, EXTENDED,
            )  # fmt: skip
            out = narrow(out, gradient.dtype.element_ty)
            store_piece(gradient, rows, inside, n_columns, n_columns, out, start)
            start += PIECES[i]
    else:
        for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
            columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
            mask = inside[:, None] & (columns < n_columns)[None, :]
            offsets = rows[:, None] * n_columns + columns[None, :]
            x = widen(tl.load(x_ptr + offsets, mask=mask, other=0.0), ELEMENTS)
            g = widen(tl.load(upstream + offsets, mask=mask, other=0.0), ELEMENTS)
            weight = g
            if HAS_WEIGHT:
                loaded = tl.load(weight_ptr + columns, mask=columns < n_columns, other=0.0)
                weight = widen(loaded, ELEMENTS)[None, :]
            y, y_exponent = direction(x, root, mean, low, scale, CENTRED, EXTENDED)
            h, h_exponent = weighted(g, weight, HAS_WEIGHT, EXTENDED)
            out = reject(
                y, y_exponent, h, h_exponent, root, exponent, dot, dot_exponent, total,
                total_exponent, CENTRED, EXTENDED,
            )  # fmt: skip
            tl.store(gradient + offsets, narrow(out, gradient.dtype.element_ty), mask=mask)
