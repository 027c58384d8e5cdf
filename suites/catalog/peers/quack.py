"""quack (quack-kernels 0.6): kernels in NVIDIA's CuTe DSL, for Hopper and newer."""

import torch
from torch import Tensor

from suites.catalog.peers.imports import function, on_cuda, quiet, require

_NO_FP64 = "quack's kernels take fp16, bf16 and fp32"


def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """quack.cross_entropy, per row."""
    _check(input)
    with quiet():
        fused = function("quack.cross_entropy", "cross_entropy")
        return fused(input, target, weight=weight, reduction="none")


def linear_cross_entropy(input: Tensor, linear_weight: Tensor, target: Tensor) -> Tensor:
    """quack's unchunked linear cross-entropy: the chunked one returns only mean and sum."""
    _check(input)
    with quiet():
        fused = function("quack.linear_cross_entropy", "linear_cross_entropy_func")
        return fused(input, linear_weight, None, target, reduction="none")


def softmax(input: Tensor) -> Tensor:
    """quack.softmax along the last dimension."""
    _check(input)
    with quiet():
        return function("quack.softmax", "softmax")(input)


def rms_norm(input: Tensor, weight: Tensor, *, eps: float | None = None) -> Tensor:
    """quack.rmsnorm; `eps=None` is the input dtype's, as in torch."""
    _check(input)
    epsilon = torch.finfo(input.dtype).eps if eps is None else eps
    with quiet():
        return function("quack.rmsnorm", "rmsnorm")(input, weight, eps=epsilon)


def layer_norm(input: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5) -> Tensor:
    """quack.rmsnorm.layernorm_fwd: forward alone, weight and bias in fp32."""
    _check(input)
    with quiet():
        return function("quack.rmsnorm", "layernorm_fwd")(
            input.detach(), weight.float(), bias.float(), eps=eps
        )


def _check(input: Tensor) -> None:
    require("quack")
    on_cuda(input, "quack's CuTe kernels run on a CUDA device alone")
    if input.dtype is torch.float64:
        raise NotImplementedError(_NO_FP64)
