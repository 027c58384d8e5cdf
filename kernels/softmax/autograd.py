"""softmax and log-softmax as operators that torch knows, and as a function that autograd knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import launch
from ..transforms import batched, differentiable, fold
from . import fused, fused_backward, reference

# --- operators: allocate and launch ---------------------------------------------------------------


def _rows_and_options(
    family: str, x: Tensor, log: bool
) -> tuple[tuple[int, int], int, dict[str, Any]]:
    """(rows, columns), the number of programs, and the kernels' compile-time arguments."""
    n_columns = x.shape[-1]
    n_rows = x.numel() // n_columns
    programs, options = launch.row_launch(family, x, n_rows, n_columns)
    constants = {
        "LOG": log,
        "STATISTICS": launch.triton_dtype(launch.statistics_dtype(x.dtype)),
    }
    return (n_rows, n_columns), programs, constants | options


def _empty_outputs(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    maximum = x.new_empty(x.shape[:-1], dtype=launch.statistics_dtype(x.dtype))
    normalizer = x.new_empty(x.shape[:-1], dtype=launch.sum_dtype(dtype))
    return x.new_empty(x.shape, dtype=dtype), maximum, normalizer


@torch.library.custom_op("kernels::softmax_forward", mutates_args=())
def forward_op(x: Tensor, log: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """softmax or log-softmax in `dtype`, m and d, for rows (..., K).

    `dtype` is that of x, or fp32 for half precision: then x is widened as it is read.
    """
    x = x.contiguous()
    if not launch.uses_triton(x):
        return reference.stable_forward(x, log, dtype)
    y, maximum, normalizer = _empty_outputs(x, dtype)
    if x.numel():
        size, programs, options = _rows_and_options("softmax_forward", x, log)
        with launch.on_device(x):
            sums = launch.triton_dtype(launch.sum_dtype(dtype))
            fused._forward_kernel[(programs,)](
                x, y, maximum, normalizer, *size, SUMS=sums, **options
            )
    return y, maximum, normalizer


@forward_op.register_fake
def _(x: Tensor, log: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_outputs(x, dtype)


def _held_in(dtype: torch.dtype) -> tuple[torch.dtype, int]:
    """What backward holds exponentials in, and times which power of two, so that one times an
    upstream gradient of this dtype is lost only where nothing would be left of it.
    """
    if dtype == torch.float16:
        return torch.float32, 64
    return torch.float64, 1023 if dtype == torch.float64 else 0


@torch.library.custom_op("kernels::softmax_backward", mutates_args=())
def backward_op(
    upstream: Tensor, x: Tensor, maximum: Tensor, normalizer: Tensor, log: bool
) -> Tensor:
    """The gradient of rows x (..., K) for an upstream gradient of that shape, from m and d."""
    upstream, x = upstream.contiguous(), x.contiguous()
    maximum, normalizer = maximum.contiguous(), normalizer.contiguous()
    if not launch.uses_triton(x):
        return reference.stable_backward(upstream, x, maximum, normalizer, log)
    gradient = torch.empty_like(x)
    if x.numel():
        held, boost = _held_in(upstream.dtype)
        size, programs, options = _rows_and_options("softmax_backward", x, log)
        with launch.on_device(x):
            fused_backward._backward_kernel[(programs,)](
                upstream, x, maximum, normalizer, gradient, *size,
                WIDE=launch.triton_dtype(held), BOOST=boost, **options,
            )  # fmt: skip
    return gradient


@backward_op.register_fake
def _(upstream: Tensor, x: Tensor, maximum: Tensor, normalizer: Tensor, log: bool) -> Tensor:
    return x.new_empty(x.shape)


# --- autograd -------------------------------------------------------------------------------------


class Softmax(torch.autograd.Function):
    """softmax or log-softmax, m and d, for rows (..., K). Saves the statistics, not the result."""

    @staticmethod
    def forward(x: Tensor, log: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        return forward_op(x, log, dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, ctx.log, _ = inputs
        _, maximum, normalizer = output
        ctx.mark_non_differentiable(maximum, normalizer)
        ctx.save_for_backward(x, maximum, normalizer)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        arguments = (grad, *ctx.saved_tensors, ctx.log)
        return differentiable(backward_op, _gradient_formula, *arguments), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        return batched(Softmax.apply(*fold(info, in_dims, arguments)))


def _gradient_formula(
    upstream: Tensor, x: Tensor, maximum: Tensor, normalizer: Tensor, log: bool
) -> Tensor:
    """What backward_op computes, in PyTorch operations that can be differentiated again."""
    function = torch.log_softmax if log else torch.softmax
    pull = torch.func.vjp(lambda x: function(x, -1, dtype=upstream.dtype), x)[1]
    return pull(upstream)[0]
