"""What the stable PyTorch formulas share: exponentials held where they cannot underflow."""

from __future__ import annotations

import torch
from torch import Tensor

# 64 ln 2 in two parts, as in `kernels.elementary`.
_SHIFT_HIGH, _SHIFT_LOW = 390207173010335.0 / 8796093022208.0, -5.62123739673937e-15


def exp_boosted(x: Tensor, reference: Tensor) -> Tensor:
    """2**64 exp(x - reference) in fp64, the subtraction's rounding folded in as
    `kernels.elementary` does.

    exp(x - reference) may be subnormal, and would lose its bits. Where it is small 2**64 enters
    through the exponent.
    """
    x, reference = x.double(), reference.double()
    difference = x - reference
    back = difference - x
    lost = (x - (difference - back)) - (reference + back)
    low = (difference < -600).double()
    value = torch.exp(difference + low * _SHIFT_HIGH)
    correction = lost + low * _SHIFT_LOW
    value = torch.where(torch.isfinite(lost), value + value * correction, value)
    return value * torch.where(low > 0, 1.0, 2.0**64)


def leading_half(x: Tensor) -> Tensor:
    """x of fp64, rounded to half its significant bits: a product of two such halves is exact."""
    return ((x.contiguous().view(torch.int64) + 0x4000000) & -0x8000000).view(torch.float64)


def residual(numerator: Tensor, quotient: Tensor, denominator: Tensor) -> Tensor:
    """numerator - quotient * denominator for the rounded quotient, from exact products."""
    q_high, d_high = leading_half(quotient), leading_half(denominator)
    q_low, d_low = quotient - q_high, denominator - d_high
    return (((numerator - q_high * d_high) - q_high * d_low) - q_low * d_high) - q_low * d_low
