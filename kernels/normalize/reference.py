"""Normalisation as people write it, and the stable formula that stands in for the kernel on a plain
CPU.

The first three divide by the Euclidean norm along `dim`, in the input's own dtype. Each says where
it breaks.
"""

from __future__ import annotations

import math

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
    """Rows of fp64 times 2**exponent, |exponent| <= 2044, in two steps in the same direction."""
    half = exponent >> 1
    value = value * _power_of_two(half, value.dtype)[..., None]
    return value * _power_of_two(exponent - half, value.dtype)[..., None]


def gradient_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that backward's kernel computes in: fp64, but for fp16, whose range is short."""
    return torch.float32 if dtype == torch.float16 else torch.float64


def _sum_squares(z: Tensor) -> Tensor:
    """The sum of z**2 over the last dimension, z within (-4, 4); in fp64 split as the kernel's."""
    if z.dtype != torch.float64:
        return z.square().sum(dim=-1)
    high = (z + 1.5 * 2.0**35) - 1.5 * 2.0**35
    return high.square().sum(dim=-1) + ((z - high) * (z + high)).sum(dim=-1)


def _root(z: Tensor, p: float) -> Tensor:
    """(sum |z|**p)**(1/p) over the last dimension, the largest |z| within [1, 2) or all zero.

    Other than for p = 2 in fp64, and relative to the largest element, so that no power exceeds 1:
    2**p overflows from p = 1024 on.
    """
    if p == 2.0:
        return _sum_squares(z).sqrt()
    if p == math.inf:
        return z.abs().amax(dim=-1)
    top = z.abs().amax(dim=-1)
    part = z.abs().double() / torch.where(top == 0, 1.0, top).double()[..., None]
    return torch.where(top == 0, 0.0, top.double() * part.pow(p).sum(dim=-1).pow(1 / p))


def _pull(y: Tensor, p: float) -> Tensor:
    """d ||x|| / dx at a point whose direction is y: sign(y) |y|**(p-1), fp64 rows (N, K).

    At a zero, where p < 1 has no derivative and p = 1 has several, it is 0, as torch has it.
    """
    if p == 2.0:
        return y
    if p == math.inf:  # shared by all that are largest, as torch has it
        at_top = (y.abs() == y.abs().amax(dim=-1, keepdim=True)).double()
        return y.sign() * at_top / at_top.sum(dim=-1, keepdim=True)
    size = torch.where(y == 0, 1.0, y.abs())
    return torch.where(y == 0, 0.0, y.sign() * size.pow(p - 1))


def _below_floor(root: Tensor, exponent: Tensor, eps: float) -> Tensor:
    """Whether the norm root * 2**exponent is below eps."""
    floor = torch.full_like(root, eps)
    if eps < 1.0:
        return root < floor * _power_of_two(-exponent, root.dtype)
    left = root * _power_of_two(exponent.clamp(max=0), root.dtype)
    return left < floor * _power_of_two(-exponent.clamp(min=0), root.dtype)


def _floored_count(count: Tensor, eps: float) -> Tensor:
    """The denominator for p = 0, the number of nonzero elements; 1 where that and eps are 0."""
    floored = count.clamp(min=eps)
    return torch.where(floored > 0, floored, 1.0)[..., None]


def stable_forward(x: Tensor, p: float, eps: float) -> tuple[Tensor, Tensor, Tensor]:  # (..., K)
    """What the forward kernel computes, for any p: y, the exponent of s, and r."""
    if x.numel() == 0:
        statistics = launch.statistics_dtype(x.dtype)
        exponent = x.new_zeros(x.shape[:-1], dtype=torch.int32)
        return x.clone(), exponent, x.new_zeros(x.shape[:-1], dtype=statistics)
    wide = x.to(launch.statistics_dtype(x.dtype))
    if p == 0.0:
        count = (x != 0).sum(dim=-1).to(wide.dtype)
        y = wide / _floored_count(count, eps)
        return y.to(x.dtype), torch.zeros_like(count, dtype=torch.int32), count
    finite = torch.isfinite(wide)
    clean = torch.where(finite, wide, 0.0)
    exponent = _largest_exponent(wide)
    inverse = _power_of_two(-exponent, wide.dtype)
    z = (clean * inverse[..., None]).to(launch.sum_dtype(x.dtype))
    root = _root(z, p).to(wide.dtype)
    below = _below_floor(root, exponent, eps)
    scaled = clean * torch.where(below, 1.0, inverse)[..., None]
    denominator = torch.where(below, eps, root)
    denominator = torch.where(denominator > 0, denominator, 1.0)
    strange = torch.where(wide.isnan().any(dim=-1), torch.nan, torch.inf).to(wide.dtype)
    whole = finite.all(dim=-1)
    root = torch.where(whole, root, strange)
    denominator = torch.where(whole, denominator, root)
    y = torch.where(finite, scaled / denominator[..., None], torch.nan)
    return y.to(x.dtype), exponent, root


