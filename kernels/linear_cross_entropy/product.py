"""Matrix products whose result is held in the statistics' dtype: fp32, or fp64 for fp64.

Logits rounded to half precision would carry an error of 0.4% of themselves, and the loss as much
of the largest logit. On a GPU half-precision factors are multiplied exactly and summed in fp32; a
wide factor (the gradient of the logits) times a half-precision one is split into two half-precision
terms, which hold 22 bits (fp16) or 16 bits (bf16) of it. Elsewhere the half-precision factor is
widened a piece at a time. fp32 products follow PyTorch's own switch for TF32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import launch

# Rows of the weight that are widened at a time, where no product of halves into fp32 exists.
_PIECE = 4096


def logits_of(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # (R, H), (V, H) -> (R, V)
    """x weightᵀ + bias."""
    wide = launch.statistics_dtype(x.dtype)
    if x.is_cuda and x.dtype != wide:
        logits = torch.mm(x, weight.t(), out_dtype=wide)
    else:
        logits = x.new_empty(x.shape[0], weight.shape[0], dtype=wide)
        for start in range(0, weight.shape[0], _PIECE):
            piece = slice(start, start + _PIECE)
            torch.mm(x.to(wide), weight[piece].to(wide).t(), out=logits[:, piece])
    return logits if bias is None else logits.add_(bias.to(wide))


def times_weight(gradient: Tensor, weight: Tensor) -> Tensor:  # (R, V), (V, H) -> (R, H)
    """gradient weight, for a gradient in the statistics' dtype."""
    wide = gradient.dtype
    if gradient.is_cuda and weight.dtype != wide:
        scale, terms = _split(gradient, weight.dtype)
        return sum(torch.mm(term, weight, out_dtype=wide) * unit for term, unit in terms) * scale
    total = gradient.new_zeros(gradient.shape[0], weight.shape[1])
    for start in range(0, weight.shape[0], _PIECE):
        piece = slice(start, start + _PIECE)
        total.addmm_(gradient[:, piece], weight[piece].to(wide))
    return total


def add_outer(total: Tensor, gradient: Tensor, x: Tensor) -> None:  # (V, H), (R, V), (R, H)
    """total += gradientᵀ x, all but x in the statistics' dtype."""
    wide = gradient.dtype
    if gradient.is_cuda and x.dtype != wide:
        scale, terms = _split(gradient, x.dtype)
        for term, unit in terms:
            total.add_(torch.mm(term.t(), x, out_dtype=wide) * (unit * scale))
    else:
        total.addmm_(gradient.t(), x.to(wide))


def _split(gradient: Tensor, half: torch.dtype) -> tuple[Tensor, list[tuple[Tensor, float]]]:
    """A scale and terms with gradient = scale (term1 unit1 + term2 unit2), terms in half precision.

    The scale is the power of two above the largest element, so that fp16's range is used whole;
    what is smaller than 2**-35 of that element is lost. No step waits for the device.
    """
    largest = torch.where(gradient.isfinite(), gradient.abs(), 0.0).amax()
    exponent = torch.frexp(largest).exponent.clamp(-100, 100)
    scale = torch.ldexp(torch.ones_like(largest), exponent)
    scaled = gradient / scale
    first = scaled.to(half)
    unit = 2.0**-11 if half == torch.float16 else 2.0**-8
    second = ((scaled - first.to(gradient.dtype)) / unit).to(half)
    return scale, [(first, 1.0), (second, unit)]
