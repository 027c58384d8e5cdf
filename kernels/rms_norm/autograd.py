"""x / sqrt(mean(x**2) + eps) * weight as operators that torch knows, and as a function that
autograd knows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import launch, norm_launch, norms
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
    upstream, x, statistics = upstream.contiguous(), x.contiguous(), statistics.contiguous()
    if not launch.uses_triton(x):
        return reference.stable_backward(upstream, x, weight, statistics)
    gradient = torch.empty_like(x)
    if x.numel():
        elements = norms.gradient_dtype(x, weight)
        n_rows, programs, options = norm_launch.row_constants("rms_norm_backward", x, elements)
        with launch.on_device(x):
            fused._backward_kernel[(programs,)](
                upstream,
                x,
                x if weight is None else weight.contiguous(),
                statistics,
                gradient,
                n_rows,
                x.shape[-1],
                HAS_WEIGHT=weight is not None,
                **options,
            )
    return gradient


@backward_op.register_fake
def _(upstream: Tensor, x: Tensor, weight: Tensor | None, statistics: Tensor, eps: float) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("kernels::rms_norm_weight_gradient", mutates_args=())
def weight_gradient_op(
    upstream: Tensor, x: Tensor, weight: Tensor, statistics: Tensor, eps: float
) -> Tensor:
    """The gradient of the weight (K,), summed over all rows (..., K)."""
    upstream, x, statistics = upstream.contiguous(), x.contiguous(), statistics.contiguous()
    if not launch.uses_triton(x):
        return reference.stable_weight_gradient(upstream, x, weight, statistics)
    gradient = weight.new_zeros(weight.shape) if x.numel() == 0 else weight.new_empty(weight.shape)
    if x.numel():
        elements = norms.gradient_dtype(x, None)
        sums = norm_launch.ColumnSums("rms_norm_parameters", x, elements)
        partial = sums.partial(x)
        with launch.on_device(x):
            fused._parameters_kernel[sums.grid](
                upstream,
                x,
                statistics,
                partial,
                sums.n_rows,
                sums.n_columns,
                sums.blocks_per_chunk,
                **sums.constants,
            )
            sums.finish(partial, gradient)
    return gradient


@weight_gradient_op.register_fake
def _(upstream: Tensor, x: Tensor, weight: Tensor, statistics: Tensor, eps: float) -> Tensor:
    return weight.new_empty(weight.shape)


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
        if ctx.needs_input_grad[0]:
            of_input = differentiable(
                backward_op, _input_formula, *arguments, rowwise=weight is None
            )
        if ctx.needs_input_grad[1]:
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
