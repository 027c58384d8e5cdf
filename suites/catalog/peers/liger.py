"""Liger (liger-kernel): fused Triton kernels, which run in the interpreter too.

Its norms take their `eps` as a kernel argument and call `.to` on it, and take `rsqrt` from CUDA's
library of mathematical functions. In the interpreter the first is a plain float and the second
returns nothing, so there, and only there, both get a stand-in of the same value.
"""

import importlib
from functools import cache
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from kernels import launch
from suites.catalog.peers.imports import function, triton_adapter

_FUNCTIONS = "liger_kernel.transformers.functional"


@triton_adapter
def cross_entropy(
    input: Tensor,  # (N, C) logits
    target: Tensor,  # (N,) classes
    weight: Tensor | None = None,  # (C,)
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> Tensor:  # (N,)
    """Liger's fused cross-entropy, which writes its gradient over the logits in forward."""
    fused = function(_FUNCTIONS, "liger_cross_entropy")
    loss = fused(
        input,
        target,
        weight,
        reduction="none",
        label_smoothing=label_smoothing,
        lse_square_scale=z_loss,
        softcap=softcap,
    )
    return loss[0] if isinstance(loss, tuple) else loss


@triton_adapter
def linear_cross_entropy(
    input: Tensor,  # (N, H)
    linear_weight: Tensor,  # (C, H)
    target: Tensor,  # (N,)
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> Tensor:  # (N,)
    """Liger's fused linear cross-entropy, chunked over the rows, its gradient formed in forward."""
    fused = function(_FUNCTIONS, "liger_fused_linear_cross_entropy")
    loss = fused(
        input,
        linear_weight,
        target,
        reduction="none",
        label_smoothing=label_smoothing,
        lse_square_scale=z_loss,
        softcap=softcap,
    )
    return loss[0] if isinstance(loss, tuple) else loss


@triton_adapter
def softmax(input: Tensor) -> Tensor:
    """Liger's softmax along the last dimension."""
    return function(_FUNCTIONS, "liger_softmax")(input)


@triton_adapter
def rms_norm(input: Tensor, weight: Tensor, *, eps: float | None = None) -> Tensor:
    """Liger's RMSNorm in its default casting mode; `eps=None` is the input dtype's, as in torch."""
    fused = function(_FUNCTIONS, "liger_rms_norm")
    epsilon = torch.finfo(input.dtype).eps if eps is None else eps
    return fused(input, weight, _scalar(epsilon, "rms_norm"), _scalar(0.0, "rms_norm"))


@triton_adapter
def layer_norm(input: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Liger's LayerNorm over the last dimension."""
    return function(_FUNCTIONS, "liger_layer_norm")(input, weight, bias, _scalar(eps, "layer_norm"))


class _InterpretedFloat(float):
    """A kernel's scalar argument as the interpreter lacks it: with the cast that kernels call."""

    def to(self, dtype: Any) -> float:
        return float(torch.tensor(self).float()) if dtype == tl.float32 else float(self)


def _scalar(value: float, kernels: str) -> float:
    if not launch.INTERPRETED:
        return value
    _give_interpreter_rsqrt(kernels)
    return _InterpretedFloat(value)


@cache
def _give_interpreter_rsqrt(kernels: str) -> None:
    """libdevice's functions have no body outside a GPU; Triton's own rsqrt is the same function."""
    module = importlib.import_module(f"liger_kernel.ops.{kernels}")
    # Looked up when called: the interpreter replaces Triton's functions for each launch.
    module.__dict__["rsqrt"] = lambda value: tl.math.rsqrt(value)
