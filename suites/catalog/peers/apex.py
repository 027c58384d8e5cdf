"""apex: CUDA kernels, built from source with their extensions (not the package of that name)."""

import torch
from torch import Tensor

from suites.catalog.peers.imports import function, on_cuda, quiet, require


def cross_entropy(input: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """apex.contrib.xentropy.SoftmaxCrossEntropyLoss, per row, the loss in fp32."""
    _check(input)
    with quiet():
        fused = function("apex.contrib.xentropy", "SoftmaxCrossEntropyLoss")
        half_to_float = input.dtype in (torch.float16, torch.bfloat16)
        apply = fused.apply  # type: ignore[attr-defined]
        return apply(input, target, label_smoothing, -100, half_to_float)


def rms_norm(input: Tensor, weight: Tensor, *, eps: float | None = None) -> Tensor:
    """apex.normalization's fused_rms_norm_affine; `eps=None` is the input dtype's, as in torch."""
    _check(input)
    epsilon = torch.finfo(input.dtype).eps if eps is None else eps
    with quiet():
        fused = function("apex.normalization.fused_layer_norm", "fused_rms_norm_affine")
        return fused(input, weight, list(input.shape[-1:]), epsilon)


def layer_norm(input: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5) -> Tensor:
    """apex.normalization's fused_layer_norm_affine over the last dimension."""
    _check(input)
    with quiet():
        fused = function("apex.normalization.fused_layer_norm", "fused_layer_norm_affine")
        return fused(input, weight, bias, list(input.shape[-1:]), eps)


def _check(input: Tensor) -> None:
    require("apex")
    on_cuda(input, "apex's kernels are CUDA code and run on a CUDA device alone")
