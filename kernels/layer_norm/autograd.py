"""(x - mean) / sqrt(var + eps) * weight + bias as operators that torch knows, and as a function
that autograd knows.
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
    return x.new_empty(x.shape), x.new_empty((*x.shape[:-1], 5), dtype=torch.float64)


@torch.library.custom_op("kernels::layer_norm_forward", mutates_args=())
def forward_op(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """y and the statistics (..., 5) of rows (..., K); weight and bias (K,)."""
    x = x.contiguous()
    if not launch.uses_triton(x):
        return reference.stable_forward(x, weight, bias, eps)
    y, statistics = _empty_outputs(x)
    if x.numel():
        elements = norms.element_dtype(x)
        n_rows, programs, options = norm_launch.row_constants("layer_norm_forward", x, elements)
        with launch.on_device(x):
            fused._forward_kernel[(programs,)](
                x,
                x if weight is None else weight.contiguous(),
                x if bias is None else bias.contiguous(),
                y,
                statistics,
                n_rows,
                x.shape[-1],
                HAS_WEIGHT=weight is not None,
                HAS_BIAS=bias is not None,
                # fp32 is computed in fp64, where no product overflows.
                HALVED=bias is not None and x.dtype != torch.float32,
                **norm_launch.scale_constants(x, eps),
                **options,
            )
    return y, statistics


@forward_op.register_fake
def _(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    return _empty_outputs(x)


@torch.library.custom_op("kernels::layer_norm_backward", mutates_args=())
def backward_op(
    upstream: Tensor, x: Tensor, weight: Tensor | None, statistics: Tensor, eps: float
) -> Tensor:
    """The gradient of rows x (..., K) for an upstream gradient of that shape."""
    return norm_backward.of_input("layer_norm", upstream, x, weight, statistics)


@backward_op.register_fake
def _(upstream: Tensor, x: Tensor, weight: Tensor | None, statistics: Tensor, eps: float) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("kernels::layer_norm_parameter_gradients", mutates_args=())
def parameter_gradients_op(
    upstream: Tensor, x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The gradients of weight and bias (K,), summed over all rows (..., K); empty for None."""
    return norm_backward.of_parameters("layer_norm", upstream, x, statistics, (weight, bias))


@parameter_gradients_op.register_fake
def _(
    upstream: Tensor, x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    of_weight, of_bias = norm_backward.empty_like_wanted(x, (weight, bias))
    return of_weight, of_bias


@torch.library.custom_op("kernels::layer_norm_backward_with_parameters", mutates_args=())
def backward_with_parameters_op(
    upstream: Tensor,
    x: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    of_weight: bool,
    of_bias: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of rows x (..., K), weight and bias (K,); empty for parameters not wanted."""
    wanted = (weight if of_weight else None, bias if of_bias else None)
    return norm_backward.of_everything("layer_norm", upstream, x, weight, statistics, wanted)


@backward_with_parameters_op.register_fake
def _(
    upstream: Tensor,
    x: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    of_weight: bool,
    of_bias: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    wanted = (weight if of_weight else None, bias if of_bias else None)
    first, second = norm_backward.empty_like_wanted(x, wanted)
    return x.new_empty(x.shape), first, second


# --- autograd -------------------------------------------------------------------------------------


class LayerNorm(torch.autograd.Function):
    """y and the statistics of rows (..., K); weight and bias (K,) or None. Saves x, not y."""

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor]:
        return forward_op(x, weight, bias, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, bias, ctx.eps = inputs
        _, statistics = output
        ctx.mark_non_differentiable(statistics)
        ctx.save_for_backward(x, weight, bias, statistics)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, bias, statistics = ctx.saved_tensors
        of_input = of_weight = of_bias = None
        of_rows, *of_parameters, _ = ctx.needs_input_grad
        if of_rows and any(of_parameters):
            of_input, of_weight, of_bias = differentiable(
                backward_with_parameters_op,
                _formula,
                *(upstream, x, statistics, weight, bias, *of_parameters, ctx.eps),
                rowwise=False,
            )
        elif of_rows:
            arguments = (upstream, x, weight, statistics, ctx.eps)
            of_input = differentiable(
                backward_op, _input_formula, *arguments, rowwise=weight is None
            )
        elif any(of_parameters):
            wanted = (weight if of_parameters[0] else None, bias if of_parameters[1] else None)
            eps = ctx.eps

            def formula(
                upstream: Tensor, x: Tensor, _: Tensor, weight: Tensor | None, bias: Tensor | None
            ) -> tuple[Tensor, Tensor]:
                return _parameters_formula(upstream, x, weight, bias, eps)

            of_weight, of_bias = differentiable(
                parameter_gradients_op, formula, upstream, x, statistics, *wanted, rowwise=False
            )
        of_weight = of_weight if of_parameters[0] else None
        of_bias = of_bias if of_parameters[1] else None
        return of_input, of_weight, of_bias, None

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Any:
        if in_dims[1] is None and in_dims[2] is None:
            # Rows share the parameters, so a batch of rows is just more rows.
            return batched(LayerNorm.apply(x.movedim(in_dims[0], 0), weight, bias, eps))
        return one_by_one(LayerNorm.apply, info, in_dims, (x, weight, bias, eps))


def _input_formula(
    upstream: Tensor, x: Tensor, weight: Tensor | None, statistics: Tensor, eps: float
) -> Tensor:
    """What backward_op computes, in PyTorch operations that can be differentiated again."""
    pull = torch.func.vjp(lambda x: reference.plain(x, weight, None, eps), x)[1]
    return pull(upstream)[0]


def _parameters_formula(
    upstream: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """What parameter_gradients_op computes, likewise."""
    rows = tuple(range(x.dim() - 1))
    of_weight, of_bias = norm_backward.empty_like_wanted(x, (weight, bias))
    if weight is not None:
        direction = reference.plain(x, None, None, eps)
        of_weight = (upstream * direction).sum(dim=rows).to(weight.dtype)
    if bias is not None:
        of_bias = upstream.sum(dim=rows).to(bias.dtype)
    return of_weight, of_bias


def _formula(
    upstream: Tensor,
    x: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    of_weight: bool,
    of_bias: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """What backward_with_parameters_op computes, likewise."""
    wanted = (weight if of_weight else None, bias if of_bias else None)
    of_input = _input_formula(upstream, x, weight, statistics, eps)
    return of_input, *_parameters_formula(upstream, x, *wanted, eps)
