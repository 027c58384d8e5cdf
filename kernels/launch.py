"""How kernels are launched: on which device, over which tiles, with which compiler options."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl

from . import launch_table

# Decided where triton decides it: @triton.jit reads the switch while the kernels are being defined.
INTERPRETED: bool = bool(triton.knobs.runtime.interpret)

# Contracting a*b + c into one rounding is allowed and asked for (triton's default changes between
# versions): it only removes roundings, and no kernel here needs a product rounded before it is
# added. Eight warps where a launch does not ask `options`: what the table's usual tile has.
OPTIONS: dict[str, Any] = {"enable_fp_fusion": True, "num_warps": 8}

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
_DTYPE_NAMES = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
}
# The device whose launch shapes CPU tensors get, see `shaped_as`.
_shaped_as: str | None = None
_plain = False  # see `without_interpreter`


def uses_triton(tensor: torch.Tensor) -> bool:
    """Whether this tensor goes through the Triton kernel rather than the stable PyTorch formula."""
    return tensor.is_cuda or (INTERPRETED and not _plain) or _shaped_as is not None


@contextlib.contextmanager
def without_interpreter() -> Iterator[None]:
    """Take the stable formula for CPU tensors although Triton interprets in this process.

    For trainings of thousands of steps beside sweeps of the kernels themselves: the formula is what
    a user without the interpreter gets.
    """
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


@contextlib.contextmanager
def shaped_as(device: str) -> Iterator[None]:
    """Launch the kernels for CPU tensors, too, in the shapes they have on `cuda:90`, `hip:gfx942`.

    For looking at launches: in the interpreter, which otherwise takes fatter tiles, they do the
    memory accesses of that GPU; elsewhere somebody must catch them, since a CPU runs no kernel.
    """
    global _shaped_as
    before, _shaped_as = _shaped_as, device
    try:
        yield
    finally:
        _shaped_as = before


def fat() -> bool:
    """Whether tiles are made for the interpreter: few and fat."""
    return INTERPRETED and _shaped_as is None


def device_of(tensor: torch.Tensor) -> str:
    """The device that a tensor's launch is shaped for: `cuda:90`, `hip:gfx942`, `interpreter`."""
    if _shaped_as is not None:
        return _shaped_as
    return _name_of(tensor.device.index) if tensor.is_cuda else "interpreter"


@functools.cache
def _name_of(index: int | None) -> str:
    properties = torch.cuda.get_device_properties(index)
    if torch.version.hip:
        return f"hip:{properties.gcnArchName.partition(':')[0]}"
    return f"cuda:{properties.major}{properties.minor}"


def shape(family: str, tensor: torch.Tensor, columns: int) -> launch_table.Shape:
    """What the table of launch shapes says for a family of kernels ("normalize_backward")."""
    name = _DTYPE_NAMES[tensor.dtype]
    return launch_table.lookup(family, name, device_of(tensor), columns)


def options(family: str, tensor: torch.Tensor, columns: int, elements: int) -> dict[str, Any]:
    """The compiler's options for a launch whose programs hold so many elements each."""
    # 32 threads a warp but on AMD's data-centre GPUs.
    lanes = 64 if device_of(tensor).startswith("hip:gfx9") else 32
    warps = shape(family, tensor, columns).warps(elements, lanes)
    return OPTIONS | {"num_warps": warps}


def checks_by_default(tensor: torch.Tensor) -> bool:
    """Whether values are looked at unasked: not on a GPU, where looking means waiting."""
    return not tensor.is_cuda


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


# The widest row that one program keeps on chip where the table says nothing else, by dtype of
# statistics.
WIDEST_ON_CHIP = {
    torch.float32: launch_table.USUAL.on_chip,
    torch.float64: launch_table.USUAL.on_chip // 2,
}


