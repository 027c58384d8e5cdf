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
from .one_read import with_gradient_op
from .options import Options
from .validate import validate

__all__ = ["cross_entropy", "cross_entropy_with_gradient"]


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
    whatever its logit: 0 times -inf is 0. Gradients are accurate for upstream gradients up to
    2**64, probabilities within [0, 1].

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


def cross_entropy_with_gradient(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    all_ignored: str = "nan",
    check_targets: bool | None = None,
    upstream: float | Tensor = 1.0,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and the gradient of its logits at once: 1 read and 1 write of them.

    What `cross_entropy` and its backward take 2 reads and 1 write for, where the upstream gradient
    is known beforehand: 1, or a GradScaler's scale. For class indices; smoothing, probabilities,
    z_loss and softcap are `cross_entropy`'s.

    Args:
        input: logits, (C,), (N, C) or (N, C, d1, ...), in fp16, bf16, fp32 or fp64.
        target, weight, ignore_index, reduction, all_ignored, check_targets: as in `cross_entropy`.
        upstream: the gradient of the (mean, sum of, or each row's) loss: a number, or a tensor of
            no dimensions on the input's device, which nobody waits for. It is rounded to the
            loss's dtype and multiplies the gradient before that is rounded to the input's.

    Returns:
        (loss, gradient): the loss as from `cross_entropy`, and what its
        `backward(upstream)` leaves in `input.grad`, in the input's shape and dtype. The loss is not
        multiplied by `upstream`. Both are plain results, without a graph: neither requires a
        gradient, also where the input does. Hand the gradient on with
        `input.backward(gradient)`.

    Raises:
        TypeError, ValueError, IndexError: as `cross_entropy`, and for an `upstream` that is no
            number.
        NotImplementedError: on a weight that requires a gradient, and on class probabilities.

    Limits: a row is held on chip, up to 32,768 classes in fp16 and bf16 (28,672 in bf16 on
    Blackwell), 16,384 in fp32 and 4,096 in fp64 (the launch table's "cross_entropy_with_gradient").
    Wider rows, and CPU tensors outside of Triton's interpreter, get the same results in two reads.
    Where a row's elements are not adjacent in memory, as in (N, C, d1, ...), the logits are copied
    first.

    >>> import torch
    >>> logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 30.0, 0.0]])
    >>> loss, gradient = cross_entropy_with_gradient(logits, torch.tensor([0, 1]), upstream=1024.0)
    >>> loss
    tensor(0.2038)
    >>> gradient[0]
    tensor([-171.3966,  125.3010,   46.0957])
    """
    options = Options(int(ignore_index), 0.0, 0.0, 0.0, reduction, all_ignored)
    if target.is_floating_point():
        raise NotImplementedError(
            f"cross_entropy_with_gradient takes class indices, got a target of {target.dtype}: for "
            "class probabilities use cross_entropy and its backward"
        )
    if input.dim() == 1 and target.shape == (1,):
        target = target.reshape(())
    validate(input, target, weight, options)
    scale = _upstream_scalar(upstream, input)
    class_dim = 0 if input.dim() == 1 else 1
    shape = input.shape[:class_dim] + input.shape[class_dim + 1 :]
    logits = input.detach().movedim(class_dim, -1).reshape(shape.numel(), input.shape[class_dim])
    if check_targets is None:
        check_targets = launch.checks_by_default(input)
    loss, gradient = with_gradient_op(
        logits, target.reshape(-1).to(torch.int64), weight, scale, check_targets, tuple(shape),
        options.ignore_index, reduction, all_ignored,
    )  # fmt: skip
    gradient = gradient.reshape(*shape, input.shape[class_dim]).movedim(-1, class_dim)
    return loss.reshape(shape) if reduction == "none" else loss, gradient


def _upstream_scalar(upstream: float | Tensor, input: Tensor) -> Tensor:
    """`upstream` as a tensor of no dimensions in the dtype of the loss."""
    dtype = launch.statistics_dtype(input.dtype)
    if not isinstance(upstream, Tensor):
        return torch.full((), float(upstream), dtype=dtype, device=input.device)
    if upstream.dim() != 0:
        raise ValueError(
            "upstream must be a number or a tensor of no dimensions, got shape "
            f"{tuple(upstream.shape)}: for an upstream gradient of each row's own use "
            "cross_entropy and its backward"
        )
    if upstream.device != input.device:
        raise ValueError(f"input is on {input.device} but upstream on {upstream.device}")
    return upstream.detach().to(dtype)
