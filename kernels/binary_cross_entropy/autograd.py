"""Binary cross-entropy as operators that torch knows, and as a function that autograd knows."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor

from .. import launch
from ..transforms import batched, differentiable, fold
from . import fused, reference

# --- operators: allocate and launch ---------------------------------------------------------------


def _repeating(weight: Tensor | None, like: Tensor) -> tuple[Tensor, int]:
    """A weight expanded to the logits' shape as what it repeats, contiguous, and how many elements
    that is; a single 1 for no weight.
    """
    if weight is None:
        return like.new_ones(1), 1
    while weight.dim() and weight.stride(0) == 0 and weight.shape[0]:
        weight = weight[0]
    return weight.contiguous().reshape(-1), max(weight.numel(), 1)


def _launch_options(
    pass_: str, logits: Tensor, weighted: bool
) -> tuple[tuple[int], dict[str, Any]]:
    family, size = f"binary_cross_entropy_with_logits_{pass_}", logits.numel()
    # The interpreter runs one program after another: there few and fat ones.
    most = 65536 if launch.fat() else launch.shape(family, logits, size).tile
    block = min(most, triton.next_power_of_2(max(size, 1)))
    statistics = launch.statistics_dtype(logits.dtype)
    wide = reference.wide_dtype(logits.dtype) if weighted else statistics
    constants = {
        "WEIGHTED": weighted,
        "STATISTICS": launch.triton_dtype(statistics),
        "WIDE": launch.triton_dtype(wide),
        "BLOCK": block,
    }
    options = launch.options(family, logits, size, block)
    return (triton.cdiv(size, block),), constants | options


def _reduced_shape(logits: Tensor, reduction: str, n_dims: int) -> torch.Size:
    return logits.shape if reduction == "none" else logits.shape[: logits.dim() - n_dims]


@torch.library.custom_op("kernels::binary_cross_entropy_forward", mutates_args=())
def forward_op(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
    n_dims: int,
) -> Tensor:
    """The loss of each logit, reduced over the last `n_dims` dimensions. Weights have the logits'
    shape, by expansion mostly.
    """
    logits, target = logits.contiguous(), target.contiguous()
    statistics = launch.statistics_dtype(logits.dtype)
    if not launch.uses_triton(logits):
        loss = reference.stable_forward(logits, target, weight, pos_weight)
    else:
        loss = logits.new_empty(logits.shape, dtype=statistics)
        if logits.numel():
            weighted = weight is not None or pos_weight is not None
            grid, options = _launch_options("forward", logits, weighted)
            repeated = _repeating(weight, logits), _repeating(pos_weight, logits)
            (w, period_w), (p, period_p) = repeated
            with launch.on_device(logits):
                fused._forward_kernel[grid](
                    logits, target, w, p, loss, logits.numel(), period_w, period_p, **options
                )
    return reference.reduced(loss, reduction, n_dims)


@forward_op.register_fake
def _(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
    n_dims: int,
) -> Tensor:
    dtype = launch.statistics_dtype(logits.dtype)
    return logits.new_empty(_reduced_shape(logits, reduction, n_dims), dtype=dtype)


@torch.library.custom_op("kernels::binary_cross_entropy_backward", mutates_args=())
def backward_op(
    upstream: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
    n_dims: int,
) -> Tensor:
    """The gradient of the logits for an upstream gradient of the reduced loss's shape."""
    logits, target = logits.contiguous(), target.contiguous()
    each = _of_each_element(upstream, logits, reduction, n_dims)
    if not launch.uses_triton(logits):
        return reference.stable_backward(each, logits, target, weight, pos_weight)
    gradient = torch.empty_like(logits)
    if logits.numel():
        weighted = weight is not None or pos_weight is not None
        grid, options = _launch_options("backward", logits, weighted)
        repeated = _repeating(weight, logits), _repeating(pos_weight, logits)
        (w, period_w), (p, period_p) = repeated
        # One scalar for all elements stays one; anything else is laid out like the logits.
        stride = 0 if not any(each.stride()) else 1
        each = each if stride == 0 else each.contiguous()
        with launch.on_device(logits):
            fused._backward_kernel[grid](
                each, logits, target, w, p, gradient,
                logits.numel(), period_w, period_p, stride, **options,
            )  # fmt: skip
    return gradient


