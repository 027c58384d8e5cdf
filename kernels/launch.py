"""How kernels are launched: on which device, over which tiles, with which compiler options."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import triton
import triton.language as tl

# Decided where triton decides it: @triton.jit reads the switch while the kernels are being defined.
INTERPRETED: bool = bool(triton.knobs.runtime.interpret)

# Contracting a*b + c into one rounding is allowed and asked for (triton's default changes between
# versions): it only removes roundings, and no kernel here needs a product rounded before it is
# added.
OPTIONS: dict[str, Any] = {"enable_fp_fusion": True}

_STATISTICS = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
}
# Sums are held wider still where the output has the statistics' own precision: an fp32 gradient is
# to be right to 2 ULP.
_SUMS = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float32: torch.float64,
    torch.float64: torch.float64,
}
_TRITON_DTYPE = {torch.float32: tl.float32, torch.float64: tl.float64}


def uses_triton(tensor: torch.Tensor) -> bool:
    """Whether this tensor goes through the Triton kernel rather than the stable PyTorch formula."""
    return tensor.is_cuda or INTERPRETED


def is_supported(dtype: torch.dtype) -> bool:
    """Whether the kernels take inputs of this dtype."""
    return dtype in _STATISTICS


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that maxima, exponentials and norms are held in: fp32, or fp64 for fp64 inputs."""
    return _STATISTICS[dtype]


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a row's sum: fp32 for half precision, fp64 for fp32 and fp64 inputs."""
    return _SUMS[dtype]


def triton_dtype(dtype: torch.dtype) -> tl.dtype:
    """Triton's name for a dtype of statistics or sums."""
    return _TRITON_DTYPE[dtype]


def on_device(tensor: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    """Make the tensor's GPU the current one for a launch; nothing to do on the CPU."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def tile(rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns of one program's tile, both powers of two.

    A GPU program holds about 4k elements, several short rows or a piece of a long one. The
    interpreter runs one program after another at a fixed cost an operation, so there few, fat
    programs are fast.
    """
    elements, widest = (65536, 4096) if INTERPRETED else (4096, 4096)
    block_n = min(triton.next_power_of_2(max(columns, 1)), widest)
    block_m = min(triton.next_power_of_2(max(rows, 1)), max(elements // block_n, 1))
    return block_m, block_n


def static_blocks(columns: int, block_n: int) -> int:
    """The number of column blocks as a compile-time constant in the interpreter, 0 (find it at run
    time) elsewhere.

    The interpreter of triton 3.6 cannot loop up to a run-time number with NumPy 2.4; a GPU kernel
    compiled anew for every width would be a waste.
    """
    return triton.cdiv(columns, block_n) if INTERPRETED else 0


@triton.jit
def block_count(columns, BLOCK_N: tl.constexpr, STATIC_BLOCKS: tl.constexpr):
    """The number of column blocks, see `static_blocks`."""
    if STATIC_BLOCKS > 0:
        return STATIC_BLOCKS
    else:
        return tl.cdiv(columns, BLOCK_N)
