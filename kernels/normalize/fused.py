"""x / max(||x||, eps) along the rows of a matrix: the Triton kernels, the registered operators, the
autograd function.

A sum of squares overflows from sqrt(max) on and vanishes below sqrt(min). So each row is divided by
a power of two s taken from the exponent bits of its largest element, which is exact to do and to
undo:

    z = x / s,    r = sqrt(sum z**2),    y = z / r,    and y = x / eps where s r < eps.

Rows wider than a tile carry the pair (s, sum of squares) from block to block, as LAPACK's dnrm2
does. Backward treats the upstream gradient g the same way, with a power of two t of its own:

    dx = (t / s) (h - y sum(y h)) / r  with h = g / t,    and dx = g / eps where s r < eps.

There h, y and their products may span more than the dtype's range within a row, and t / s brings
the small ones back. So backward computes in fp64 (fp16, of a short range, in fp32); fp64 holds z as
2**500 z and h as 2**500 h or 2**1000 h.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

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
from ..first_order import first_order
from . import reference

# The power of two that fp64 rows are held with in backward: twice it, and a row's sum, fit fp64.
_BOOST = tl.constexpr(500)

# --- kernels --------------------------------------------------------------------------------------


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
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STATIC_BLOCKS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = rows < n_rows
    exponent = exponent_of(tl.zeros([BLOCK_M], STATISTICS))
    squares = tl.zeros([BLOCK_M], SUMS)
    lost = tl.zeros([BLOCK_M], SUMS)
    strange = tl.zeros([BLOCK_M], tl.int32)  # 1: the row holds an infinity, 2: a NaN
    for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
        columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        mask = inside[:, None] & (columns < n_columns)[None, :]
        offsets = rows[:, None] * n_columns + columns[None, :]
        x = widen(tl.load(x_ptr + offsets, mask=mask, other=0.0), STATISTICS)
        finite = tl.abs(x) < float("inf")
        kind = tl.where(finite, 0, tl.where(x == x, 1, 2))
        strange = tl.maximum(strange, tl.max(kind, axis=1))
        x = tl.where(finite, x, 0.0)
        new_exponent = tl.maximum(exponent, scale_exponent(x))
        z = x * power_of_two(-new_exponent, STATISTICS)[:, None]
        down = power_of_two(exponent, STATISTICS) * power_of_two(-new_exponent, STATISTICS)
        down = (down * down).to(SUMS)
        squares, lost = add_compensated(squares * down, lost * down, sum_squares(z, SUMS))
        exponent = new_exponent
    root = square_root(squares).to(STATISTICS)

    below = below_floor(root, exponent, EPS)
    inverse = tl.where(below, 1.0, power_of_two(-exponent, STATISTICS))
    denominator = tl.where(below, tl.full([BLOCK_M], EPS, STATISTICS), root)
    denominator = tl.where(denominator > 0.0, denominator, 1.0)  # eps = 0 and a zero vector: 0 / 1
    root = tl.where(strange == 0, root, tl.where(strange == 1, float("inf"), float("nan")))
    denominator = tl.where(strange == 0, denominator, root)
    for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
        columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        mask = inside[:, None] & (columns < n_columns)[None, :]
        offsets = rows[:, None] * n_columns + columns[None, :]
        x = widen(tl.load(x_ptr + offsets, mask=mask, other=0.0), STATISTICS)
        finite = tl.abs(x) < float("inf")
        z = tl.where(finite, x, 0.0) * inverse[:, None]
        y = tl.where(
            finite, divide(z, tl.broadcast_to(denominator[:, None], z.shape)), float("nan")
        )
        tl.store(y_ptr + offsets, narrow(y, y_ptr.dtype.element_ty), mask=mask)
    tl.store(exponent_ptr + rows, exponent, mask=inside)
    tl.store(root_ptr + rows, root, mask=inside)


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
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STATIC_BLOCKS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = rows < n_rows
    exponent = tl.load(exponent_ptr + rows, mask=inside, other=0)
    saved_root = tl.load(root_ptr + rows, mask=inside, other=1.0)
    strange = (saved_root != saved_root) | (saved_root == float("inf"))
    root = tl.where(strange | (saved_root == 0.0), 1.0, saved_root)
    root = root.to(WIDE)
    # Nothing is wider than fp64: there what is small is held boosted.
    boost = tl.zeros([BLOCK_M], tl.int32)
    if STATISTICS == tl.float64:
        boost += _BOOST
    z_exponent = boost - exponent

    # First pass: t and sum(y h), carried from block to block like the pair (s, sum of squares).
    g_exponent = exponent_of(tl.zeros([BLOCK_M], STATISTICS))
    dot = tl.zeros([BLOCK_M], WIDE)
    lost = tl.zeros([BLOCK_M], WIDE)
    for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
        columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        mask = inside[:, None] & (columns < n_columns)[None, :]
        offsets = rows[:, None] * n_columns + columns[None, :]
        x = widen(tl.load(x_ptr + offsets, mask=mask, other=0.0), STATISTICS)
        g = widen(tl.load(upstream + offsets, mask=mask, other=0.0), STATISTICS)
        finite = tl.abs(g) < float("inf")
        strange = strange | (tl.max(tl.where(finite, 0, 1), axis=1) > 0)
        g = tl.where(finite, g, 0.0)
        new_exponent = tl.maximum(g_exponent, scale_exponent(g))
        h = scaled_to(g, boost - new_exponent, WIDE)
        z = scaled_to(tl.where(tl.abs(x) < float("inf"), x, 0.0), z_exponent, WIDE)
        y = divide(z, tl.broadcast_to(root[:, None], z.shape))
        # In two steps: the exponents lie up to twice the normal range apart.
        down = g_exponent - new_exponent
        dot, lost = times_power_of_two(dot, down), times_power_of_two(lost, down)
        dot, lost = add_compensated(dot, lost, tl.sum(y * h, axis=1))
        g_exponent = new_exponent

    # Below eps the gradient is g / eps, element by element; at the zero vector it is 0 by policy.
    zero = saved_root == 0.0
    floored = (below_floor(saved_root, exponent, EPS) | zero) & (saved_root == saved_root)
    floor = tl.full([BLOCK_M], EPS, STATISTICS)
    floor = tl.where(floor > 0.0, floor, 1.0).to(WIDE)
    denominator = tl.where(floored, floor, root)
    reciprocal = 1.0 / denominator
    h_exponent = tl.where(floored, 0, 2 * boost - g_exponent)
    dot = tl.where(floored, 0.0, dot)
    shift = tl.where(floored, 0, g_exponent - exponent)
    if STATISTICS == tl.float64:
        first, second = unboosting_factors(dot, _BOOST)
    # 2**(shift - 2 boost) may lie below twice the normal range: then one half of it comes first.
    early = power_of_two(tl.where((shift < -_BOOST) & ~floored, -2 * boost, 0), WIDE)
    shift = tl.where((shift < -_BOOST) | floored, shift, shift - 2 * boost)
    for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
        columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        mask = inside[:, None] & (columns < n_columns)[None, :]
        offsets = rows[:, None] * n_columns + columns[None, :]
        x = widen(tl.load(x_ptr + offsets, mask=mask, other=0.0), STATISTICS)
        g = widen(tl.load(upstream + offsets, mask=mask, other=0.0), STATISTICS)
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
        out = tl.where((strange & ~floored)[:, None], float("nan"), out)
        tl.store(gradient + offsets, narrow(out, gradient.dtype.element_ty), mask=mask)


# --- operators: allocate and launch ---------------------------------------------------------------


def _grid_and_options(x: Tensor, eps: float) -> tuple[tuple[int], dict[str, Any]]:
    n_rows, n_columns = x.shape
    block_m, block_n = launch.tile(n_rows, n_columns)
    constants = {
        "EPS": eps,
        "STATISTICS": launch.triton_dtype(launch.statistics_dtype(x.dtype)),
        "BLOCK_M": block_m,
        "BLOCK_N": block_n,
        "STATIC_BLOCKS": launch.static_blocks(n_columns, block_n),
    }
    return (triton.cdiv(n_rows, block_m),), constants | launch.OPTIONS


def _empty_outputs(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    exponent = x.new_empty(x.shape[0], dtype=torch.int32)
    root = x.new_empty(x.shape[0], dtype=launch.statistics_dtype(x.dtype))
    return torch.empty_like(x), exponent, root


@torch.library.custom_op("kernels::normalize_forward", mutates_args=())
def forward_op(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """y, the exponent of s, and r, for contiguous (N, K)."""
    if not launch.uses_triton(x):
        return reference.stable_forward(x, eps)
    y, exponent, root = _empty_outputs(x)
    if x.numel():
        grid, options = _grid_and_options(x, eps)
        with launch.on_device(x):
            sums = launch.triton_dtype(launch.sum_dtype(x.dtype))
            _forward_kernel[grid](x, y, exponent, root, *x.shape, SUMS=sums, **options)
    return y, exponent, root


@forward_op.register_fake
def _(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_outputs(x)


@torch.library.custom_op("kernels::normalize_backward", mutates_args=())
def backward_op(upstream: Tensor, x: Tensor, exponent: Tensor, root: Tensor, eps: float) -> Tensor:
    """The gradient of x for an upstream gradient, both contiguous (N, K), from s and r."""
    if not launch.uses_triton(x):
        return reference.stable_backward(upstream, x, exponent, root, eps)
    gradient = torch.empty_like(x)
    if x.numel():
        grid, options = _grid_and_options(x, eps)
        with launch.on_device(x):
            wide = launch.triton_dtype(reference.gradient_dtype(x.dtype))
            _backward_kernel[grid](
                upstream, x, exponent, root, gradient, *x.shape, WIDE=wide, **options
            )
    return gradient


@backward_op.register_fake
def _(upstream: Tensor, x: Tensor, exponent: Tensor, root: Tensor, eps: float) -> Tensor:
    return torch.empty_like(x)


# --- autograd -------------------------------------------------------------------------------------


class Normalize(torch.autograd.Function):
    """y, the exponent of s, and r, for contiguous rows (N, K). Saves the statistics, not y."""

    @staticmethod
    def forward(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        return forward_op(x, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, ctx.eps = inputs
        _, exponent, root = output
        ctx.mark_non_differentiable(exponent, root)
        ctx.save_for_backward(x, exponent, root)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, exponent, root = ctx.saved_tensors
        arguments = (grad.contiguous(), x, exponent, root, ctx.eps)
        return first_order("normalize", backward_op, *arguments), None
