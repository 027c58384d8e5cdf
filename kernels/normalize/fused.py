"""x / max(||x||, eps) along the rows of a matrix: the Triton kernels.

A sum of squares overflows from sqrt(max) on and vanishes below sqrt(min). So each row is divided by
a power of two s taken from the exponent bits of its largest element, which is exact to do and to
undo:

    z = x / s,    r = sqrt(sum z**2),    y = z / r,    and y = x / eps where s r < eps.

A row that fits on chip is read once; a wider one carries the pair (s, sum of squares) from block to
block, as LAPACK's dnrm2 does. Backward treats the upstream gradient g the same way, with a power of
two t of its own:

    dx = (t / s) (h - y sum(y h)) / r  with h = g / t,    and dx = g / eps where s r < eps.

There h, y and their products may span more than the dtype's range within a row, and t / s brings
the small ones back. So backward computes in fp64 (fp16, of a short range, in fp32); fp64 holds z as
2**500 z and h as 2**500 h or 2**1000 h.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .. import launch
from ..convert import narrow, widen
from ..elementary import (
    add_compensated,
    divide,
    exponent_of,
    power_of_two,
    square_root,
    sum_squares,
    times_power_of_two,
    unboosting_factors,
)
from ..row import load_row, store_piece

# The power of two that fp64 rows are held with in backward: twice it, and a row's sum, fit fp64.
_BOOST = tl.constexpr(500)


@triton.jit
def scale_exponent(x):
    """Per row of a tile, the exponent to scale by: that of the largest finite element."""
    size = tl.abs(x)
    return exponent_of(tl.max(tl.where(size < float("inf"), size, 0.0), axis=1))


@triton.jit
def scaled_to(value, exponent, WIDE: tl.constexpr):
    """value * 2**exponent in the dtype WIDE, for a tile and its rows' exponents."""
    wide = value.to(WIDE)
    if value.dtype == tl.float64:
        return times_power_of_two(wide, tl.broadcast_to(exponent[:, None], wide.shape))
    else:
        return wide * power_of_two(exponent, WIDE)[:, None]


@triton.jit
def below_floor(root, exponent, EPS: tl.constexpr):
    """Whether the norm root * 2**exponent is below eps, compared where neither side overflows."""
    if EPS < 1.0:
        floor = tl.full(root.shape, EPS, root.dtype) * power_of_two(-exponent, root.dtype)
        return root < floor
    else:
        # s < 1 goes to the left, where root * s is normal near eps; s >= 1 to the right.
        left = root * power_of_two(tl.minimum(exponent, 0), root.dtype)
        floor = tl.full(root.shape, EPS, root.dtype)
        return left < floor * power_of_two(-tl.maximum(exponent, 0), root.dtype)


@triton.jit
def _take_in(x, exponent, squares, lost, strange, STATISTICS: tl.constexpr, SUMS: tl.constexpr):
    """The pair (s, sum of squares) of each row after one more tile of it."""
    finite = tl.abs(x) < float("inf")
    kind = tl.where(finite, 0, tl.where(x == x, 1, 2))
    strange = tl.maximum(strange, tl.max(kind, axis=1))
    x = tl.where(finite, x, 0.0)
    new_exponent = tl.maximum(exponent, scale_exponent(x))
    z = x * power_of_two(-new_exponent, STATISTICS)[:, None]
    down = power_of_two(exponent, STATISTICS) * power_of_two(-new_exponent, STATISTICS)
    down = (down * down).to(SUMS)
    squares, lost = add_compensated(squares * down, lost * down, sum_squares(z, SUMS))
    return new_exponent, squares, lost, strange


@triton.jit
def _direction(x, inverse, denominator):
    """A tile of y; NaN where x is not finite, as in torch, where it is inf / inf."""
    finite = tl.abs(x) < float("inf")
    z = tl.where(finite, x, 0.0) * inverse[:, None]
    y = divide(z, tl.broadcast_to(denominator[:, None], z.shape))
    return tl.where(finite, y, float("nan"))


