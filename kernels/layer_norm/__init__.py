"""Layer normalisation: (x - mean) / sqrt(var + eps) * weight + bias, over the dtype's whole range.

Promises: finite, accurate values and gradients wherever the truth is representable, under a large
offset, too; constant rows give exactly the bias; non-finite inputs as torch treats them, never
spreading to other rows; inputs never modified.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .. import norm_arguments
from .autograd import LayerNorm

__all__ = ["layer_norm"]


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Subtract the mean, divide by the standard deviation, as torch.nn.functional.layer_norm does.

    Args:
        input: any shape that ends in normalized_shape, in fp16, bf16, fp32 or fp64.
        normalized_shape: the trailing dimensions that mean and variance are taken over, (hidden
            size,) as a rule; any product of them, 262,144 and more.
        weight, bias: of shape normalized_shape, in the input's dtype or another no wider than fp32
            (for fp64 inputs, than fp64): fp32 beside half-precision inputs, as mixed precision has
            them.
        eps: added to the variance, exactly as given, whatever the dtype.

    Returns:
        (input - mean) / sqrt(var + eps) * weight + bias, the variance biased, in the input's shape
        and dtype.

    Raises:
        TypeError: on a dtype that is not listed above.
        ValueError: on a normalized_shape that is empty or not the input's end; on a parameter of
            another shape; on an eps that is negative, NaN or infinite.

    The formula is in `kernels.layer_norm.fused`. With eps=0 a constant row gives the bias, and, by
    policy, a zero gradient. Second derivatives and torch.func's transforms work; forward mode
    raises.

    >>> import torch
    >>> layer_norm(torch.tensor([[6e4, -6e4], [1e4, 1e4]], dtype=torch.float16), (2,))
    tensor([[ 1., -1.],
            [ 0.,  0.]], dtype=torch.float16)
    >>> layer_norm(torch.tensor([1e8, 1e8 + 8, 1e8 + 16]), (3,))
    tensor([-1.2247,  0.0000,  1.2247])
    >>> layer_norm(torch.randn(2, 3, 5), (3, 5)).shape
    torch.Size([2, 3, 5])
    """
    n_columns = norm_arguments.validate(input, normalized_shape, eps, weight=weight, bias=bias)
    rows = norm_arguments.as_rows(input, normalized_shape, n_columns)
    flat = (None if each is None else each.reshape(n_columns) for each in (weight, bias))
    y: Tensor = LayerNorm.apply(rows, *flat, float(eps))[0]
    return y.reshape(input.shape)
