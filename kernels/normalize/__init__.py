"""Vectors of length one: x / max(||x||, eps), right from the smallest subnormal to the largest
finite value.

Promises: a finite, accurate direction and gradient wherever the truth is representable; a zero
vector's direction is zero, and so, by policy, is its gradient; non-finite inputs as torch treats
them; inputs never modified.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import launch
from .autograd import Normalize

__all__ = ["normalize"]


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """Divide by the p-norm along a dimension, as torch.nn.functional.normalize defines it.

    Args:
        input: any shape, in fp16, bf16, fp32 or fp64.
        p: the norm's exponent, within [0, inf]. The Euclidean norm, 2.0, is fused; any other goes
            through a stable PyTorch formula, on a GPU too.
        dim: the dimension along which each vector lies.
        eps: the norm's floor, held in fp32 (fp64 for fp64 inputs) whatever the input's dtype. 0
            means no floor.

    Returns:
        input / max(norm, eps), in the input's shape and dtype.

    Raises:
        TypeError: on a dtype that is not listed above.
        ValueError: on a p that is negative or NaN; on an eps that is negative, NaN or too large for
            the dtype.
        IndexError: on a dimension that the input does not have.

    The formula (see `kernels.normalize.fused`) scales by powers of two, so no square overflows or
    vanishes. The zero vector goes to the zero vector, and its gradient is zero: any other choice, 1
    / eps included, does not fit fp16. Second derivatives and torch.func's transforms work; forward
    mode raises.

    >>> import torch
    >>> normalize(torch.tensor([[6e4, 0.0, 6e4], [0.0, 0.0, 0.0]], dtype=torch.float16))
    tensor([[0.7070, 0.0000, 0.7070],
            [0.0000, 0.0000, 0.0000]], dtype=torch.float16)
    >>> normalize(torch.tensor([3e-45, 4e-45]), dim=0, eps=0.0)
    tensor([0.5547, 0.8321])
    >>> normalize(torch.randn(2, 3, 5), dim=-1).shape
    torch.Size([2, 3, 5])
    """
    _validate(input, p, dim, eps)
    if input.dim() == 0:
        return normalize(input.reshape(1), p, 0, eps).reshape(())
    moved = input.movedim(dim, -1)
    y: Tensor = Normalize.apply(moved, float(p), float(eps))[0]
    return y.movedim(-1, dim)


def _validate(input: Tensor, p: float, dim: int, eps: float) -> None:
    if not p >= 0.0:
        raise ValueError(f"p must be the exponent of a norm, 0 or above, inf included; got p={p}")
    if not launch.is_supported(input.dtype):
        raise TypeError(f"input must be fp16, bf16, fp32 or fp64, got {input.dtype}")
    n_dims = max(input.dim(), 1)
    if not -n_dims <= dim < n_dims:
        raise IndexError(
            f"dim must be within [{-n_dims}, {n_dims - 1}] for an input of shape "
            f"{tuple(input.shape)}, got {dim}"
        )
    largest = torch.finfo(launch.statistics_dtype(input.dtype)).max
    if not (math.isfinite(eps) and 0.0 <= eps <= largest):
        raise ValueError(f"eps must be within [0, {largest}] for {input.dtype}, got {eps}")
