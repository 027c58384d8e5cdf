"""A catalog of kernels with planted faults, for `stability inspect` to find, and a sound one.

Each path computes y = 2 x row by row (`twice` divides by the row's maximum, too). The faults are
those that a kernel's author does not see on a small example: the answers are right.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.operation import ALL_CLAIMS, Draws, Operation, Path, Regime, Roles


@triton.jit
def sound_kernel(x, y, n_columns, BLOCK: tl.constexpr):
    """One read and one write, 16 bytes a lane where rows are aligned."""
    row = tl.program_id(0).to(tl.int64) * n_columns
    for block in range(tl.cdiv(n_columns, BLOCK)):
        columns = block * BLOCK + tl.arange(0, BLOCK)
        mask = columns < n_columns
        tl.store(y + row + columns, tl.load(x + row + columns, mask=mask) * 2, mask=mask)


@triton.jit(do_not_specialize=["stride"])
def narrow_kernel(x, y, n_columns, stride, BLOCK: tl.constexpr):
    """The same through a column stride that the compiler does not know to be 1."""
    row = tl.program_id(0).to(tl.int64) * n_columns
    columns = tl.arange(0, BLOCK)
    mask = columns < n_columns
    value = tl.load(x + row + columns * stride, mask=mask)
    tl.store(y + row + columns * stride, value * 2, mask=mask)


@triton.jit
def twice_kernel(x, y, n_columns, BLOCK: tl.constexpr):
    """Reads each row a second time, although it has it in its registers."""
    row = tl.program_id(0).to(tl.int64) * n_columns
    columns = tl.arange(0, BLOCK)
    mask = columns < n_columns
    top = tl.max(tl.load(x + row + columns, mask=mask, other=0.0), axis=0)
    tl.debug_barrier()
    again = tl.load(x + row + columns, mask=mask, other=0.0, volatile=True)
    tl.store(y + row + columns, again / top, mask=mask)


@triton.jit
def spilling_kernel(x, y, n_columns, BLOCK: tl.constexpr):
    """Holds 512 elements a thread: no register file has room for them."""
    row = tl.program_id(0).to(tl.int64) * n_columns
    columns = tl.arange(0, BLOCK)
    mask = columns < n_columns
    value = tl.load(x + row + columns, mask=mask, other=0.0)
    top = tl.max(value, axis=0)
    value = value - top
    value = value / tl.sum(value, axis=0)
    tl.store(y + row + columns, value, mask=mask)


@triton.jit
def exponential_kernel(x, y, n_columns, BLOCK: tl.constexpr):
    """One exponential an element, on the special-function unit; 9 of 16 lanes at 4,608 columns."""
    row = tl.program_id(0).to(tl.int64) * n_columns
    columns = tl.arange(0, BLOCK)
    mask = columns < n_columns
    value = tl.load(x + row + columns, mask=mask, other=0.0)
    tl.store(y + row + columns, tl.exp2(value), mask=mask)


@triton.jit
def refused_kernel(x, y, n_columns, BLOCK: tl.constexpr):
    """Does not compile."""
    tl.static_assert(BLOCK < 0, "planted")


def launched(kernel: Any, *more: int, **options: int) -> Callable[[Tensor], Tensor]:
    """The path that launches a kernel with a program a row."""

    def path(input: Tensor) -> Tensor:
        y = torch.empty_like(input)
        rows, columns = input.shape
        given = {"BLOCK": triton.next_power_of_2(columns)} | options
        kernel[(rows,)](input, y, columns, *more, **given)
        return y

    return path


def _absent(input: Tensor) -> Tensor:
    raise NotImplementedError("planted: not here")


def _truth(roles: Roles) -> dict[str, Tensor]:
    return {"forward": 2 * roles["input"], "backward": 2 * torch.ones_like(roles["input"])}


def _draw(draws: Draws) -> dict[str, np.ndarray]:
    return {"input": draws.generator("input").standard_normal(draws.shape)}


OPERATIONS = (
    Operation(
        name="double",
        meaning="2 x",
        truth=_truth,
        certified=lambda row: {},
        slack=_truth,
        regimes=(Regime("normal", "Gaussian entries", _draw),),
        paths=(
            Path("sound", launched(sound_kernel, BLOCK=1024)),
            Path("narrow", launched(narrow_kernel, 1)),
            Path("twice", launched(twice_kernel)),
            Path("spilling", launched(spilling_kernel, BLOCK=16384, num_warps=1)),
            Path("exponential", launched(exponential_kernel)),
            Path("refused", launched(refused_kernel), claims=ALL_CLAIMS),
            Path("absent", _absent),
            Path("torch", lambda input: input * 2),
        ),
    ),
)
