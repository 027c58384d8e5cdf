"""How the norms' kernels are launched: over rows, and over chunks of rows for sums over them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from . import launch
from .norm_parameters import sum_chunks_kernel
from .norms import is_scaled, least_exponent

_MOST_CHUNKS = 128  # of rows, each with a partial sum a column, where columns are shared out, too
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


# --- sums over rows -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chunked:
    """A launch over chunks of rows, each of which leaves a partial sum of every column."""

    n_rows: int
    grid: tuple[int, ...]
    chunks: int
    blocks: int  # of rows in a chunk
    constants: dict[str, Any]


def by_columns(family: str, x: Tensor, elements: torch.dtype) -> Chunked:
    """Programs for a block of columns each, in as many chunks of rows as fill the GPU."""
    n_columns = x.shape[-1]
    n_rows = x.numel() // n_columns
    if launch.fat():
        block_m, block_n = launch.tile(n_rows, n_columns)
        wanted = 4
    else:
        # 128 columns keep loads wide; rows make up a tile of 4096.
        block_m, block_n = min(32, triton.next_power_of_2(max(n_rows, 1))), 128
        wanted = 4 * _multiprocessors(x)
    column_blocks = triton.cdiv(n_columns, block_n)
    wanted = min(wanted // column_blocks, _MOST_CHUNKS)
    blocks, chunks = _cut(triton.cdiv(n_rows, block_m), wanted)
    constants = {
        "ELEMENTS": launch.triton_dtype(elements),
        "EXTENDED": x.dtype == torch.float64,
        "BLOCK_M": block_m,
        "BLOCK_N": block_n,
        "STATIC_BLOCKS": launch.static_blocks(blocks, 1),
        "UNIT": launch.unit(x, n_columns),
    } | launch.options(family, x, n_columns, block_m * block_n)
    return Chunked(n_rows, (column_blocks, chunks), chunks, blocks, constants)


def by_rows(family: str, x: Tensor, elements: torch.dtype) -> Chunked | None:
    """Programs for a chunk of whole rows each; None where no program can hold a row and its sums.

    How many does not depend on the GPU, so that its sums are the same bits on any: one for 64 rows,
    from 128 on, which occupy a GPU's multiprocessors, up to 256. Writing and reading the partial
    sums moves 4% of what the rows take in bf16, twice that for 4,096 rows.
    """
    if x.dtype == torch.float64:
        return None
    n_columns = x.shape[-1]
    n_rows = x.numel() // n_columns
    row_blocks, constants = launch.row_launch(family, x, n_rows, n_columns)
    if not constants["PIECES"]:
        return None
    wanted = 4 if launch.fat() else min(max(n_rows // 64, 128), 256)
    blocks, chunks = _cut(row_blocks, wanted)
    del constants["BLOCK_N"]
    constants |= {
        "ELEMENTS": launch.triton_dtype(elements),
        "STATIC_BLOCKS": launch.static_blocks(blocks, 1),
    }
    return Chunked(n_rows, (chunks,), chunks, blocks, constants)


def _cut(row_blocks: int, wanted: int) -> tuple[int, int]:
    """Blocks of rows in a chunk, and chunks: no more than wanted, none of them empty."""
    blocks = triton.cdiv(row_blocks, max(min(wanted, row_blocks), 1))
    return blocks, triton.cdiv(row_blocks, blocks)


def partial_sums(x: Tensor, chunks: int) -> Tensor:
    """Where the sums of chunks are put; those of fp64 inputs are pairs with exponents."""
    parts = 2 if x.dtype == torch.float64 else 1
    return x.new_empty((parts, chunks, x.shape[-1]), dtype=torch.float64)


def add_up(partial: Tensor, gradient: Tensor) -> None:
    """Add up the sums of chunks, into the gradient of a parameter."""
    parts, n_chunks, n_columns = partial.shape
    chunks = triton.next_power_of_2(n_chunks)
    # At most 8,192 sums a program, 32 a thread.
    block_n = launch.tile(chunks, n_columns)[1] if launch.fat() else 8192 // max(chunks, 128)
    sum_chunks_kernel[(triton.cdiv(n_columns, block_n),)](
        partial,
        gradient,
        n_chunks,
        n_columns,
        EXTENDED=parts == 2,
        CHUNKS=chunks,
        BLOCK_N=block_n,
        **launch.OPTIONS,
    )


def _multiprocessors(x: Tensor) -> int:
    return _count(x.device.index) if x.is_cuda else _SMS


@functools.cache
def _count(index: int | None) -> int:
    return int(torch.cuda.get_device_properties(index).multi_processor_count)
