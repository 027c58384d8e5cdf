"""x / sqrt(mean(x**2) + eps) * weight as operators that torch knows, and as a function that
autograd knows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import launch, norm_backward, norm_launch, norms
from ..transforms import batched, differentiable, one_by_one
from . import fused, reference

# --- operators: allocate and launch ---------------------------------------------------------------


def _empty_outputs(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty((*x.shape[:-1], 2), dtype=torch.float64)


@torch.library.custom_op("kernels::rms_norm_forward", mutates_args=())
def forward_op(x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """y and the statistics (..., 2) of rows (..., K); weight (K,)."""
    x = x.contiguous()
    if not launch.uses_triton(x):
        return reference.stable_forward(x, weight, eps)
    y, statistics = _empty_outputs(x)
    if x.numel():
        elements = norms.element_dtype(x)
        n_rows, programs, options = norm_launch.row_constants("rms_norm_forward", x, elements)
        with launch.on_device(x):
            fused._forward_kernel[(programs,)](
                x,
                x if weight is None else weight.contiguous(),
                y,
                statistics,
                n_rows,
                x.shape[-1],
                HAS_WEIGHT=weight is not None,
                **norm_launch.scale_constants(x, eps),
                **options,
            )
    return y, statistics


@forward_op.register_fake
def _(x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    return _empty_outputs(x)


@torch.library.custom_op("kernels::rms_norm_backward", mutates_args=())
def backward_op(
    upstream: Tensor, x: Tensor, weight: Tensor | None, statistics: Tensor, eps: float
) -> Tensor:
    """The gradient of rows x (..., K) for an upstream gradient of that shape."""
    return norm_backward.of_input("rms_norm", upstream, x, weight, statistics)


@backward_op.register_fake
def _(upstream: Tensor, x: Tensor, weight: Tensor | None, statistics: Tensor, eps: float) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("kernels::rms_norm_weight_gradient", mutates_args=())
def weight_gradient_op(
    upstream: Tensor, x: Tensor, weight: Tensor, statistics: Tensor, eps: float
) -> Tensor:
    """The gradient of the weight (K,), summed over all rows (..., K)."""
    return norm_backward.of_parameters("rms_norm", upstream, x, statistics, (weight, None))[0]


@weight_gradient_op.register_fake
def _(upstream: Tensor, x: Tensor, weight: Tensor, statistics: Tensor, eps: float) -> Tensor:
    return weight.new_empty(weight.shape)


@torch.library.custom_op("kernels::rms_norm_backward_with_weight", mutates_args=())
def backward_with_weight_op(
    upstream: Tensor, x: Tensor, weight: Tensor, statistics: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Both gradients, of rows x (..., K) and of the weight (K,)."""
    return norm_backward.of_everything("rms_norm", upstream, x, weight, statistics, (weight, None))[
        :2
    ]


@backward_with_weight_op.register_fake
def _(
    upstream: Tensor, x: Tensor, weight: Tensor, statistics: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


# --- autograd -------------------------------------------------------------------------------------


class RMSNorm(torch.autograd.Function):
    """y and the statistics of rows (..., K); weight (K,) or None. Saves x, not y."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
        return forward_op(x, weight, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, ctx.eps = inputs
        _, statistics = output
        ctx.mark_non_differentiable(statistics)
        ctx.save_for_backward(x, weight, statistics)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, statistics = ctx.saved_tensors
        of_input = of_weight = None
        arguments = (upstream, x, weight, statistics, ctx.eps)
        if ctx.needs_input_grad[0] and ctx.needs_input_grad[1]:
            of_input, of_weight = differentiable(
                backward_with_weight_op, _formula, *arguments, rowwise=False
            )
        elif ctx.needs_input_grad[0]:
            of_input = differentiable(
                backward_op, _input_formula, *arguments, rowwise=weight is None
            )
        elif ctx.needs_input_grad[1]:
            of_weight = differentiable(
                weight_gradient_op, _weight_formula, *arguments, rowwise=False
            )
        return of_input, of_weight, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, weight: Tensor | None, eps: float) -> Any:
        if in_dims[1] is None:  # rows share the weight, so a batch of rows is just more rows
            return batched(RMSNorm.apply(x.movedim(in_dims[0], 0), weight, eps))
        return one_by_one(RMSNorm.apply, info, in_dims, (x, weight, eps))


def _input_formula(
    upstream: Tensor, x: Tensor, weight: Tensor | None, statistics: Tensor, eps: float
) -> Tensor:
    """What backward_op computes, in PyTorch operations that can be differentiated again."""
    pull = torch.func.vjp(lambda x: reference.plain(x, weight, eps), x)[1]
    return pull(upstream)[0]


def _weight_formula(
    upstream: Tensor, x: Tensor, weight: Tensor, statistics: Tensor, eps: float
) -> Tensor:
    """What weight_gradient_op computes, likewise."""
    pull = torch.func.vjp(lambda weight: reference.plain(x, weight, eps), weight)[1]
    return pull(upstream)[0]


def _formula(
    upstream: Tensor, x: Tensor, weight: Tensor, statistics: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """What backward_with_weight_op computes, likewise."""
    pull = torch.func.vjp(lambda x, weight: reference.plain(x, weight, eps), x, weight)[1]
    of_input, of_weight = pull(upstream)
    return of_input, of_weight
