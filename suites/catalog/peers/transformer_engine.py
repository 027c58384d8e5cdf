"""TransformerEngine's Triton cross-entropy (package transformer_engine, 2.20).

The package loads CUDA libraries, and its function refuses CPU tensors; the autograd function below
that check runs in the interpreter. Even the pure-Python wheel `transformer-engine` has it.
"""

import torch
from torch import Tensor

from suites.catalog.peers.imports import attribute, files_alone, function, triton_adapter

_CROSS_ENTROPY = "transformer_engine.pytorch.cross_entropy"
# Where its module takes a decorator from that pulls in ONNX; it only keeps torch.compile out.
_DECORATORS = (("transformer_engine.pytorch.jit", "no_torch_dynamo"),)


@triton_adapter
def cross_entropy(
    input: Tensor,  # (N, C), bf16 or fp32
    target: Tensor,  # (N,)
    *,
    label_smoothing: float = 0.0,
) -> Tensor:  # (N,)
    """transformer_engine.pytorch.parallel_cross_entropy on one device; it takes (batch, N, C)."""
    if input.is_cuda:
        fused = function(_CROSS_ENTROPY, "parallel_cross_entropy")
        return fused(input[None], target[None], label_smoothing)[0]
    module = files_alone(_CROSS_ENTROPY, stand_ins=_DECORATORS)
    if input.dtype not in (torch.bfloat16, torch.float32):  # the check that CPU tensors skip
        raise NotImplementedError("TransformerEngine's cross-entropy takes bf16 and fp32")
    apply = attribute(module, "CrossEntropyFunction").apply  # type: ignore[attr-defined]
    return apply(input[None], target[None], label_smoothing)[0]