def tile(
    rows: int, columns: int, shape: launch_table.Shape = launch_table.USUAL
) -> tuple[int, int]:
    """Rows and columns of one program's tile, both powers of two.

    A GPU program holds several short rows or a piece of a long one, as the table says of the shape;
    narrower pieces where wide ones would leave more than a tenth of their lanes beyond the row's
    end (4,096 for 5,000 columns: 39%; 1,024: 2%). The interpreter runs one program after another at
    a fixed cost an operation, so there few, fat programs are fast.
    """
    elements = 65536 if fat() else shape.tile
    block_n = min(triton.next_power_of_2(max(columns, 1)), 4096 if fat() else shape.tile)
    while block_n > 128 and not fat() and 10 * (-columns % block_n) > columns + -columns % block_n:
        block_n //= 2
    block_m = min(triton.next_power_of_2(max(rows, 1)), max(elements // block_n, 1))
    return block_m, block_n


_PIECE_BYTES = 2**15


def row_pieces(
    columns: int, dtype: torch.dtype, shape: launch_table.Shape = launch_table.USUAL
) -> tuple[int, ...]:
    """The powers of two, largest first, that a row of this many elements is held in, or () for a
    row that does not fit on chip and is looped over.

    A single power of two would leave up to half of the lanes idle (5,000 of 8,192); the pieces
    (4096, 1024) waste at most a tenth. No piece is larger than 32 KiB: what a thread computes of a
    piece it holds in fp32 or fp64 beside the row.
    """
    if columns > shape.on_chip // (2 if dtype == torch.float64 else 1):
        return ()
    pieces: list[int] = []
    rest = max(columns, 1)
    while rest > 0:
        piece = min(triton.next_power_of_2(rest), _PIECE_BYTES // dtype.itemsize)
        if piece > 128 and 10 * (piece - rest) > columns:
            piece //= 2
        pieces.append(piece)
        rest -= piece
    return tuple(pieces)


def row_block(
    rows: int, pieces: tuple[int, ...], shape: launch_table.Shape = launch_table.USUAL
) -> int:
    """Rows of one program whose rows are held in these pieces, a power of two; see `tile`."""
    elements = 65536 if fat() else shape.tile
    most = max(elements // triton.next_power_of_2(sum(pieces)), 1)
    return min(triton.next_power_of_2(max(rows, 1)), most)


def row_launch(
    family: str, tensor: torch.Tensor, rows: int, columns: int, *distances: int
) -> tuple[int, dict[str, Any]]:
    """The number of programs, and the compile-time arguments, of a kernel over contiguous rows.

    PIECES, BLOCK_M, BLOCK_N, STATIC_BLOCKS and UNIT, as the functions here explain them, and the
    compiler's options. `distances` are further strides that UNIT is to divide.
    """
    chosen = shape(family, tensor, columns)
    pieces = row_pieces(columns, tensor.dtype, chosen)
    block_m, block_n = tile(rows, columns, chosen)
    if pieces:
        block_m = row_block(rows, pieces, chosen)
    held = block_m * (sum(pieces) or block_n)
    constants = {
        "PIECES": pieces,
        "BLOCK_M": block_m,
        "BLOCK_N": block_n,
        "STATIC_BLOCKS": static_blocks(columns, block_n),
        "UNIT": unit(tensor, columns, *distances),
    }
    return triton.cdiv(rows, block_m), constants | options(family, tensor, columns, held)


def unit(tensor: torch.Tensor, *distances: int) -> int:
    """The largest power of two that divides all distances (a row's length and stride, in elements
    of the tensor), up to 16 bytes' worth: what `known_multiple` may promise of them.
    """
    elements = 16 // tensor.element_size()
    while elements > 1 and any(each % elements for each in distances):
        elements //= 2
    return elements


@triton.jit
def known_multiple(number, UNIT: tl.constexpr):
    """The same number, which the compiler then knows to be a multiple of UNIT.

    Triton itself looks only for multiples of 16. Rows of 5,000 bf16 elements are none, and without
    this would be loaded two bytes at a time, although each begins on a 16-byte boundary.
    """
    if UNIT > 1:
        return number // UNIT * UNIT
    else:
        return number


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
