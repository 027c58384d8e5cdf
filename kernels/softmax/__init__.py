"""softmax and log_softmax: probabilities and their logarithms, right from the smallest subnormal
to the largest finite value.

Promise: a finite, accurate result and gradient wherever the truth is representable, masks (-inf)
and confident rows included; non-finite inputs as torch treats them, each row on its own; inputs
never modified.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import launch
from .autograd import Softmax

__all__ = ["log_softmax", "softmax"]


def softmax(input: Tensor, dim: int = -1, dtype: torch.dtype | None = None) -> Tensor:
    """exp(x_i) / sum_j exp(x_j) along a dimension, as torch.softmax defines it.

    Args:
        input: any shape, in fp16, bf16, fp32 or fp64 (any dtype where `dtype` is given).
        dim: the dimension along which the probabilities add up to 1.
        dtype: fp16, bf16, fp32 or fp64: what the input is cast to first. None: its own.

    Returns:
        The probabilities, in the input's shape, in `dtype`. -inf has probability 0; a row of
        nothing else is NaN, as is one that holds a NaN or +inf.

    Raises:
        TypeError: on a dtype that is not listed above.
        IndexError: on a dimension that the input does not have.

    The formula (see `kernels.softmax.fused`) is within 2 ULP for every probability down to the
    smallest subnormal. The gradient is formed from the input, not from rounded probabilities.
    Second derivatives and torch.func's transforms work; forward mode raises.

    >>> import torch
    >>> softmax(torch.tensor([[1e4, 1e4, 0.0], [-float("inf"), 0.0, 0.0]]))
    tensor([[0.5000, 0.5000, 0.0000],
            [0.0000, 0.5000, 0.5000]])
    >>> softmax(torch.tensor([0.0, -100.0]))
    tensor([1.0000e+00, 3.7835e-44])
    >>> softmax(torch.zeros(2, 3, 5).half(), dim=1, dtype=torch.float32).dtype
    torch.float32
    """
    return _apply(input, dim, dtype, log=False)


def log_softmax(input: Tensor, dim: int = -1, dtype: torch.dtype | None = None) -> Tensor:
    """x_i - log sum_j exp(x_j) along a dimension, as torch.log_softmax defines it.

    Args, errors and non-finite inputs: as `softmax`; the logarithm of probability 0 is -inf.

    The result is within 2 ULP, relatively, even where a probability rounds to 1 (there it is minus
    the sum of the others') or the input's common offset is large. It is returned in the input's
    dtype, or in `dtype`: in fp16, a logarithm below -65504 is -inf.

    >>> import torch
    >>> log_softmax(torch.tensor([[30.0, 0.0], [1e30, -1e30]]))
    tensor([[-9.3576e-14, -3.0000e+01],
            [ 0.0000e+00, -2.0000e+30]])
    >>> torch.log_softmax(torch.tensor([30.0, 0.0]), -1)  # what it is without such care
    tensor([  0., -30.])
    >>> log_softmax(torch.zeros(2, 3, 5), dim=0).shape
    torch.Size([2, 3, 5])
    """
    return _apply(input, dim, dtype, log=True)


def _apply(input: Tensor, dim: int, dtype: torch.dtype | None, *, log: bool) -> Tensor:
    _validate(input, dim, dtype)
    dtype = dtype or input.dtype
    if input.dim() == 0:
        return _apply(input.reshape(1), 0, dtype, log=log).reshape(())
    half = input.dtype in (torch.float16, torch.bfloat16)
    if not (half and dtype == torch.float32):  # else the kernel widens while it reads
        input = input.to(dtype)
    y: Tensor = Softmax.apply(input.movedim(dim, -1), log, dtype)[0]
    return y.movedim(-1, dim)


def _validate(input: Tensor, dim: int, dtype: torch.dtype | None) -> None:
    if dtype is None and not launch.is_supported(input.dtype):
        raise TypeError(
            f"input must be fp16, bf16, fp32 or fp64, or be cast by dtype=; got {input.dtype}"
        )
    if dtype is not None and not launch.is_supported(dtype):
        raise TypeError(f"dtype must be fp16, bf16, fp32 or fp64, got {dtype}")
    n_dims = max(input.dim(), 1)
    if not -n_dims <= dim < n_dims:
        raise IndexError(
            f"dim must be within [{-n_dims}, {n_dims - 1}] for an input of shape "
            f"{tuple(input.shape)}, got {dim}"
        )
