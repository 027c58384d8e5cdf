"""The gradients of rms_norm and layer_norm: which kernels compute them, or which formula.

`operation` names the norm, for the table of launch shapes. Rows x are (..., K), an upstream
gradient is of their shape, weight and bias are (K,); statistics are those of forward, (..., 2) or,
where a mean is subtracted, (..., 5).
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import launch, norm_formulas, norm_launch, norms
from .norm_gradients import input_kernel
from .norm_one_pass import one_pass_kernel
from .norm_parameters import parameters_kernel


def _is_centred(statistics: Tensor) -> bool:
    return statistics.shape[-1] == 5


def empty_like_wanted(x: Tensor, wanted: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """Room for the gradients of parameters; nothing for None."""
    return tuple(x.new_empty(0) if each is None else each.new_empty(each.shape) for each in wanted)


def of_input(
    operation: str, upstream: Tensor, x: Tensor, weight: Tensor | None, statistics: Tensor
) -> Tensor:
    """The gradient of x."""
    upstream, x, statistics = upstream.contiguous(), x.contiguous(), statistics.contiguous()
    if not launch.uses_triton(x):
        return norm_formulas.input_gradient(upstream, x, weight, statistics)
    gradient = torch.empty_like(x)
    if x.numel():
        elements = norms.gradient_dtype(x, weight)
        n_rows, programs, options = norm_launch.row_constants(f"{operation}_backward", x, elements)
        with launch.on_device(x):
            input_kernel[(programs,)](
                upstream,
                x,
                x if weight is None else weight.contiguous(),
                statistics,
                gradient,
                n_rows,
                x.shape[-1],
                CENTRED=_is_centred(statistics),
                HAS_WEIGHT=weight is not None,
                **options,
            )
    return gradient


def of_parameters(
    operation: str,
    upstream: Tensor,
    x: Tensor,
    statistics: Tensor,
    wanted: tuple[Tensor | None, Tensor | None],
) -> tuple[Tensor, Tensor]:
    """The gradients of weight and bias, each as the tensor in `wanted`; empty for None."""
    upstream, x, statistics = upstream.contiguous(), x.contiguous(), statistics.contiguous()
    of_weight, of_bias = empty_like_wanted(x, wanted)
    weight, bias = wanted
    if not launch.uses_triton(x):
        if weight is not None:
            of_weight = norm_formulas.weight_gradient(upstream, x, weight, statistics)
        if bias is not None:
            of_bias = norm_formulas.bias_gradient(upstream, bias)
    elif x.numel() == 0:
        of_weight, of_bias = of_weight.zero_(), of_bias.zero_()
    else:
        elements = norms.gradient_dtype(x, None)
        chunked = norm_launch.by_columns(f"{operation}_parameters", x, elements)
        partials = _partials(x, chunked, wanted)
        with launch.on_device(x):
            parameters_kernel[chunked.grid](
                upstream,
                x,
                statistics,
                *partials,
                chunked.n_rows,
                x.shape[-1],
                chunked.blocks,
                CENTRED=_is_centred(statistics),
                WANT_WEIGHT=weight is not None,
                WANT_BIAS=bias is not None,
                **chunked.constants,
            )
            _add_up(partials, (of_weight, of_bias))
    return of_weight, of_bias


def of_everything(
    operation: str,
    upstream: Tensor,
    x: Tensor,
    weight: Tensor | None,
    statistics: Tensor,
    wanted: tuple[Tensor | None, Tensor | None],
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias, from one read of x and upstream where a row fits on
    chip beside its sums; those of parameters as `of_parameters`.
    """
    upstream, x, statistics = upstream.contiguous(), x.contiguous(), statistics.contiguous()
    chunked = None
    if launch.uses_triton(x) and x.numel():
        family = f"{operation}_backward_with_parameters"
        chunked = norm_launch.by_rows(family, x, norms.gradient_dtype(x, weight))
    if chunked is None:
        of_rows = of_input(operation, upstream, x, weight, statistics)
        return of_rows, *of_parameters(operation, upstream, x, statistics, wanted)
    gradient = torch.empty_like(x)
    gradients = empty_like_wanted(x, wanted)
    partials = _partials(x, chunked, wanted)
    with launch.on_device(x):
        one_pass_kernel[chunked.grid](
            upstream,
            x,
            x if weight is None else weight.contiguous(),
            statistics,
            gradient,
            *partials,
            chunked.n_rows,
            x.shape[-1],
            chunked.blocks,
            CENTRED=_is_centred(statistics),
            HAS_WEIGHT=weight is not None,
            WANT_WEIGHT=wanted[0] is not None,
            WANT_BIAS=wanted[1] is not None,
            **chunked.constants,
        )
        _add_up(partials, gradients)
    of_weight, of_bias = gradients
    return gradient, of_weight, of_bias


def _partials(
    x: Tensor, chunked: norm_launch.Chunked, wanted: tuple[Tensor | None, ...]
) -> list[Tensor]:
    """Room for the sums of chunks, empty where a gradient is not wanted."""
    return [norm_launch.partial_sums(x, 0 if each is None else chunked.chunks) for each in wanted]


def _add_up(partials: list[Tensor], gradients: tuple[Tensor, ...]) -> None:
    for partial, gradient in zip(partials, gradients, strict=True):
        if partial.numel():
            norm_launch.add_up(partial, gradient)
