"""Binary cross-entropy with logits, accurate over the whole range of every dtype.

Promises: a finite, accurate loss and gradient wherever the truth is representable, a mean that is
finite whenever the true mean is, non-finite elements as torch treats them, each on its own; inputs
never modified.
"""

from __future__ import annotations

from torch import Tensor

from .. import launch
from .autograd import BinaryCrossEntropy

__all__ = ["binary_cross_entropy_with_logits"]

_REDUCTIONS = ("mean", "sum", "none")


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """The binary cross-entropy of logits, as torch.nn.functional.binary_cross_entropy_with_logits
    defines it.

    Args:
        input: logits, any shape, in fp16, bf16, fp32 or fp64.
        target: probabilities within [0, 1], the input's shape, in one of the same dtypes.
        weight: a factor of each loss, of a shape that broadcasts to the input's.
        reduction: "mean" over all elements, as torch's, whatever the weights; "sum" or "none".
        pos_weight: a factor of the positive class's part, of a shape that broadcasts to the
            input's: (C,) for input (N, C).

    Returns:
        The loss, in fp32 (fp64 for fp64 logits): a scalar, or the input's shape for "none". The
        mean is finite whenever the true mean is, even where the sum overflows.

    Raises:
        TypeError: on a dtype that is not listed above.
        ValueError: on shapes or devices that do not go together, or an unknown reduction.

    The formula is in `kernels.binary_cross_entropy.fused`; every term of it is nonnegative for
    targets within [0, 1] and weights of at least 0. The gradient of the logits is accurate for
    upstream gradients up to 2**64. Target and weights have gradients too. Second derivatives and
    torch.func's transforms work; forward mode raises.

    >>> import torch
    >>> logits, target = torch.tensor([-200.0, 0.0, 200.0]), torch.tensor([1.0, 0.5, 1.0])
    >>> binary_cross_entropy_with_logits(logits, target, reduction="none")
    tensor([200.0000,   0.6931,   0.0000])
    >>> binary_cross_entropy_with_logits(torch.zeros(4, 3), torch.ones(4, 3)).shape
    torch.Size([])
    """
    _validate(input, target, reduction)
    weights = []
    for name, factor in (("weight", weight), ("pos_weight", pos_weight)):
        weights.append(None if factor is None else _expanded(name, factor, input))
    loss: Tensor = BinaryCrossEntropy.apply(input, target, *weights, reduction, input.dim())
    return loss


def _expanded(name: str, factor: Tensor, input: Tensor) -> Tensor:
    if not launch.is_supported(factor.dtype):
        raise TypeError(f"{name} must be fp16, bf16, fp32 or fp64, got {factor.dtype}")
    if factor.device != input.device:
        raise ValueError(f"input is on {input.device} but {name} on {factor.device}")
    try:
        return factor.expand(input.shape)
    except RuntimeError:
        raise ValueError(
            f"{name} must broadcast to the input's shape {tuple(input.shape)}, got"
            f" {tuple(factor.shape)}"
        ) from None


def _validate(input: Tensor, target: Tensor, reduction: str) -> None:
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be one of {_REDUCTIONS}, got {reduction!r}")
    for name, tensor in (("input", input), ("target", target)):
        if not launch.is_supported(tensor.dtype):
            raise TypeError(f"{name} must be fp16, bf16, fp32 or fp64, got {tensor.dtype}")
    if input.shape != target.shape:
        raise ValueError(
            f"target must have the input's shape {tuple(input.shape)}, got {tuple(target.shape)}"
        )
    if input.device != target.device:
        raise ValueError(f"input is on {input.device} but target on {target.device}")
