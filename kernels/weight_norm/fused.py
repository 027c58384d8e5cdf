"""Squared row norms and the gradient's projection: the Triton kernels and the operators.

A row's squared norm is a pair, exponent and square: ||v||**2 = square * 4**exponent, with the
exponent that of the row's largest finite element (see `kernels.normalize.fused`), so that nothing
overflows or vanishes. Only rows that a mask selects are read: where an inferred norm was found
wrong, that row alone is computed again, and which rows they are is never asked by the host.

The gradient of v is the weight's own size, so a pass over it costs what the inference saves. Its
second term, the projection, is therefore subtracted in one pass, which also sums the squares of
what it writes.
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
    exponent_of,
    power_of_two,
    sum_squares,
    times_power_of_two,
)
from ..normalize.fused import scale_exponent
from . import reference

# --- kernels --------------------------------------------------------------------------------------


@triton.jit
def _row_squares_kernel(
    v_ptr,  # (N, K) contiguous
    selected_ptr,  # (N,) int8: 0 leaves a row's pair as it is
    exponent_ptr,  # (N,) int32, in place
    square_ptr,  # (N,) in place; NaN or inf for a row that holds one
    n_rows,
    n_columns,
    STATISTICS: tl.constexpr,
    SUMS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STATIC_BLOCKS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    selected = tl.load(selected_ptr + rows, mask=rows < n_rows, other=0) != 0
    if tl.max(selected.to(tl.int32), axis=0) > 0:
        exponent = exponent_of(tl.zeros([BLOCK_M], STATISTICS))
        squares = tl.zeros([BLOCK_M], SUMS)
        lost = tl.zeros([BLOCK_M], SUMS)
        strange = tl.zeros([BLOCK_M], tl.int32)  # 1: the row holds an infinity, 2: a NaN
        for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
            columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
            mask = selected[:, None] & (columns < n_columns)[None, :]
            v = tl.load(v_ptr + rows[:, None] * n_columns + columns[None, :], mask=mask, other=0.0)
            v = widen(v, STATISTICS)
            finite = tl.abs(v) < float("inf")
            kind = tl.where(finite, 0, tl.where(v == v, 1, 2))
            strange = tl.maximum(strange, tl.max(kind, axis=1))
            v = tl.where(finite, v, 0.0)
            new_exponent = tl.maximum(exponent, scale_exponent(v))
            z = v * power_of_two(-new_exponent, STATISTICS)[:, None]
            down = power_of_two(exponent, STATISTICS) * power_of_two(-new_exponent, STATISTICS)
            down = (down * down).to(SUMS)
            squares, lost = add_compensated(squares * down, lost * down, sum_squares(z, SUMS))
            exponent = new_exponent
        square = squares.to(STATISTICS)
        square = tl.where(strange == 0, square, tl.where(strange == 1, float("inf"), float("nan")))
        tl.store(exponent_ptr + rows, exponent, mask=selected)
        tl.store(square_ptr + rows, square, mask=selected)


@triton.jit
def _project_kernel(
    u_ptr,  # (N, K) contiguous, fp32 or fp64
    v_ptr,  # (N, K) contiguous
    exponent_ptr,  # (N,) int32: v's scale
    along_ptr,  # (N,) what to subtract of v / 2**exponent
    shift_ptr,  # (N,) int32
    gradient,  # (N, K) out
    square_ptr,  # (N,) out
    n_rows,
    n_columns,
    STATISTICS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STATIC_BLOCKS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = rows < n_rows
    exponent = tl.load(exponent_ptr + rows, mask=inside, other=0)
    along = tl.load(along_ptr + rows, mask=inside, other=0.0)
    shift = tl.load(shift_ptr + rows, mask=inside, other=0)
    squares = tl.zeros([BLOCK_M], STATISTICS)
    for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
        columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        mask = inside[:, None] & (columns < n_columns)[None, :]
        offsets = rows[:, None] * n_columns + columns[None, :]
        v = widen(tl.load(v_ptr + offsets, mask=mask, other=0.0), STATISTICS)
        u = tl.load(u_ptr + offsets, mask=mask, other=0.0)
        d = u - along[:, None] * (v * power_of_two(-exponent, STATISTICS)[:, None])
        squares += tl.sum(d * d, axis=1)
        out = times_power_of_two(d, tl.broadcast_to(shift[:, None], d.shape))
        tl.store(gradient + offsets, narrow(out, gradient.dtype.element_ty), mask=mask)
    tl.store(square_ptr + rows, squares, mask=inside)


# --- operators: allocate and launch ---------------------------------------------------------------


def _grid_and_options(v: Tensor) -> tuple[tuple[int], dict[str, Any]]:
    n_rows, n_columns = v.shape
    block_m, block_n = launch.tile(n_rows, n_columns)
    constants = {
        "STATISTICS": launch.triton_dtype(launch.statistics_dtype(v.dtype)),
        "BLOCK_M": block_m,
        "BLOCK_N": block_n,
        "STATIC_BLOCKS": launch.static_blocks(n_columns, block_n),
    }
    return (triton.cdiv(n_rows, block_m),), constants | launch.OPTIONS


def update_row_squares(v: Tensor, selected: Tensor, exponent: Tensor, square: Tensor) -> None:
    """Compute the pairs of the selected rows of v (N, K) again, in place; the others stay."""
    v = v.detach().contiguous()
    if not launch.uses_triton(v):
        reference.update_row_squares(v, selected, exponent, square)
    elif v.shape[0]:
        grid, options = _grid_and_options(v)
        sums = launch.triton_dtype(launch.sum_dtype(v.dtype))
        chosen = selected.to(torch.int8)
        with launch.on_device(v):
            _row_squares_kernel[grid](v, chosen, exponent, square, *v.shape, SUMS=sums, **options)


def _empty_pair(v: Tensor) -> tuple[Tensor, Tensor]:
    statistics = launch.statistics_dtype(v.dtype)
    n_rows = v.shape[0]
    return v.new_zeros(n_rows, dtype=torch.int32), v.new_zeros(n_rows, dtype=statistics)


@torch.library.custom_op("kernels::weight_norm_row_squares", mutates_args=())
def row_squares(v: Tensor) -> tuple[Tensor, Tensor]:
    """The exponent (N,) int32 and the square (N,) of every row of v (N, K)."""
    exponent, square = _empty_pair(v)
    update_row_squares(v, v.new_ones(v.shape[0], dtype=torch.bool), exponent, square)
    return exponent, square


@row_squares.register_fake
def _(v: Tensor) -> tuple[Tensor, Tensor]:
    return _empty_pair(v)


@row_squares.register_vmap
def _(info: Any, in_dims: tuple[int | None], v: Tensor) -> Any:
    (dim,) = in_dims
    assert dim is not None
    stacked = v.movedim(dim, 0)
    exponent, square = row_squares(stacked.flatten(0, 1))
    shape = stacked.shape[:2]
    return (exponent.reshape(shape), square.reshape(shape)), (0, 0)


def _empty_gradient(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(v, memory_format=torch.contiguous_format), u.new_empty(u.shape[0])


@torch.library.custom_op("kernels::weight_norm_project", mutates_args=())
def project(
    u: Tensor,  # (N, K)
    v: Tensor,  # (N, K)
    exponent: Tensor,  # (N,)
    along: Tensor,  # (N,)
    shift: Tensor,  # (N,)
    squared: bool,
) -> tuple[Tensor, Tensor]:
    """d * 2**shift in v's dtype, and the sum of d**2, for d = u - along * v / 2**exponent.

    The kernel has the squares at hand; the PyTorch formula needs another pass over d, and without
    `squared` returns zeros.
    """
    v = v.contiguous()
    if not launch.uses_triton(v):
        return reference.project(u, v, exponent, along, shift, squared)
    gradient, squares = _empty_gradient(u, v)
    if v.shape[0]:
        grid, options = _grid_and_options(v)
        with launch.on_device(v):
            _project_kernel[grid](
                u.contiguous(), v, exponent, along, shift, gradient, squares, *v.shape, **options
            )
    return gradient, squares


@project.register_fake
def _(
    u: Tensor, v: Tensor, exponent: Tensor, along: Tensor, shift: Tensor, squared: bool
) -> tuple[Tensor, Tensor]:
    return _empty_gradient(u, v)


@project.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
    *tensors, squared = arguments
    stacked = [
        tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, in_dims[:-1], strict=True)
    ]
    gradient, squares = project(*(each.flatten(0, 1) for each in stacked), squared)
    shape = stacked[0].shape
    return (gradient.reshape(shape), squares.reshape(shape[:2])), (0, 0)
