"""How the norms' kernels are launched: over rows, and over columns for sums over rows."""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
from torch import Tensor

from . import launch
from .norm_gradients import _sum_chunks_kernel
from .norms import is_scaled, least_exponent

_MOST_CHUNKS = 128  # of rows, each with a partial sum a column
_SMS = 132  # where there is no GPU to ask: a Hopper's


def row_constants(family: str, x: Tensor, elements: torch.dtype) -> tuple[int, int, dict[str, Any]]:
    """The number of rows, of programs, and the compile-time arguments of a kernel over rows."""
    n_columns = x.shape[-1]
    n_rows = x.numel() // n_columns
    programs, options = launch.row_launch(family, x, n_rows, n_columns)
    constants = {
        "ELEMENTS": launch.triton_dtype(elements),
        "EXTENDED": x.dtype == torch.float64,
    }
    return n_rows, programs, constants | options


def scale_constants(x: Tensor, eps: float) -> dict[str, Any]:
    """The further compile-time arguments of a forward kernel."""
    return {"EPS": eps, "LEAST": least_exponent(eps, x.dtype), "SCALED": is_scaled(x.dtype)}


class ColumnSums:
    """Sums over the rows of x, a column each, in two deterministic steps."""

    def __init__(self, family: str, x: Tensor, elements: torch.dtype) -> None:
        self.n_columns = x.shape[-1]
        self.n_rows = x.numel() // self.n_columns
        self.extended = x.dtype == torch.float64
        if launch.fat():
            block_m, block_n = launch.tile(self.n_rows, self.n_columns)
            wanted = 4
        else:
            # 128 columns keep loads wide; rows make up a tile of 4096.
            block_m, block_n = min(32, triton.next_power_of_2(max(self.n_rows, 1))), 128
            wanted = 4 * _multiprocessors(x)
        row_blocks = triton.cdiv(self.n_rows, block_m)
        column_blocks = triton.cdiv(self.n_columns, block_n)
        chunks = max(min(wanted // column_blocks, _MOST_CHUNKS, row_blocks), 1)
        self.blocks_per_chunk = triton.cdiv(row_blocks, chunks)
        self.chunks = triton.cdiv(row_blocks, self.blocks_per_chunk)
        self.grid = (column_blocks, self.chunks)
        self.block_n = block_n
        self.constants = {
            "ELEMENTS": launch.triton_dtype(elements),
            "EXTENDED": self.extended,
            "BLOCK_M": block_m,
            "BLOCK_N": block_n,
            "STATIC_BLOCKS": launch.static_blocks(self.blocks_per_chunk, 1),
        } | launch.options(family, x, self.n_columns, block_m * block_n)

    def partial(self, x: Tensor) -> Tensor:
        """Where the first step puts its sums."""
        parts = 2 if self.extended else 1
        return x.new_empty((parts, self.chunks, self.n_columns), dtype=torch.float64)

    def finish(self, partial: Tensor, gradient: Tensor) -> None:
        """The second step: add up the chunks, into the parameter's gradient."""
        chunks = triton.next_power_of_2(self.chunks)
        block_n = self.block_n if launch.fat() else 64
        _sum_chunks_kernel[(triton.cdiv(self.n_columns, block_n),)](
            partial,
            gradient,
            self.chunks,
            self.n_columns,
            EXTENDED=self.extended,
            CHUNKS=chunks,
            BLOCK_N=block_n,
            **launch.OPTIONS,
        )


def _multiprocessors(x: Tensor) -> int:
    return _count(x.device.index) if x.is_cuda else _SMS


@functools.cache
def _count(index: int | None) -> int:
    return int(torch.cuda.get_device_properties(index).multi_processor_count)
