"""Powers of two on tensors: exact to apply and to undo, so that products and sums are formed where
nothing overflows and nothing that counts is lost.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The exponent of zero and of what is not finite: below every true one, and sums of three of them
# still fit int32.
NONE = -100_000


def power_of_two(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """2**exponent, exactly, from the exponent bits; the exponent within the normal range of fp32 or
    fp64.
    """
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    if not torch.compiler.is_compiling() and wrapped(exponent):
        # torch 2.11 cannot look at other dtypes' bits under vmap.
        return torch.ldexp(torch.ones_like(exponent, dtype=dtype), exponent)
    if dtype == torch.float64:
        return ((exponent.to(torch.int64) + 1023) << 52).view(torch.float64)
    return ((exponent.to(torch.int32) + 127) << 23).view(torch.float32)


def exponents(value: Tensor) -> Tensor:
    """Element by element the k with 2**k <= |value| < 2**(k+1); `NONE` for zero, infinity, NaN."""
    value = value.detach()
    usable = torch.isfinite(value) & (value != 0)
    return torch.where(usable, torch.frexp(value).exponent - 1, NONE)


def halves(exponent: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two powers of two on the same side of 1 whose product is 2**exponent, up to twice the normal
    range: multiplied by one after the other, a value overflows or vanishes only if it must.
    """
    limit = 2044 if dtype == torch.float64 else 252
    exponent = exponent.clamp(-limit, limit)
    half = exponent >> 1
    return power_of_two(half, dtype), power_of_two(exponent - half, dtype)


def shifted(value: Tensor, exponent: Tensor) -> Tensor:  # fp32 or fp64, int32; broadcast
    """value * 2**exponent, up to twice the normal range."""
    first, second = halves(exponent, value.dtype)
    return value * first * second


def log2_above(n: int) -> int:
    """The smallest k with 2**k >= n: the room that a sum of n terms below 1 needs."""
    return max(n - 1, 0).bit_length()