@triton.jit
def _forward_kernel(
    x_ptr,  # (N, K) contiguous
    y_ptr,  # (N, K) out
    exponent_ptr,  # (N,) int32 out: s = 2**exponent
    root_ptr,  # (N,) out: r; NaN or inf for a row that holds one
    n_rows,
    n_columns,
    EPS: tl.constexpr,
    STATISTICS: tl.constexpr,
    SUMS: tl.constexpr,
    PIECES: tl.constexpr,  # of a row that is held on chip, else ()
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STATIC_BLOCKS: tl.constexpr,
    UNIT: tl.constexpr,  # what n_columns is a multiple of
):
    n_columns = launch.known_multiple(n_columns, UNIT)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = rows < n_rows
    exponent = exponent_of(tl.zeros([BLOCK_M], STATISTICS))
    squares = tl.zeros([BLOCK_M], SUMS)
    lost = tl.zeros([BLOCK_M], SUMS)
    strange = tl.zeros([BLOCK_M], tl.int32)  # 1: the row holds an infinity, 2: a NaN
    if len(PIECES) > 0:
        row = load_row(x_ptr, rows, inside, n_columns, n_columns, 0.0, PIECES)
        for i in tl.static_range(len(PIECES)):
            x = widen(row[i], STATISTICS)
            exponent, squares, lost, strange = _take_in(
                x, exponent, squares, lost, strange, STATISTICS, SUMS
            )
    else:
        for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
            columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
            mask = inside[:, None] & (columns < n_columns)[None, :]
            offsets = rows[:, None] * n_columns + columns[None, :]
            x = widen(tl.load(x_ptr + offsets, mask=mask, other=0.0), STATISTICS)
            exponent, squares, lost, strange = _take_in(
                x, exponent, squares, lost, strange, STATISTICS, SUMS
            )
    root = square_root(squares).to(STATISTICS)

    below = below_floor(root, exponent, EPS)
    inverse = tl.where(below, 1.0, power_of_two(-exponent, STATISTICS))
    denominator = tl.where(below, tl.full([BLOCK_M], EPS, STATISTICS), root)
    denominator = tl.where(denominator > 0.0, denominator, 1.0)  # eps = 0 and a zero vector: 0 / 1
    root = tl.where(strange == 0, root, tl.where(strange == 1, float("inf"), float("nan")))
    denominator = tl.where(strange == 0, denominator, root)
    tl.store(exponent_ptr + rows, exponent, mask=inside)
    tl.store(root_ptr + rows, root, mask=inside)
    if len(PIECES) > 0:
        start = 0
        for i in tl.static_range(len(PIECES)):
            y = _direction(widen(row[i], STATISTICS), inverse, denominator)
            y = narrow(y, y_ptr.dtype.element_ty)
            store_piece(y_ptr, rows, inside, n_columns, n_columns, y, start)
            start += PIECES[i]
    else:
        for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
            columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
            mask = inside[:, None] & (columns < n_columns)[None, :]
            offsets = rows[:, None] * n_columns + columns[None, :]
            x = widen(tl.load(x_ptr + offsets, mask=mask, other=0.0), STATISTICS)
            y = _direction(x, inverse, denominator)
            tl.store(y_ptr + offsets, narrow(y, y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _project(x, g, g_exponent, dot, lost, spoilt, z_exponent, root, boost, WIDE: tl.constexpr):
    """The pair (t, sum(y h)) of each row after one more tile of it, and the sum of y g over
    infinite and NaN g.
    """
    finite = tl.abs(g) < float("inf")
    strange = tl.where(finite, 0.0, g)
    g = tl.where(finite, g, 0.0)
    new_exponent = tl.maximum(g_exponent, scale_exponent(g))
    h = scaled_to(g, boost - new_exponent, WIDE)
    z = scaled_to(tl.where(tl.abs(x) < float("inf"), x, 0.0), z_exponent, WIDE)
    y = divide(z, tl.broadcast_to(root[:, None], z.shape))
    # In two steps: the exponents lie up to twice the normal range apart.
    down = g_exponent - new_exponent
    dot, lost = times_power_of_two(dot, down), times_power_of_two(lost, down)
    dot, lost = add_compensated(dot, lost, tl.sum(y * h, axis=1))
    # By extremes, since NumPy warns of inf - inf within a sum.
    strange = tl.where(finite, 0.0, y * strange)
    spoilt += tl.max(tl.where(strange > 0.0, strange, 0.0), axis=1)
    spoilt += tl.min(tl.where(strange < 0.0, strange, 0.0), axis=1)
    unordered = tl.max(tl.where(strange == strange, 0, 1), axis=1)
    return new_exponent, dot, lost, tl.where(unordered > 0, float("nan"), spoilt)


@triton.jit
def _reject(
    x, g, dot, first, second, denominator, reciprocal, z_exponent, h_exponent, root, early, shift,
    zero, spoilt, STATISTICS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """A tile of the gradient: what of h lies across y, brought back by t / s; where the sum over y
    g is not finite, g - y times that sum.
    """
    finite = tl.abs(g) < float("inf")
    h = scaled_to(tl.where(finite, g, 0.0), h_exponent, WIDE)
    z = scaled_to(tl.where(tl.abs(x) < float("inf"), x, 0.0), z_exponent, WIDE)
    y = divide(z, tl.broadcast_to(root[:, None], z.shape))
    if STATISTICS == tl.float64:
        out = h - y * first[:, None] * second[:, None]
        out = divide(out, tl.broadcast_to(denominator[:, None], z.shape)) * early[:, None]
    elif WIDE == tl.float64:
        # One more rounding of fp64 is nothing to an fp32 result, and saves a division.
        out = (h - y * dot[:, None]) * reciprocal[:, None]
    else:
        out = divide(h - y * dot[:, None], tl.broadcast_to(denominator[:, None], z.shape))
    out = times_power_of_two(out, tl.broadcast_to(shift[:, None], z.shape))
    out = tl.where(zero[:, None], 0.0, out)
    out = tl.where(finite, out, g)
    return tl.where((spoilt == 0.0)[:, None], out, out - y * spoilt[:, None])


@triton.jit
def _backward_kernel(
    upstream,  # (N, K) contiguous
    x_ptr,  # (N, K) contiguous
    exponent_ptr,  # (N,) int32
    root_ptr,  # (N,)
    gradient,  # (N, K) out
    n_rows,
    n_columns,
    EPS: tl.constexpr,
    STATISTICS: tl.constexpr,
    WIDE: tl.constexpr,
    PIECES: tl.constexpr,  # of a row that is held on chip, else ()
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STATIC_BLOCKS: tl.constexpr,
    UNIT: tl.constexpr,  # what n_columns is a multiple of
):
    n_columns = launch.known_multiple(n_columns, UNIT)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = rows < n_rows
    exponent = tl.load(exponent_ptr + rows, mask=inside, other=0)
    saved_root = tl.load(root_ptr + rows, mask=inside, other=1.0)
    strange = (saved_root != saved_root) | (saved_root == float("inf"))
    root = tl.where(strange | (saved_root == 0.0), 1.0, saved_root)
    # A subnormal row's s is clamped, and its root small: what it lacks goes to the exponents.
    root_exponent = exponent_of(root)
    root = (root * power_of_two(-root_exponent, STATISTICS)).to(WIDE)
    # Nothing is wider than fp64: there what is small is held boosted.
    boost = tl.zeros([BLOCK_M], tl.int32)
    if STATISTICS == tl.float64:
        boost += _BOOST
    z_exponent = boost - exponent - root_exponent

    # First pass: t and sum(y h), carried from block to block like the pair (s, sum of squares).
    g_exponent = exponent_of(tl.zeros([BLOCK_M], STATISTICS))
    dot = tl.zeros([BLOCK_M], WIDE)
    lost = tl.zeros([BLOCK_M], WIDE)
    spoilt = tl.where(strange, float("nan"), tl.zeros([BLOCK_M], WIDE))
    if len(PIECES) > 0:
        x_row = load_row(x_ptr, rows, inside, n_columns, n_columns, 0.0, PIECES)
        g_row = load_row(upstream, rows, inside, n_columns, n_columns, 0.0, PIECES)
        for i in tl.static_range(len(PIECES)):
            x, g = widen(x_row[i], STATISTICS), widen(g_row[i], STATISTICS)
            g_exponent, dot, lost, spoilt = _project(
                x, g, g_exponent, dot, lost, spoilt, z_exponent, root, boost, WIDE
            )
    else:
        for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
            columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
            mask = inside[:, None] & (columns < n_columns)[None, :]
            offsets = rows[:, None] * n_columns + columns[None, :]
            x = widen(tl.load(x_ptr + offsets, mask=mask, other=0.0), STATISTICS)
            g = widen(tl.load(upstream + offsets, mask=mask, other=0.0), STATISTICS)
            g_exponent, dot, lost, spoilt = _project(
                x, g, g_exponent, dot, lost, spoilt, z_exponent, root, boost, WIDE
            )

    # Below eps the gradient is g / eps, element by element; at the zero vector it is 0 by policy.
    zero = saved_root == 0.0
    floored = (below_floor(saved_root, exponent, EPS) | zero) & (saved_root == saved_root)
    floor = tl.full([BLOCK_M], EPS, STATISTICS)
    floor = tl.where(floor > 0.0, floor, 1.0).to(WIDE)
    denominator = tl.where(floored, floor, root)
    reciprocal = 1.0 / denominator
    h_exponent = tl.where(floored, 0, 2 * boost - g_exponent)
    dot = tl.where(floored, 0.0, dot)
    shift = tl.where(floored, 0, g_exponent - exponent - root_exponent)
    first, second = dot, dot
    if STATISTICS == tl.float64:
        first, second = unboosting_factors(dot, _BOOST)
    # 2**(shift - 2 boost) may lie below twice the normal range: then one half of it comes first.
    early = power_of_two(tl.where((shift < -_BOOST) & ~floored, -2 * boost, 0), WIDE)
    shift = tl.where((shift < -_BOOST) | floored, shift, shift - 2 * boost)
    shift = tl.maximum(shift, -2044)  # fp64's; it is zero from there on anyway
    spoilt = tl.where(floored, 0.0, spoilt)
    if len(PIECES) > 0:
        start = 0
        for i in tl.static_range(len(PIECES)):
            x, g = widen(x_row[i], STATISTICS), widen(g_row[i], STATISTICS)
            out = _reject(
                x, g, dot, first, second, denominator, reciprocal, z_exponent, h_exponent, root,
                early, shift, zero, spoilt, STATISTICS, WIDE,
            )  # fmt: skip
            out = narrow(out, gradient.dtype.element_ty)
            store_piece(gradient, rows, inside, n_columns, n_columns, out, start)
            start += PIECES[i]
    else:
        for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
            columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
            mask = inside[:, None] & (columns < n_columns)[None, :]
            offsets = rows[:, None] * n_columns + columns[None, :]
            x = widen(tl.load(x_ptr + offsets, mask=mask, other=0.0), STATISTICS)
            g = widen(tl.load(upstream + offsets, mask=mask, other=0.0), STATISTICS)
            out = _reject(
                x, g, dot, first, second, denominator, reciprocal, z_exponent, h_exponent, root,
                early, shift, zero, spoilt, STATISTICS, WIDE,
            )  # fmt: skip
            tl.store(gradient + offsets, narrow(out, gradient.dtype.element_ty), mask=mask)
