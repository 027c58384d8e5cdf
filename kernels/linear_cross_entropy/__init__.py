"""Cross-entropy of a linear layer's output, without ever holding the logits whole.

Promises: what `kernels.cross_entropy` promises, for logits computed and held in fp32 (fp64 for
fp64), a chunk of rows at a time; gradients that are formed when the upstream scale is known.
"""

from __future__ import annotations

from torch import Tensor

from .. import launch
from ..cross_entropy.options import Options
from ..cross_entropy.validate import validate
from .autograd import LinearCrossEntropy

__all__ = ["linear_cross_entropy"]


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    all_ignored: str = "nan",
    check_targets: bool | None = None,
    chunk_rows: int | None = None,
) -> Tensor:
    """cross_entropy(linear(input, linear_weight, linear_bias), target, ...), as
    torch.nn.functional.linear_cross_entropy has it.

    Args:
        input: (H,) or (N, H), in fp16, bf16, fp32 or fp64.
        linear_weight: (C, H), or (C, d1, ..., H) for losses of shape (N, d1, ...); the input's
            dtype.
        target: class indices, (), (N,) or (N, d1, ...), or class probabilities, (C,), (N, C) or
            (N, C, d1, ...), which have no gradient here.
        linear_bias: (C,) or (C, d1, ...), of the input's dtype or fp32 (fp64).
        weight, label_smoothing, z_loss, softcap, all_ignored, check_targets: as in
            `kernels.cross_entropy`.
        reduction: "mean", "sum" or "none".
        ignore_index: rows with this target have loss 0 and gradient 0; None: -100.
        chunk_rows: rows whose logits are held at a time. None: as many as make a chunk of fp32
            logits no larger than the input (and at least 64 MiB).

    Returns:
        The loss, in fp32 (fp64 for fp64 inputs): a scalar, or one value a row for "none".

    Raises:
        TypeError: on a dtype that is not listed above.
        ValueError: on shapes or devices that do not go together, or an option outside its range.
        NotImplementedError: on a class weight, or class probabilities, that require a gradient.
        IndexError: on a target outside the classes, when checked.

    Beside the inputs and their gradients memory holds one chunk of logits and its gradient, and the
    weight's gradient in fp32. Each logit carries the rounding of a dot product in fp32, at most
    H u sum |x_h w_h|; from there on the error is that of `kernels.cross_entropy`.

    >>> import torch
    >>> hidden, head = torch.randn(8, 16), torch.randn(100, 16)
    >>> linear_cross_entropy(hidden, head, torch.arange(8), reduction="none").shape
    torch.Size([8])
    >>> by_hand = torch.nn.functional.cross_entropy(hidden @ head.T, torch.arange(8))
    >>> torch.allclose(linear_cross_entropy(hidden, head, torch.arange(8)), by_hand, rtol=1e-5)
    True
    """
    if softcap is not None and not softcap > 0.0:
        raise ValueError(f"softcap must be positive and finite, got {softcap}")
    if chunk_rows is not None and chunk_rows < 1:
        raise ValueError(f"chunk_rows must be at least 1, got {chunk_rows}")
    options = Options(
        -100 if ignore_index is None else int(ignore_index), float(label_smoothing),
        float(z_loss), float(softcap or 0.0), reduction, all_ignored,
    )  # fmt: skip
    _validate(input, linear_weight, linear_bias, target)
    lead = input.shape[:-1]  # () or (N,)
    n_classes, *extra = linear_weight.shape[:-1]
    # What the logits would be, without any memory behind it.
    logits = input.new_empty(1).expand(*lead, n_classes, *extra)
    validate(logits, target, weight, options)
    shape = (*lead, *extra)
    positions = max(linear_weight[0, ..., 0].numel(), 1) if n_classes else 1
    if target.is_floating_point():
        rows = target.movedim(len(lead), -1).reshape(-1, n_classes)
    else:
        rows = target.reshape(-1).long()
    if check_targets is None:
        check_targets = launch.checks_by_default(input)
    loss: Tensor = LinearCrossEntropy.apply(
        input.reshape(-1, input.shape[-1]),
        linear_weight.reshape(-1, linear_weight.shape[-1]),
        None if linear_bias is None else linear_bias.reshape(-1),
        rows,
        weight,
        positions,
        chunk_rows or 0,
        check_targets,
        shape,
        options,
    )[0]
    return loss.reshape(shape) if reduction == "none" else loss


def _validate(
    input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None, target: Tensor
) -> None:
    if not launch.is_supported(input.dtype):
        raise TypeError(f"input must be fp16, bf16, fp32 or fp64, got {input.dtype}")
    if linear_weight.dtype != input.dtype:
        raise TypeError(
            f"linear_weight must be of the input's dtype {input.dtype}, got {linear_weight.dtype}"
        )
    if input.dim() not in (1, 2):
        raise ValueError(f"input must be (H,) or (N, H), got shape {tuple(input.shape)}")
    if linear_weight.dim() < 2 or linear_weight.shape[-1] != input.shape[-1]:
        raise ValueError(
            f"linear_weight must be (C, H) or (C, d1, ..., H) with H = {input.shape[-1]}, got"
            f" {tuple(linear_weight.shape)}"
        )
    if input.dim() == 1 and linear_weight.dim() > 2:
        raise ValueError("a linear_weight of more than two dimensions needs an input (N, H)")
    wide = launch.statistics_dtype(input.dtype)
    if linear_bias is not None:
        if linear_bias.shape != linear_weight.shape[:-1]:
            raise ValueError(
                f"linear_bias must have shape {tuple(linear_weight.shape[:-1])}, got"
                f" {tuple(linear_bias.shape)}"
            )
        if linear_bias.dtype not in (input.dtype, wide):
            raise TypeError(
                f"linear_bias for input of {input.dtype} must be of that dtype or {wide}, got"
                f" {linear_bias.dtype}"
            )
    for name, tensor in (("linear_weight", linear_weight), ("linear_bias", linear_bias)):
        if tensor is not None and tensor.device != input.device:
            raise ValueError(f"input is on {input.device} but {name} on {tensor.device}")
    if target.requires_grad:
        raise NotImplementedError("class probabilities have no gradient here: pass target.detach()")
