"""flash-attn's Triton cross-entropy and norms (package flash_attn, 2.8).

Its package loads a CUDA extension; its Triton files do not need it. The cross-entropy runs in the
interpreter from its file alone; the norms ask a GPU for its properties while they are imported.
"""

import torch
from torch import Tensor

from suites.catalog.peers.imports import attribute, files_alone, function, triton_adapter

_CROSS_ENTROPY = "flash_attn.ops.triton.cross_entropy"
_NORMS = "flash_attn.ops.triton.layer_norm"


@triton_adapter
def cross_entropy(
    input: Tensor,  # (N, C)
    target: Tensor,  # (N,)
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Tensor:  # (N,)
    """flash_attn.ops.triton.cross_entropy.cross_entropy_loss, its losses without the z-losses."""
    if input.is_cuda:
        fused = function(_CROSS_ENTROPY, "cross_entropy_loss")
    else:
        fused = attribute(files_alone(_CROSS_ENTROPY), "cross_entropy_loss")
    losses, _ = fused(input, target, label_smoothing=label_smoothing, lse_square_scale=z_loss)
    return losses


@triton_adapter
def rms_norm(input: Tensor, weight: Tensor, *, eps: float | None = None) -> Tensor:
    """flash_attn.ops.triton.layer_norm.rms_norm_fn; `eps=None` as in torch: the dtype's own."""
    epsilon = torch.finfo(input.dtype).eps if eps is None else eps
    return function(_NORMS, "rms_norm_fn")(input, weight, None, eps=epsilon)


@triton_adapter
def layer_norm(input: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5) -> Tensor:
    """flash_attn.ops.triton.layer_norm.layer_norm_fn."""
    return function(_NORMS, "layer_norm_fn")(input, weight, bias, eps=eps)
