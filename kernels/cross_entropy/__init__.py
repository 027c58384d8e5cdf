"""Cross-entropy of logits and class indices, in one pass and accurate over the whole range.

Promises: a finite, accurate loss and gradient wherever the truth is representable, masks (-inf) and
confident rows included; non-finite inputs as torch treats them, each row on its own; inputs never
modified.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import launch
from .fused import CrossEntropy

__all__ = ["cross_entropy"]

_REDUCTIONS = ("mean", "sum", "none")
_ALL_IGNORED = ("nan", "zero")


def cross_entropy(
    input: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    all_ignored: str = "nan",
    check_targets: bool | None = None,
) -> Tensor:
    """Cross-entropy of logits and class indices, as torch.nn.functional.cross_entropy has it.

    Args:
        input: logits, (C,), (N, C) or (N, C, d1, ...), in fp16, bf16, fp32 or fp64.
        target: class indices, int64 (or uint8), (), (N,) or (N, d1, ...), each within [0, C) or
            ignore_index.
        ignore_index: rows with this target have loss 0 and gradient 0 and are left out of the mean.
        reduction: "mean", "sum" or "none".
        all_ignored: the mean where no row counts: "nan" as torch, or "zero".
        check_targets: raise on a target outside the classes. None: yes on the CPU, no on a GPU,
            where looking means waiting. An unchecked bad target makes its own row NaN, and nothing
            is read out of bounds.

    Returns:
        The loss, in fp32 (fp64 for fp64 logits): a scalar, or the target's shape for "none". The
        mean is finite whenever the true mean is, even where single rows overflow.

    Raises:
        TypeError: on a dtype that is not listed above.
        ValueError: on shapes or devices that do not go together, or an unknown option.
        IndexError: on a target outside the classes, when checked.

    The formula (see `kernels.cross_entropy.fused`) leaves the target's own column out of the
    softmax's sum, so that nothing cancels. The gradient can be taken once; asking for a second
    derivative raises RuntimeError.

    >>> import torch
    >>> logits = torch.tensor([[2.0, 1.0, float("-inf")], [0.0, 30.0, 0.0]])
    >>> cross_entropy(logits, torch.tensor([0, 1]), reduction="none")
    tensor([3.1326e-01, 1.8715e-13])
    >>> cross_entropy(torch.randn(8, 10, 4, 4), torch.zeros(8, 4, 4, dtype=torch.long)).shape
    torch.Size([])
    >>> cross_entropy(torch.randn(8, 10).half(), torch.arange(8), reduction="none").dtype
    torch.float32
    """
    if input.dim() == 1 and target.shape == (1,):  # torch takes this too
        target = target.reshape(())
    _validate(input, target, reduction, all_ignored)
    class_dim = 0 if input.dim() == 1 else 1
    n_classes = input.shape[class_dim]
    logits = input.movedim(class_dim, -1)
    logits = logits.reshape(target.numel(), n_classes)  # (N, C): rows of a view keep their strides
    labels = target.reshape(-1).to(torch.int64).contiguous()
    if check_targets is None:
        check_targets = not input.is_cuda and not torch.compiler.is_compiling()
    if check_targets:
        _check_range(labels, target.shape, n_classes, ignore_index)
    loss = CrossEntropy.apply(logits, labels, ignore_index, reduction, all_ignored)[0]
    return loss.reshape(target.shape) if reduction == "none" else loss


def _validate(input: Tensor, target: Tensor, reduction: str, all_ignored: str) -> None:
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be one of {_REDUCTIONS}, got {reduction!r}")
    if all_ignored not in _ALL_IGNORED:
        raise ValueError(f"all_ignored must be one of {_ALL_IGNORED}, got {all_ignored!r}")
    if not launch.is_supported(input.dtype):
        raise TypeError(f"input must be fp16, bf16, fp32 or fp64, got {input.dtype}")
    if target.dtype not in (torch.int64, torch.uint8):
        raise TypeError(
            f"target must hold class indices in torch.int64 (or torch.uint8), got {target.dtype}"
        )
    if input.device != target.device:
        raise ValueError(f"input is on {input.device} but target on {target.device}")
    if input.dim() == 0:
        raise ValueError(
            "input must have at least one dimension, that of the classes, got shape ()"
        )
    expected = input.shape[:0] if input.dim() == 1 else input.shape[:1] + input.shape[2:]
    if target.shape != expected:
        raise ValueError(
            f"target for input of shape {tuple(input.shape)} must have shape {tuple(expected)}, "
            f"got {tuple(target.shape)}"
        )


def _check_range(labels: Tensor, shape: torch.Size, n_classes: int, ignore_index: int) -> None:
    bad = (labels != ignore_index) & ((labels < 0) | (labels >= n_classes))
    if not bool(bad.any()):
        return
    first = int(bad.nonzero()[0, 0])
    position = tuple(int(i) for i in torch.unravel_index(torch.tensor(first), shape))
    raise IndexError(
        f"target {int(labels[first])} at position {position} is outside the {n_classes} classes: "
        f"valid are [0, {n_classes}) and ignore_index={ignore_index}"
    )
