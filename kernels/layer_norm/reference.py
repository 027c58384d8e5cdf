"""Layer normalisation as people write it, and the stable formula that stands in for the kernel on a
plain CPU.

The first four take rows (..., K), a weight and a bias (K,). Each says where it breaks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import launch, norm_formulas, norms


def _affine(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def naive(
    input: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / sqrt(mean((x - mean)**2) + eps) * weight + bias in the input's own dtype.

    From sqrt(max) on the squares overflow and the result is silently the bias; a sum overflows, and
    then the mean is infinite and the result NaN. In bf16 and fp16 the mean itself is rounded, and a
    row with a large offset loses its noise. In fp16 an eps of 1e-12 is 0 and a constant row 0 / 0.
    """
    mean = input.mean(dim=-1, keepdim=True)
    centred = input - mean
    y = centred / torch.sqrt(centred.square().mean(dim=-1, keepdim=True) + eps)
    return _affine(y, weight, bias)


def one_pass(
    input: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """The variance as mean(x**2) - mean(x)**2, which needs one pass over the data.

    The two cancel: at an offset of 4,000 times the spread fp32 keeps nothing of it, the difference
    comes out negative, and its root is NaN where eps does not cover it. The gradient goes first.
    """
    mean = input.mean(dim=-1, keepdim=True)
    variance = input.square().mean(dim=-1, keepdim=True) - mean.square()
    return _affine((input - mean) * torch.rsqrt(variance + eps), weight, bias)


def upcast(
    input: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """F.layer_norm of the input in fp32, cast back to its dtype: the usual advice for training in
    half precision.

    Right for fp16's whole range; in bf16 and fp32 squares overflow from 1.8e19 on, and fp64 inputs
    are silently computed in fp32. The cast back of an fp16 gradient may be infinite, or NaN behind
    it: a constant row with eps=1e-12 divides what is left of the upstream gradient by 1e-6.
    """
    shape = input.shape[-1:]
    weight, bias = (None if each is None else each.float() for each in (weight, bias))
    wide = torch.nn.functional.layer_norm(input.float(), shape, weight, bias, eps)
    return wide.to(input.dtype)


def torch_native(
    input: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """torch.nn.functional.layer_norm.

    Statistics in fp32 (fp64 for fp64), by Welford's method. The squares overflow there from
    sqrt(max) on: the result is the bias, or NaN where infinities are merged, depending on the
    width.
    """
    return torch.nn.functional.layer_norm(input, input.shape[-1:], weight, bias, eps)


# --- the stable formula ---------------------------------------------------------------------------


def stable_forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """What the forward kernel computes: y and the statistics (..., 5) of rows (..., K)."""
    if x.numel() == 0:
        return x.clone(), x.new_zeros((*x.shape[:-1], 5), dtype=torch.float64)
    wide_weight, wide_bias = (None if each is None else each.double() for each in (weight, bias))
    if x.dtype != torch.float64:
        wide = x.double()
        mean = wide.mean(dim=-1, keepdim=True)
        centred = wide - mean
        root = (centred.square().mean(dim=-1, keepdim=True) + eps).sqrt()
        y = _affine(centred / norm_formulas.safe(root), wide_weight, wide_bias)
        nothing = torch.zeros_like(root)
        return y.to(x.dtype), torch.cat([root, nothing, mean, nothing, nothing], dim=-1)
    least = norms.least_exponent(eps, x.dtype)
    exponent = norm_formulas.row_exponent(x, least)
    z = norm_formulas.shift(x, -exponent)
    mean, low, squares = norm_formulas.moments(z)
    floor = norm_formulas.shift(torch.full_like(mean, eps), -2 * exponent)
    root = (squares / x.shape[-1] + floor).sqrt()
    y = ((z - mean) - low) / norm_formulas.safe(root)
    # Half of each term, so that the bias may bring back a product that would overflow.
    half_bias = None if wide_bias is None else wide_bias * 0.5
    y = _affine(y * 0.5, wide_weight, half_bias) * 2.0
    # Beside the squares of a large row eps may vanish, but not where they are 0.
    constant = squares == 0
    alone = norm_formulas.shift(torch.full_like(mean, eps), torch.full_like(exponent, -2 * least))
    root = torch.where(constant, alone.sqrt(), root)
    root_exponent = torch.where(constant, least, exponent)
    return y, torch.cat([root, root_exponent.double(), mean, low, exponent.double()], dim=-1)


def plain(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """The same value in operations that torch differentiates any number of times.

    Scaled by a constant power of two, so that the variance stays within range; second derivatives
    are taken from this.
    """
    wide = x.to(launch.statistics_dtype(x.dtype))
    exponent = torch.frexp(wide.detach().abs().amax(dim=-1, keepdim=True)).exponent
    least = (math.frexp(eps)[1] - 1) // 2 if eps > 0 else -1074
    scale = torch.ldexp(torch.ones_like(wide[..., :1]), exponent.clamp(max(least, -100), 100))
    z = wide / scale
    centred = z - z.mean(dim=-1, keepdim=True)
    under = centred.square().mean(dim=-1, keepdim=True) + eps / scale / scale
    zero = under == 0  # with eps = 0 a constant row gives zeros by policy
    y = torch.where(zero, 0.0, centred * torch.where(zero, 1.0, under).rsqrt())
    parameters = (None if each is None else each.to(y.dtype) for each in (weight, bias))
    return _affine(y, *parameters).to(x.dtype)
