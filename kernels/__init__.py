"""Stable training kernels: the meaning of torch.nn.functional, right over the whole range.

Each operation promises a finite, accurate result and gradient wherever the truth is representable
in fp16, bf16, fp32 or fp64. CUDA tensors run through Triton, CPU tensors through the same kernel in
Triton's interpreter (TRITON_INTERPRET=1) or through a stable PyTorch formula. Imports torch and
triton, nothing else.
"""

from .binary_cross_entropy import binary_cross_entropy_with_logits
from .cross_entropy import cross_entropy, cross_entropy_with_gradient
from .layer_norm import layer_norm
from .linear_cross_entropy import linear_cross_entropy
from .normalize import normalize
from .rms_norm import rms_norm
from .softmax import log_softmax, softmax
from .weight_norm import FastNormLinear, WeightNormLinear, attach_fastnorm

__version__ = "0.1.0"

__all__ = [
    "FastNormLinear",
    "WeightNormLinear",
    "__version__",
    "attach_fastnorm",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "cross_entropy_with_gradient",
    "layer_norm",
    "linear_cross_entropy",
    "log_softmax",
    "normalize",
    "rms_norm",
    "softmax",
]
