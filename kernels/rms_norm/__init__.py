"""RMS normalisation: x / sqrt(mean(x**2) + eps) * weight, over the dtype's whole range.

Promises: finite, accurate values and gradients wherever the truth is representable; rows of zeros
give zeros; non-finite inputs as torch treats them, never spreading to other rows; inputs never
modified.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import launch, norm_arguments
from .autograd import RMSNorm

__all__ = ["rms_norm"]


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Divide by the root of the mean square, as torch.nn.functional.rms_norm defines it.

    Args:
        input: any shape that ends in normalized_shape, in fp16, bf16, fp32 or fp64.
        normalized_shape: the trailing dimensions that a mean is taken over, (hidden size,) as a
            rule; any product of them, 262,144 and more.
        weight: of shape normalized_shape, in the input's dtype or another no wider than fp32 (for
            fp64 inputs, than fp64): fp32 beside half-precision inputs, as mixed precision has it.
        eps: added to the mean square, exactly as given, whatever the dtype. None is the rounding
            unit `torch.finfo(dtype).eps` of fp32, or of fp64 for fp64 inputs: PyTorch computes half
            precision in fp32, and takes fp32's.

    Returns:
        input / sqrt(mean(input**2) + eps) * weight, in the input's shape and dtype.

    Raises:
        TypeError: on a dtype that is not listed above.
        ValueError: on a normalized_shape that is empty or not the input's end; on a weight of
            another shape; on an eps that is negative, NaN or infinite.

    The formula (see `kernels.rms_norm.fused`) scales by powers of two or computes wider, so no
    square overflows or vanishes, whatever the weight. With eps=0 a row of zeros gives zeros, and,
    by policy, a zero gradient. Second derivatives and torch.func's transforms work; forward mode
    raises.

    >>> import torch
    >>> rms_norm(torch.tensor([[3e4, 4e4], [0.0, 0.0]], dtype=torch.float16), (2,))
    tensor([[0.8486, 1.1318],
            [0.0000, 0.0000]], dtype=torch.float16)
    >>> rms_norm(torch.tensor([3e38, 4e-38]), (2,), weight=torch.tensor([1.0, 1e38]))
    tensor([1.4142e+00, 1.8856e-38])
    >>> rms_norm(torch.randn(2, 3, 5), (3, 5)).shape
    torch.Size([2, 3, 5])
    """
    if eps is None:
        if not launch.is_supported(input.dtype):
            raise TypeError(f"input must be fp16, bf16, fp32 or fp64, got {input.dtype}")
        eps = torch.finfo(launch.statistics_dtype(input.dtype)).eps
    n_columns = norm_arguments.validate(input, normalized_shape, eps, weight=weight)
    rows = norm_arguments.as_rows(input, normalized_shape, n_columns)
    flat = None if weight is None else weight.reshape(n_columns)
    y: Tensor = RMSNorm.apply(rows, flat, float(eps))[0]
    return y.reshape(input.shape)
