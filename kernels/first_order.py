"""Gradients that can be taken once, and say so when a second derivative is asked for.

torch's own `once_differentiable` raises only where the upstream gradient itself requires one; in
the usual case, a penalty on the gradient of the input, it silently treats that gradient as constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class FirstOrder(torch.autograd.Function):
    """operator(*arguments), computed in a backward pass; differentiating it raises RuntimeError."""

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
