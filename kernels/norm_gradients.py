"""The gradients of rms_norm and layer_norm, for their kernels: of the input, row by row, and of the
parameters, column by column.

With h = g weight, y' the direction before the weight, and d = s r what it was divided by:

    dx = (h - y' mean(h y')) / d               rms_norm
    dx = (h - mean(h) - y' mean(h y')) / d     layer_norm (CENTRED)
    dweight = sum over rows g y',    dbias = sum over rows g.

Where the arithmetic is wider than the input (see `kernels.norms`) these are computed as written,
with sums in fp64. For fp64 inputs (EXTENDED) g, h, y' and their products are pairs (m, k) = m 2**k
and each sum has an exponent of its own, the largest among its terms: a sum loses only what lies
2**1000 below it, and nothing overflows before the result does.

The sums over rows are deterministic: each program adds up a chunk of rows for some columns, in
order, and a second kernel adds up the chunks. There are no atomics.
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
def _project(
    x, g, weight, inside, root, mean, low, scale, dot, dot_lost, dot_exponent, total, total_lost,
    total_exponent, CENTRED: tl.constexpr, EXTENDED: tl.constexpr, HAS_WEIGHT: tl.constexpr,
):  # fmt: skip
    """The sums of h y' and, for layer_norm, of h of each row after one more tile of it."""
    y, y_exponent = direction(x, root, mean, low, scale, CENTRED, EXTENDED)
    h, h_exponent = weighted(g, weight, HAS_WEIGHT, EXTENDED)
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
def _reject(
    x, g, weight, root, exponent, mean, low, scale, dot, dot_exponent, total, total_exponent,
    CENTRED: tl.constexpr, EXTENDED: tl.constexpr, HAS_WEIGHT: tl.constexpr,
):  # fmt: skip
    """A tile of dx, given the means of h y' and of h."""
    y, y_exponent = direction(x, root, mean, low, scale, CENTRED, EXTENDED)
    h, h_exponent = weighted(g, weight, HAS_WEIGHT, EXTENDED)
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
def input_gradient(
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
):
    """dx of one program's rows; reads x and the upstream gradient once where they fit on chip."""
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
            dot, dot_lost, dot_exponent, total, total_lost, total_exponent = _project(
                x, g, weight, mask, root, mean, low, scale, dot, dot_lost, dot_exponent, total,
                total_lost, total_exponent, CENTRED, EXTENDED, HAS_WEIGHT,
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
            dot, dot_lost, dot_exponent, total, total_lost, total_exponent = _project(
                x, g, weight, mask, root, mean, low, scale, dot, dot_lost, dot_exponent, total,
                total_lost, total_exponent, CENTRED, EXTENDED, HAS_WEIGHT,
            )  # fmt: skip

    dot = dot / n_columns
    total = total / n_columns
    # An infinite mean(h) makes the whole row NaN, as in torch, whatever the sign of y' mean(h y').
    total = tl.where(tl.abs(total) < float("inf"), total, float("nan"))
    if len(PIECES) > 0:
        start = 0
        for i in tl.static_range(len(PIECES)):
            x, g = widen(x_row[i], ELEMENTS), widen(g_row[i], ELEMENTS)
            weight = g
            if HAS_WEIGHT:
                weight = widen(shared[i], ELEMENTS)[None, :]
            out = _reject(
                x, g, weight, root, exponent, mean, low, scale, dot, dot_exponent, total,
                total_exponent, CENTRED, EXTENDED, HAS_WEIGHT,
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
            out = _reject(
                x, g, weight, root, exponent, mean, low, scale, dot, dot_exponent, total,
                total_exponent, CENTRED, EXTENDED, HAS_WEIGHT,
            )  # fmt: skip
            tl.store(gradient + offsets, narrow(out, gradient.dtype.element_ty), mask=mask)


# --- parameters -----------------------------------------------------------------------------------


@triton.jit
def _store_partial(pointer, n_columns, columns, total, exponent, EXTENDED: tl.constexpr):
    """One chunk's sums; for fp64 inputs their exponents go behind the sums of all chunks."""
    chunk = tl.program_id(1).to(tl.int64)
    tl.store(pointer + chunk * n_columns + columns, total, mask=columns < n_columns)
    if EXTENDED:
        behind = (chunk + tl.num_programs(1)) * n_columns + columns
        tl.store(pointer + behind, exponent.to(tl.float64), mask=columns < n_columns)


@triton.jit
def parameter_gradients(
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
):
    """The sums of g y' and of g over a chunk of rows, for one block of columns."""
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
def _sum_chunks_kernel(
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
