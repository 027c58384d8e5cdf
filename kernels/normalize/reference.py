"""Normalisation as people write it, and the stable formula that stands in for the kernel on a plain
CPU.

The first three divide by the Euclidean norm along `dim`, in the input's own dtype. Each says where
it breaks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import launch


def naive(input: Tensor, dim: int = -1) -> Tensor:  # (..., K, ...) -> the same
    """x / sqrt(sum x**2).

    Above sqrt(max / K) the squares overflow and x / inf is silently 0 (256 in fp16 for one element,
    1.8e19 in fp32). Where the squares underflow to 0 the result is inf, and the zero vector gives 0
    / 0.
    """
    return input / torch.sqrt((input * input).sum(dim=dim, keepdim=True))


def epsilon(input: Tensor, dim: int = -1) -> Tensor:  # (..., K, ...) -> the same
    """The usual advice: x / (sqrt(sum x**2) + 1e-12).

    Nothing changes on the high side. In fp16 1e-12 rounds to 0 and the zero vector is NaN still;
    elsewhere small vectors come out too short, and the gradient of the root at 0 is infinite, so
    the zero vector's gradient is NaN.
    """
    return input / (torch.sqrt((input * input).sum(dim=dim, keepdim=True)) + 1e-12)


def torch_native(input: Tensor, dim: int = -1) -> Tensor:  # (..., K, ...) -> the same
    """F.normalize: x / max(||x||, 1e-12).

    The norm overflows like the naive one in the accumulation's dtype, and x / inf is silently 0. In
    fp16 the floor rounds to 0 and the zero vector gives NaN.
    """
    return torch.nn.functional.normalize(input, dim=dim)


# --- the stable formula ---------------------------------------------------------------------------


def _largest_exponent(x: Tensor) -> Tensor:
    """Per row the exponent of its largest finite element, clamped as in `kernels.elementary`."""
    size = torch.where(torch.isfinite(x), x.abs(), 0.0)
    exponent = torch.frexp(size.amax(dim=-1)).exponent - 1
    limit = 1022 if x.dtype == torch.float64 else 126
    exponent = torch.where(size.amax(dim=-1) == 0, -limit, exponent)
    return exponent.clamp(-limit, limit).to(torch.int32)


def _power_of_two(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """2**exponent, exactly, from the exponent bits."""
    if dtype == torch.float64:
        return ((exponent.to(torch.int64) + 1023) << 52).view(dtype)
    return ((exponent.to(torch.int32) + 127) << 23).view(dtype)


def _times_power_of_two(value: Tensor, exponent: Tensor) -> Tensor:
    """Rows of fp64 times 2**exponent, in two steps in the same direction."""
    half = exponent >> 1
    value = value * _power_of_two(half, value.dtype)[:, None]
    return value * _power_of_two(exponent - half, value.dtype)[:, None]


def gradient_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that backward's kernel computes in: fp64, but for fp16, whose range is short."""
    return torch.float32 if dtype == torch.float16 else torch.float64


def _sum_squares(z: Tensor) -> Tensor:
    """The sum of z**2 over the last dimension, z within (-4, 4); in fp64 split as the kernel's."""
    if z.dtype != torch.float64:
        return z.square().sum(dim=-1)
    high = (z + 1.5 * 2.0**35) - 1.5 * 2.0**35
    return high.square().sum(dim=-1) + ((z - high) * (z + high)).sum(dim=-1)


def _below_floor(root: Tensor, exponent: Tensor, eps: float) -> Tensor:
    """Whether the norm root * 2**exponent is below eps."""
    floor = torch.full_like(root, eps)
    if eps < 1.0:
        return root < floor * _power_of_two(-exponent, root.dtype)
    left = root * _power_of_two(exponent.clamp(max=0), root.dtype)
    return left < floor * _power_of_two(-exponent.clamp(min=0), root.dtype)


def stable_forward(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:  # (N, K)
    """What the forward kernel computes: y, the exponent of s, and r."""
    if x.numel() == 0:
        statistics = launch.statistics_dtype(x.dtype)
        exponent = x.new_zeros(x.shape[0], dtype=torch.int32)
        return x.clone(), exponent, x.new_zeros(x.shape[0], dtype=statistics)
    wide = x.to(launch.statistics_dtype(x.dtype))
    finite = torch.isfinite(wide)
    clean = torch.where(finite, wide, 0.0)
    exponent = _largest_exponent(wide)
    inverse = _power_of_two(-exponent, wide.dtype)
    z = (clean * inverse[:, None]).to(launch.sum_dtype(x.dtype))
    root = _sum_squares(z).sqrt().to(wide.dtype)
    below = _below_floor(root, exponent, eps)
    scaled = clean * torch.where(below, 1.0, inverse)[:, None]
    denominator = torch.where(below, eps, root)
    denominator = torch.where(denominator > 0, denominator, 1.0)
    strange = torch.where(wide.isnan().any(dim=-1), torch.nan, torch.inf).to(wide.dtype)
    whole = finite.all(dim=-1)
    root = torch.where(whole, root, strange)
    denominator = torch.where(whole, denominator, root)
    y = torch.where(finite, scaled / denominator[:, None], torch.nan)
    return y.to(x.dtype), exponent, root


def stable_backward(
    upstream: Tensor,  # (N, K)
    x: Tensor,  # (N, K)
    exponent: Tensor,  # (N,)
    root: Tensor,  # (N,)
    eps: float,
) -> Tensor:
    """What the backward kernel computes: the gradient of x, 0 at the zero vector by policy."""
    if x.numel() == 0:
        return x.clone()
    dtype = root.dtype
    boost = 500 if dtype == torch.float64 else 0
    g = upstream.to(dtype)
    finite = torch.isfinite(g)
    zero = root == 0
    safe_root = torch.where(torch.isfinite(root) & ~zero, root, 1.0).double()[:, None]
    wide = x.to(dtype)
    wide = torch.where(torch.isfinite(wide), wide, 0.0).double()
    y = _times_power_of_two(wide, boost - exponent) / safe_root
    g_exponent = _largest_exponent(g)
    clean = torch.where(finite, g, 0.0).double()
    h = _times_power_of_two(clean, boost - g_exponent)
    dot = (y * h).sum(dim=-1, keepdim=True)
    h = _times_power_of_two(clean, 2 * boost - g_exponent)
    large = dot.abs() >= 1
    dot = torch.where(large, dot * 2.0**-boost, dot)
    along = (h - y * dot * torch.where(large, 1.0, 2.0**-boost)) / safe_root
    shift = g_exponent - exponent
    early = (shift < -boost)[:, None]
    along = torch.where(early, along * 2.0 ** (-2 * boost), along)
    along = _times_power_of_two(along, torch.where(early[:, 0], shift, shift - 2 * boost)).to(dtype)
    floored = (_below_floor(root, exponent, eps) | zero)[:, None]
    strange = ~torch.isfinite(root) | ~finite.all(dim=-1)
    along = torch.where(strange[:, None], torch.nan, along)
    flat = torch.where(zero[:, None] & finite, 0.0, g / (eps if eps > 0 else 1.0))
    return torch.where(floored, flat, along).to(x.dtype)