@backward_op.register_fake
def _(
    upstream: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
    n_dims: int,
) -> Tensor:
    return logits.new_empty(logits.shape)


def _of_each_element(upstream: Tensor, logits: Tensor, reduction: str, n_dims: int) -> Tensor:
    """The upstream gradient of each element's loss: a mean's is divided in fp64, rounded once."""
    if reduction == "none":
        return upstream
    count = math.prod(logits.shape[logits.dim() - n_dims :])
    if reduction == "mean" and count:
        upstream = (upstream.double() / count).to(upstream.dtype)
    return upstream.reshape(*upstream.shape, *[1] * n_dims).expand(logits.shape)


# --- autograd -------------------------------------------------------------------------------------


class BinaryCrossEntropy(torch.autograd.Function):
    """The loss of each logit, reduced over the last n_dims dimensions; all tensors of one shape."""

    @staticmethod
    def forward(
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        pos_weight: Tensor | None,
        reduction: str,
        n_dims: int,
    ) -> Tensor:
        return forward_op(logits, target, weight, pos_weight, reduction, n_dims)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        logits, target, weight, pos_weight, ctx.reduction, ctx.n_dims = inputs
        ctx.save_for_backward(logits, target, weight, pos_weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        found: list[Tensor | None] = [None, None, None, None]
        if ctx.needs_input_grad[0]:
            arguments = (grad, *tensors, ctx.reduction, ctx.n_dims)
            found[0] = differentiable(backward_op, _gradient_formula, *arguments)
        others = [k for k in (1, 2, 3) if ctx.needs_input_grad[k]]
        if others:
            gradients = _rare(grad, tensors, others, ctx.reduction, ctx.n_dims)
            for k, gradient in zip(others, gradients, strict=True):
                found[k] = gradient
        return (*found, None, None)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        return batched(BinaryCrossEntropy.apply(*fold(info, in_dims, arguments)))


def _gradient_formula(
    upstream: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
    n_dims: int,
) -> Tensor:
    """What backward_op computes, in PyTorch operations that can be differentiated again."""
    pull = torch.func.vjp(
        lambda x: reference.plain(x, target, weight, pos_weight, reduction, n_dims), logits
    )[1]
    gradient: Tensor = pull(upstream)[0]
    return gradient


def _rare(
    upstream: Tensor,
    tensors: tuple[Tensor | None, ...],
    wanted: list[int],
    reduction: str,
    n_dims: int,
) -> tuple[Tensor, ...]:
    """The gradients of target and weights, which few ask for, by PyTorch's formula; in fp64, where
    its sums lose nothing and its products stay within the range of what is narrower.
    """
    logits = tensors[0]
    assert logits is not None
    each = upstream
    if reduction != "none":  # expanded before it is widened: no scalar of torch.compile's is fp64
        each = upstream.reshape(*upstream.shape, *[1] * n_dims).expand(logits.shape)
    each = each.double()
    if reduction == "mean":
        each = each / max(math.prod(logits.shape[logits.dim() - n_dims :]), 1)

    def loss(*values: Tensor) -> Tensor:
        given: list[Any] = list(tensors)
        for k, value in zip(wanted, values, strict=True):
            given[k] = value
        logits, target, weight, pos_weight = given
        return reference.plain(logits, target, weight, pos_weight, "none", n_dims, torch.float64)

    pull = torch.func.vjp(loss, *[tensors[k] for k in wanted])[1]
    found: tuple[Tensor, ...] = pull(each)
    return found
