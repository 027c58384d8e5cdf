"""Linear layer and cross-entropy as a function that autograd and torch.func know."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..cross_entropy.options import Options
from ..transforms import differentiable, one_by_one
from . import reference
from .operators import backward_op, forward_op


class LinearCrossEntropy(torch.autograd.Function):
    """The loss, and each row's statistics, of x (N, H) and weight (C * positions, H)."""

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        class_weight: Tensor | None,
        positions: int,
        chunk_rows: int,
        check_targets: bool,
        target_shape: tuple[int, ...],
        options: Options,
    ) -> tuple[Tensor, ...]:
        return forward_op(
            x, weight, bias, target, class_weight, positions, chunk_rows, check_targets,
            target_shape, *options,
        )  # fmt: skip

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.positions, ctx.chunk_rows, _, _, ctx.options = inputs
        _, *statistics = output
        ctx.mark_non_differentiable(*statistics)
        ctx.save_for_backward(*tensors, *statistics)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        wanted = list(ctx.needs_input_grad[:3])
        found = differentiable(
            backward_op, _gradient_formula,
            grad, *ctx.saved_tensors, ctx.positions, ctx.chunk_rows, wanted, *ctx.options,
            rowwise=False,
        )  # fmt: skip
        gradients = [each if want else None for each, want in zip(found, wanted, strict=True)]
        return (*gradients, *[None] * 7)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        in_dims = (*in_dims[:5], *[None] * 5)  # of sequences torch gives a dimension an element
        return one_by_one(LinearCrossEntropy.apply, info, in_dims, arguments)


def _gradient_formula(
    upstream: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, ...]:
    """What backward_op computes, in PyTorch operations that can be differentiated again."""
    positions, _, wanted, *options = rest[5:]
    given: list[Any] = [x, weight, bias]
    places = [k for k in range(3) if wanted[k]]

    def loss(*values: Tensor) -> Tensor:
        tensors = [*given]
        for place, value in zip(places, values, strict=True):
            tensors[place] = value
        x_, weight_, bias_ = tensors
        return reference.plain(
            x_, weight_, bias_, target, class_weight, positions, Options(*options)
        )

    pull = torch.func.vjp(loss, *[given[k] for k in places])[1]
    found = dict(zip(places, pull(upstream), strict=True))
    return tuple(found.get(k, x.new_zeros(0)) for k in range(3))
