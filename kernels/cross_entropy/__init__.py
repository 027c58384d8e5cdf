"""Cross-entropy of logits with class indices or probabilities, in one pass and accurate over the
whole range.

Promises: a finite, accurate loss and gradient wherever the truth is representable, masks (-inf) and
confident rows included; non-finite inputs as torch treats them, each row on its own; inputs never
modified.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import launch
from .autograd import CrossEntropy
from .options import Options
from .validate import validate

__all__ = ["cross_entropy"]


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    all_ignored: str = "nan",
    check_targets: bool | None = None,
) -> Tensor:
    """Cross-entropy of logits, as torch.nn.functional.cross_entropy has it.

    Args:
        input: logits, (C,), (N, C) or (N, C, d1, ...), in fp16, bf16, fp32 or fp64.
        target: class indices, int64 (or uint8), (), (N,) or (N, d1, ...), each within [0, C) or
            ignore_index; or class probabilities, of the input's shape and any of the four dtypes.
        weight: a factor for each class, (C,), of the input's dtype or that of the loss. It has no
            gradient.
        ignore_index: rows with this target have loss 0 and gradient 0 and are left out of the mean.
        reduction: "mean", "sum" or "none". A mean over class indices divides by the sum of the
            weights of the targets that count, one over probabilities by the number of rows.
        label_smoothing: how much of each target, within [0, 1], is spread over all classes alike.
        z_loss: adds z_loss * logsumexp(logits)**2 to each row that counts.
        softcap: replaces the logits x by softcap * tanh(x / softcap) first. (A mask of -inf is then
            -softcap, as in the formula written out: mask after capping.)
        all_ignored: the mean where nothing counts, every row ignored or of weight 0: "nan" as
            torch, or "zero", with gradients of 0.
        check_targets: raise on a target outside the classes. None: yes on the CPU, no on a GPU,
            where looking means waiting. An unchecked bad target makes its own row NaN, and nothing
            is read out of bounds.

    Returns:
        The loss, in fp32 (fp64 for fp64 logits): a scalar, or one value a row for "none". The mean
        is finite whenever the true mean is, even where single rows overflow.

    Raises:
        TypeError: on a dtype that is not listed above.
        ValueError: on shapes or devices that do not go together, or an option outside its range.
        NotImplementedError: on a weight that requires a gradient.
        IndexError: on a target outside the classes, when checked.

    The formulas (see `kernels.cross_entropy.fused` and `dense`) have terms of one sign, so that
    nothing cancels in a loss. A coefficient of 0 (a weight, a probability) leaves its class out,
    whatever its logit: 0 times -inf is 0.

    >>> import torch
    >>> logits = torch.tensor([[2.0, 1.0, float("-inf")], [0.0, 30.0, 0.0]])
    >>> cross_entropy(logits, torch.tensor([0, 1]), reduction="none")
    tensor([3.1326e-01, 1.8715e-13])
    >>> cross_entropy(torch.randn(8, 10, 4, 4), torch.zeros(8, 4, 4, dtype=torch.long)).shape
    torch.Size([])
    >>> cross_entropy(torch.randn(8, 10).half(), torch.arange(8), reduction="none").dtype
    torch.float32
    >>> probabilities = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    >>> cross_entropy(logits, probabilities, reduction="none")
    tensor([8.1326e-01, 1.8715e-13])
    """
    if softcap is not None and not softcap > 0.0:
        raise ValueError(f"softcap must be positive and finite, got {softcap}")
    options = Options(
        int(ignore_index), float(label_smoothing), float(z_loss), float(softcap or 0.0),
        reduction, all_ignored,
    )  # fmt: skip
    probabilities = target.is_floating_point()
    if input.dim() == 1 and target.shape == (1,) and not probabilities:  # torch takes this too
        target = target.reshape(())
    validate(input, target, weight, options)
    class_dim = 0 if input.dim() == 1 else 1
    shape = input.shape[:class_dim] + input.shape[class_dim + 1 :]
    # (N, C): rows of a view keep their strides.
    logits = input.movedim(class_dim, -1).reshape(shape.numel(), input.shape[class_dim])
    if probabilities:
        labels = target.movedim(class_dim, -1).reshape(logits.shape)
    else:
        labels = target.reshape(-1).to(torch.int64)
    if check_targets is None:
        check_targets = launch.checks_by_default(input)
    loss = CrossEntropy.apply(logits, labels, weight, check_targets, tuple(shape), options)[0]
    return loss.reshape(shape) if reduction == "none" else loss
