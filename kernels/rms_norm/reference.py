"""RMS normalisation as people write it, and the stable formula that stands in for the kernel on a
plain CPU.

The first four take rows (..., K) and a weight (K,). Each says where it breaks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import launch, norm_formulas, norms


def naive(input: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """x / sqrt(mean(x**2) + eps) * weight, the textbook formula in the input's own dtype.

    From sqrt(max) on the squares overflow, the root is inf and the result silently 0, gradient
    included (256 in fp16, 1.8e19 in bf16 and fp32); a sum of many squares overflows sooner. In fp16
    an eps of 1e-6 has 4 bits and one of 1e-8 is 0; where squares and eps both vanish the result is
    inf, and a row of zeros 0 / 0.
    """
    y = input / (input.square().mean(dim=-1, keepdim=True) + eps).sqrt()
    return y if weight is None else y * weight


def rsqrt(input: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """x * rsqrt(mean(x**2) + eps) * weight in the input's own dtype, as in many repositories.

    Breaks where the textbook formula does. rsqrt(inf) is 0, so that overflow shows as zeros and
    never as NaN; a rounded rsqrt costs one more rounding.
    """
    y = input * torch.rsqrt(input.square().mean(dim=-1, keepdim=True) + eps)
    return y if weight is None else y * weight


def upcast(input: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """Computed in fp32 and cast back before the weight, as Hugging Face's LlamaRMSNorm does.

    Right for fp16's whole range; for bf16 and fp32 squares overflow from 1.8e19 on and the result
    is 0. The weight multiplies a result that is already rounded: one rounding more. fp64 inputs are
    silently computed in fp32.
    """
    wide = input.to(torch.float32)
    y = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    y = y.to(input.dtype)
    return y if weight is None else weight * y


def torch_native(input: Tensor, weight: Tensor | None = None, eps: float | None = 1e-6) -> Tensor:
    """torch.nn.functional.rms_norm.

    Half precision is computed in fp32; the squares overflow there, and in fp32 and fp64 inputs, and
    x * rsqrt(inf) is silently 0.
    """
    return torch.nn.functional.rms_norm(input, input.shape[-1:], weight, eps)


# --- the stable formula ---------------------------------------------------------------------------


def stable_forward(x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """What the forward kernel computes: y and the statistics (..., 2) of rows (..., K)."""
    if x.numel() == 0:
        return x.clone(), x.new_zeros((*x.shape[:-1], 2), dtype=torch.float64)
    n_columns = x.shape[-1]
    if x.dtype != torch.float64:
        wide = x.double()
        root = (wide.square().mean(dim=-1, keepdim=True) + eps).sqrt()
        y = wide / norm_formulas.safe(root)
        y = y if weight is None else y * weight.double()
        return y.to(x.dtype), torch.cat([root, torch.zeros_like(root)], dim=-1)
    exponent = norm_formulas.row_exponent(x, norms.least_exponent(eps, x.dtype))
    z = norm_formulas.shift(x, -exponent)
    floor = norm_formulas.shift(torch.full_like(z[..., :1], eps), -2 * exponent)
    under = norm_formulas.sum_squares(z) / n_columns + floor
    y = norm_formulas.quotient_times(
        x, None if weight is None else weight.double(), exponent, under
    )
    return y, torch.cat([under.sqrt(), exponent.double()], dim=-1)


def plain(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:  # (..., K) -> the same
    """The same value in operations that torch differentiates any number of times.

    Scaled by a constant power of two, so that the mean square stays within range; second
    derivatives are taken from this.
    """
    wide = x.to(launch.statistics_dtype(x.dtype))
    exponent = torch.frexp(wide.detach().abs().amax(dim=-1, keepdim=True)).exponent
    least = (math.frexp(eps)[1] - 1) // 2 if eps > 0 else -1074
    scale = torch.ldexp(torch.ones_like(wide[..., :1]), exponent.clamp(max(least, -100), 100))
    z = wide / scale
    under = z.square().mean(dim=-1, keepdim=True) + eps / scale / scale
    zero = under == 0  # with eps = 0 a row of zeros is constant by policy
    y = torch.where(zero, 0.0, z * torch.where(zero, 1.0, under).rsqrt())
    return (y if weight is None else y * weight.to(y.dtype)).to(x.dtype)
