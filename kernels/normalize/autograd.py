"""x / max(||x||, eps) as operators that torch knows, and as a function that autograd knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import launch
from ..transforms import batched, differentiable, fold
from . import fused, reference

# --- operators: allocate and launch ---------------------------------------------------------------


def _runs_fused(x: Tensor, p: float) -> bool:
    return p == 2.0 and launch.uses_triton(x)


def _rows_and_options(
    family: str, x: Tensor, eps: float
) -> tuple[tuple[int, int], int, dict[str, Any]]:
    """(rows, columns), the number of programs, and the kernels' compile-time arguments."""
    n_columns = x.shape[-1]
    n_rows = x.numel() // n_columns
    programs, constants = launch.row_launch(family, x, n_rows, n_columns)
    constants |= {"EPS": eps, "STATISTICS": launch.triton_dtype(launch.statistics_dtype(x.dtype))}
    return (n_rows, n_columns), programs, constants


def _empty_outputs(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    exponent = x.new_empty(x.shape[:-1], dtype=torch.int32)
    root = x.new_empty(x.shape[:-1], dtype=launch.statistics_dtype(x.dtype))
    return x.new_empty(x.shape), exponent, root


@torch.library.custom_op("kernels::normalize_forward", mutates_args=())
def forward_op(x: Tensor, p: float, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """y, the exponent of s, and r, for rows (..., K)."""
    x = x.contiguous()
    if not _runs_fused(x, p):
        return reference.stable_forward(x, p, eps)
    y, exponent, root = _empty_outputs(x)
    if x.numel():
        size, programs, options = _rows_and_options("normalize_forward", x, eps)
        with launch.on_device(x):
            sums = launch.triton_dtype(launch.sum_dtype(x.dtype))
            fused._forward_kernel[(programs,)](x, y, exponent, root, *size, SUMS=sums, **options)
    return y, exponent, root


@forward_op.register_fake
def _(x: Tensor, p: float, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_outputs(x)


@torch.library.custom_op("kernels::normalize_backward", mutates_args=())
def backward_op(
    upstream: Tensor, x: Tensor, exponent: Tensor, root: Tensor, p: float, eps: float
) -> Tensor:
    """The gradient of rows x (..., K) for an upstream gradient of that shape, from s and r."""
    upstream, x = upstream.contiguous(), x.contiguous()
    exponent, root = exponent.contiguous(), root.contiguous()
    if not _runs_fused(x, p):
        return reference.stable_backward(upstream, x, exponent, root, p, eps)
    gradient = torch.empty_like(x)
    if x.numel():
        size, programs, options = _rows_and_options("normalize_backward", x, eps)
        with launch.on_device(x):
            wide = launch.triton_dtype(reference.gradient_dtype(x.dtype))
            fused._backward_kernel[(programs,)](
                upstream, x, exponent, root, gradient, *size, WIDE=wide, **options
            )
    return gradient


@backward_op.register_fake
def _(upstream: Tensor, x: Tensor, exponent: Tensor, root: Tensor, p: float, eps: float) -> Tensor:
    return x.new_empty(x.shape)


# --- autograd -------------------------------------------------------------------------------------


class Normalize(torch.autograd.Function):
    """y, the exponent of s, and r, for rows (..., K). Saves the statistics, not y."""

    @staticmethod
    def forward(x: Tensor, p: float, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        return forward_op(x, p, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, ctx.p, ctx.eps = inputs
        _, exponent, root = output
        ctx.mark_non_differentiable(exponent, root)
        ctx.save_for_backward(x, exponent, root)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        arguments = (grad, *ctx.saved_tensors, ctx.p, ctx.eps)
        return differentiable(backward_op, _gradient_formula, *arguments), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        return batched(Normalize.apply(*fold(info, in_dims, arguments)))


def _gradient_formula(
    upstream: Tensor, x: Tensor, exponent: Tensor, root: Tensor, p: float, eps: float
) -> Tensor:
    """What backward_op computes, in PyTorch operations that can be differentiated again."""
    pull = torch.func.vjp(lambda x: reference.plain(x, p, eps), x)[1]
    gradient: Tensor = pull(upstream)[0]
    return gradient
