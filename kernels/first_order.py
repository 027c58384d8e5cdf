"""Gradients that can be taken once, and say so when a second derivative is asked for.

torch's own `once_differentiable` raises only where the upstream gradient itself requires one; in
the usual case, a penalty on the gradient of the input, it silently treats that as constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def first_order(name: str, operator: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """operator(*arguments), for a backward pass; differentiating the result raises RuntimeError.

    In a compiled graph torch itself refuses second derivatives, and cannot trace a function within
    a function's backward: there the operator is called as it is.
    """
    if torch.compiler.is_compiling():
        return operator(*arguments)
    gradient: Tensor = _FirstOrder.apply(name, operator, *arguments)
    return gradient


class _FirstOrder(torch.autograd.Function):
    @staticmethod
    def forward(name: str, operator: Callable[..., Tensor], *arguments: Any) -> Tensor:
        return operator(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.name = inputs[0]

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(
            f"kernels.{ctx.name} has a first derivative only: its gradient cannot be "
            "differentiated again (called with create_graph=True, or inside another transform)"
        )