def stable_backward(
    upstream: Tensor,  # (..., K)
    x: Tensor,  # (..., K)
    exponent: Tensor,  # (...,)
    root: Tensor,  # (...,)
    p: float,
    eps: float,
) -> Tensor:
    """What the backward kernel computes, for any p: the gradient of x, 0 at the zero vector by
    policy.
    """
    if x.numel() == 0:
        return x.clone()
    dtype = root.dtype
    if p == 0.0:  # the count is constant wherever it has a derivative
        flat = upstream.to(dtype) / _floored_count(root, eps)
        return torch.where(root[..., None] == 0, 0.0, flat).to(x.dtype)
    boost = 500 if dtype == torch.float64 else 0
    g = upstream.to(dtype)
    finite = torch.isfinite(g)
    zero = root == 0
    safe_root = torch.where(torch.isfinite(root) & ~zero, root, 1.0).double()
    # A subnormal row's s is clamped, and its root small: what it lacks goes to the exponents.
    root_exponent = (torch.frexp(safe_root).exponent - 1).to(torch.int32)
    safe_root = torch.ldexp(safe_root, -root_exponent)[..., None]
    exponent = exponent + root_exponent
    wide = x.to(dtype)
    wide = torch.where(torch.isfinite(wide), wide, 0.0).double()
    y = _times_power_of_two(wide, boost - exponent) / safe_root
    g_exponent = _largest_exponent(g)
    clean = torch.where(finite, g, 0.0).double()
    h = _times_power_of_two(clean, boost - g_exponent)
    dot = (y * h).sum(dim=-1, keepdim=True)
    h = _times_power_of_two(clean, 2 * boost - g_exponent)
    if p != 2.0:
        y = _pull(y * 2.0**-boost, p) * 2.0**boost
    large = dot.abs() >= 1
    along = torch.where(large, y * (dot * 2.0**-boost), y * dot * 2.0**-boost)
    along = (h - along) / safe_root
    shift = g_exponent - exponent
    early = (shift < -boost)[..., None]
    along = torch.where(early, along * 2.0 ** (-2 * boost), along)
    shift = torch.where(early[..., 0], shift, shift - 2 * boost)
    along = _times_power_of_two(along, shift.clamp(min=-2044)).to(dtype)
    along = torch.where(finite, along, g)
    # As in torch, where the sum of y g is not finite: g - y times that sum; NaN for a strange row.
    spoilt = torch.where(finite, 0.0, y.to(dtype) * g).sum(dim=-1, keepdim=True)
    spoilt = torch.where(torch.isfinite(root)[..., None], spoilt, torch.nan)
    along = torch.where(spoilt == 0, along, along - y.to(dtype) * spoilt)
    floored = (_below_floor(root, exponent - root_exponent, eps) | zero)[..., None]
    flat = torch.where(zero[..., None] & finite, 0.0, g / (eps if eps > 0 else 1.0))
    return torch.where(floored, flat, along).to(x.dtype)


def plain(x: Tensor, p: float, eps: float) -> Tensor:  # (..., K) -> the same
    """x / max(||x||_p, eps) in operations that torch differentiates any number of times.

    Scaled by a constant power of two, so that the norm stays within range; second derivatives are
    taken from this.
    """
    wide = x.to(launch.statistics_dtype(x.dtype))
    if p == 0.0:
        count = (x != 0).sum(dim=-1).to(wide.dtype)
        y = wide / _floored_count(count, eps)
        return torch.where(count[..., None] == 0, 0.0, y).to(x.dtype)
    exponent = _largest_exponent(wide.detach())[..., None]
    z = wide * _power_of_two(-exponent, wide.dtype)
    zero = (z == 0).all(dim=-1, keepdim=True)
    norm = torch.linalg.vector_norm(torch.where(zero, 1.0, z), p, dim=-1, keepdim=True)
    below = _below_floor(norm, exponent, eps) | zero
    y = torch.where(below, wide / (eps if eps > 0 else 1.0), z / norm)
    # At the zero vector y is constant by policy.
    return torch.where(zero, 0.0, y).to(x.dtype)
