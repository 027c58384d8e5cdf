"""`kernels.cross_entropy.exponential` and the soft cap once more, in PyTorch operations on fp64."""

from __future__ import annotations

import torch
from torch import Tensor

from ..formulas import leading_half, residual

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10


def _power_of_two(exponent: Tensor) -> Tensor:
    """2**exponent, exactly, from the exponent bits; `exponent` within fp64's normal range."""
    return ((exponent.to(torch.int64) + 1023) << 52).view(torch.float64)


def _exp_pair(x: Tensor, correction: Tensor, boost: int) -> tuple[Tensor, Tensor]:
    n = torch.round(x * 1.4426950408889634)
    high = x - n * _LN2_HIGH
    low = correction - n * _LN2_LOW
    r = high + low
    low = (high - r) + low
    series = torch.full_like(r, 1.0 / 6227020800.0)
    for factorial in (479001600, 39916800, 3628800, 362880, 40320, 5040, 720, 120, 24, 6, 2):
        series = series * r + 1.0 / factorial
    one = 1.0 + r
    rest = ((1.0 - one) + r) + (r * r * series + low)
    exponent = n.nan_to_num(0.0).to(torch.int64) + boost
    first, second = _power_of_two(exponent >> 1), _power_of_two(exponent - (exponent >> 1))
    return one * first * second, rest * first * second


def exp_pair(
    x: Tensor,
    reference: Tensor,  # finite, and at least x; an x above counts as the reference
    boost: int,
    precise: bool,
) -> tuple[Tensor, Tensor]:
    """exp(x - reference) * 2**boost as a sum of two terms, the second zero unless `precise`."""
    # Without a boost farther ones are zero, and leave what a power of two can be made of.
    far = x < reference - (1460.0 if boost > 0 else 800.0)
    near = torch.where(far | (x > reference), reference, x)
    difference = near - reference
    back = difference - near
    lost = (near - (difference - back)) - (reference + back)
    if precise:
        high, low = _exp_pair(difference, lost, boost)
    else:
        # fp64 is 2**29 times finer than the logits, and exponentials beyond 195 do not matter.
        high = torch.exp(difference) * 2.0**boost
        low = torch.zeros_like(high)
    return torch.where(far, 0.0, high), torch.where(far, 0.0, low)


def log1p(x: Tensor) -> Tensor:
    """torch's vectorised log1p flushes subnormals; there x is its own log1p."""
    return torch.where(x < 1e-300, x, torch.log1p(x))


def log_rest(logarithm: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """What a logarithm of (first + second) lacks: one step of Newton's, (first + second)
    exp(-logarithm) - 1, from a pair. Both are nonnegative, and not both zero.
    """
    finite = (logarithm.abs() < 700.0) & (first < 1e300) & (second < 1e300)
    first, second = torch.where(finite, first, 1.0), torch.where(finite, second, 0.0)
    whole = first + second
    lost = (torch.maximum(first, second) - whole) + torch.minimum(first, second)
    high, low = _exp_pair(torch.where(finite, logarithm, 0.0), torch.zeros_like(whole), 0)
    return ((whole - high) - low + lost) / whole


def sum_exactly(high: Tensor, low: Tensor | None = None) -> Tensor:
    """The sum over the last dimension of (high + low): parts that are multiples of a spacing add up
    exactly, the rest is small. Infinite and NaN terms count as they are.
    """
    if high.shape[-1] == 0:
        return high.sum(dim=-1)
    finite = torch.where(high.isfinite(), high, 0.0)
    top = finite.abs().amax(dim=-1, keepdim=True)
    spacing = torch.where(top < 1e295, top * (3.0 * 2.0**28), 0.0)
    coarse = (finite + spacing) - spacing
    rest = finite - coarse if low is None else (finite - coarse) + low
    return torch.where(high.isfinite(), coarse, high).sum(dim=-1) + rest.sum(dim=-1)


def times(value: Tensor, weight: Tensor) -> Tensor:
    """value * weight, 0 where one is zero and the other infinite; NaN stays NaN."""
    empty = ((weight == 0) & ~value.isnan()) | ((value == 0) & ~weight.isnan())
    return torch.where(empty, 0.0, value * weight)


def divide_pair(numerator: Tensor, high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """numerator / (high + low) as a sum of two terms, |low| being a rounding of high."""
    quotient = numerator / high
    # Near the largest float the residual's products would overflow.
    scale = torch.where(quotient.abs() > 1e290, 2.0**-60, torch.ones_like(quotient))
    rest = residual(numerator * scale, (quotient * scale).contiguous(), high.contiguous())
    rest = (rest - quotient * scale * low) / high / scale
    return quotient, torch.where(rest.isfinite(), rest, 0.0)


def scaled(
    high: Tensor,
    low: Tensor,
    factor_high: Tensor,
    factor_low: Tensor,
    boost: int,
    last: Tensor | float = 1.0,
) -> Tensor:
    """(high + low) / 2**boost * (factor_high + factor_low) * last, rounded to a subnormal at the
    end only.
    """
    large = factor_high.abs() >= 1
    one = torch.ones_like(factor_high)  # torch.where of two numbers would be fp32
    before, after = torch.where(large, 2.0**-boost, one), torch.where(large, one, 2.0**-boost)
    whole = (factor_high * before).contiguous()
    factor, high = leading_half(whole), high.contiguous()
    first = leading_half(high)
    rest, factor_rest = (high - first) + low, (whole - factor) + factor_low * before
    out = first * factor + (rest * whole + first * factor_rest)
    # What is not finite has no parts.
    return torch.where(out.isnan(), (high + low) * whole, out) * last * after


def soft_cap(x: Tensor, cap: float) -> Tensor:
    """cap * tanh(x / cap); x itself where the ratio is small, lest it be subnormal."""
    capped = cap * torch.tanh(x / cap)
    return torch.where(x.abs() * 2.0**27 < cap, x, capped)


def sloped(value: Tensor, x: Tensor, cap: float, boost: int, precise: bool) -> Tensor:
    """value times sech(x / cap)**2 = 4 e / (1 + e)**2, e = exp(-2 |x| / cap)."""
    size = x.abs()
    inside = size * 2.0**-10 < cap
    size = torch.where(inside, size, 0.0).contiguous()
    caps = torch.full_like(size, cap)
    ratio = (size / caps).contiguous()
    rest = torch.where(ratio > 1e-30, residual(size, ratio, caps), 0.0) / cap
    inside = inside & (ratio < 700.0)
    exponent = torch.where(inside, -2.0 * ratio, 0.0)
    if precise:
        high, low = _exp_pair(exponent, -2.0 * rest, boost - 2)
        power = high + low
    else:
        power = torch.exp(exponent - 2.0 * rest) * 2.0 ** (boost - 2)
    one = 1.0 + power * 2.0 ** (2 - boost)
    slope = 4.0 * power / (one * one)
    slope = torch.where(inside, slope, torch.where(x.isnan(), x, 0.0))
    large = value.abs() >= 1
    unboost = 2.0 ** (2 - boost)
    before = torch.where(large, value * unboost, value)
    return before * slope * torch.where(large, torch.ones_like(value), unboost)
