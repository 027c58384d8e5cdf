"""Cross-entropy as a function that autograd and torch.func know."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..transforms import batched, differentiable, fold
from .operators import backward_op, forward_op, target_op
from .options import Options
from .reference import plain


class CrossEntropy(torch.autograd.Function):
    """The loss, and the statistics, of logits (..., N, C): see `operators.forward_op`."""

    @staticmethod
    def forward(
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        check_targets: bool,
        target_shape: tuple[int, ...],
        options: Options,
    ) -> tuple[Tensor, ...]:
        return forward_op(logits, target, weight, check_targets, target_shape, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        logits, target, weight, _, _, ctx.options = inputs
        _, *statistics = output
        ctx.mark_non_differentiable(*statistics)
        ctx.save_for_backward(logits, target, weight, *statistics)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        logits, target, weight, maximum, others, log_sum, mass, denominator = ctx.saved_tensors
        of_logits = of_target = None
        shared = (logits, target, weight, maximum, others, log_sum, mass, denominator)
        if ctx.needs_input_grad[0]:
            of_logits = differentiable(backward_op, _of_logits, grad, *shared, *ctx.options)
        if ctx.needs_input_grad[1]:
            of_target = differentiable(target_op, _of_target, grad, *shared, *ctx.options)
        return of_logits, of_target, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        in_dims = (*in_dims[:4], None, None)  # of sequences torch gives a dimension an element
        return batched(CrossEntropy.apply(*fold(info, in_dims, arguments)))


def _of_logits(
    upstream: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, *rest: Any
) -> Tensor:
    """What backward_op computes, in PyTorch operations that can be differentiated again."""
    options = Options(*rest[5:])
    pull = torch.func.vjp(lambda x: plain(x, target, weight, options), logits)[1]
    gradient: Tensor = pull(upstream)[0]
    return gradient


def _of_target(
    upstream: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, *rest: Any
) -> Tensor:
    """What target_op computes, in PyTorch operations that can be differentiated again."""
    options = Options(*rest[5:])
    pull = torch.func.vjp(lambda t: plain(logits, t, weight, options), target)[1]
    gradient: Tensor = pull(upstream)[0]
    return gradient
