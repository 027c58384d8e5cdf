"""FlagGems (flag-gems 5.0): torch's operators in Triton.

Importing it asks a device for its name, and its kernels are autotuned on one, so that the
interpreter cannot run them. Its operators are called by name: `flag_gems.enable()` would replace
torch's for the whole process, and with them the other paths' and the harness's own.
"""

from typing import Any

import torch
from torch import Tensor

from suites.catalog.peers.imports import function, on_cuda, quiet, require


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """flag_gems.cross_entropy_loss, per row."""
    _check(input)
    with quiet():
        fused = function("flag_gems", "cross_entropy_loss")
        return fused(input, target, weight, "none", -100, label_smoothing)


def softmax(input: Tensor) -> Tensor:
    """flag_gems.softmax along the last dimension, with flag_gems.softmax_backward."""
    _check(input)
    with quiet():
        return _Exponentials.apply(input, "softmax")


def log_softmax(input: Tensor) -> Tensor:
    """flag_gems.log_softmax along the last dimension, with flag_gems.log_softmax_backward."""
    _check(input)
    with quiet():
        return _Exponentials.apply(input, "log_softmax")


def rms_norm(input: Tensor, weight: Tensor, *, eps: float | None = None) -> Tensor:
    """flag_gems.rms_norm; `eps=None` is the input dtype's, as in torch."""
    _check(input)
    epsilon = torch.finfo(input.dtype).eps if eps is None else eps
    with quiet():
        return function("flag_gems", "rms_norm")(input, list(input.shape[-1:]), weight, epsilon)


def layer_norm(input: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5) -> Tensor:
    """flag_gems.layer_norm over the last dimension, with flag_gems.layer_norm_backward."""
    _check(input)
    with quiet():
        return _LayerNorm.apply(input, weight, bias, eps)


class _Exponentials(torch.autograd.Function):
    """Its operators stand for torch's own, backward ones included, and carry no autograd."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, name: str) -> Tensor:
        output = function("flag_gems", name)(input, -1)
        ctx.save_for_backward(output)
        ctx.name, ctx.dtype = name, input.dtype
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (output,) = ctx.saved_tensors
        derive = function("flag_gems", f"{ctx.name}_backward")
        return derive(gradients[0], output, -1, ctx.dtype), None


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        shape = list(input.shape[-1:])
        output, mean, rstd = function("flag_gems", "layer_norm")(input, shape, weight, bias, eps)
        ctx.save_for_backward(input, weight, bias, mean, rstd)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        input, weight, bias, mean, rstd = ctx.saved_tensors
        derive = function("flag_gems", "layer_norm_backward")
        shape = list(input.shape[-1:])
        found = derive(gradients[0], input, shape, mean, rstd, weight, bias, [True, False, False])
        return found[0], None, None, None


def _check(input: Tensor) -> None:
    require("flag_gems")
    on_cuda(input, "FlagGems asks a CUDA device for its name and times its kernels on it")
