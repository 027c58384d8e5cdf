"""The stable PyTorch formulas of rms_norm and layer_norm, for tensors on a plain CPU.

They follow `kernels.norms` and `kernels.norm_gradients` step by step, with one difference: half
precision, too, is computed in fp64, where its products fit unscaled.
"""

from __future__ import annotations

import torch
from torch import Tensor

LOWEST = -20000  # the exponent of zero
_EXACT_MEAN = 1.5 * 2.0**35  # adding and subtracting it leaves a multiple of 2**-17
_EXACT_ROOT = 1.5 * 2.0**28  # of 2**-24


def _power_of_two(k: Tensor) -> Tensor:
    return ((k.to(torch.int64) + 1023) << 52).view(torch.float64)


def shift(value: Tensor, k: Tensor) -> Tensor:
    """value * 2**k for any k: four steps in the same direction, of which one may round."""
    size = k.abs().clamp(max=4000)
    quarter = size >> 2
    step = _power_of_two(k.sign() * quarter)
    return value * step * step * step * _power_of_two(k.sign() * (size - 3 * quarter))


def exponent_of(x: Tensor) -> Tensor:
    """The k (int64) with 2**k <= |x| < 2**(k+1), clamped so that 2**k and 2**-k are normal."""
    bits = (x.contiguous().view(torch.int64) >> 52) & 0x7FF
    return (bits - 1023).clamp(-1022, 1022)


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """(m, k) with x = m 2**k; |m| within [1, 4), smaller where x is subnormal; 0 is (0, LOWEST)."""
    k = exponent_of(x)
    return x * _power_of_two(-k), torch.where(x == 0, LOWEST, k)


def sum_pairs(value: Tensor, k: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The sum of value 2**k along a dimension, kept, as such a pair."""
    k = torch.where(value == 0, LOWEST, k)
    top = k.amax(dim=dim, keepdim=True)
    return shift(value, k - top).sum(dim=dim, keepdim=True), top


def row_exponent(x: Tensor, least: int) -> Tensor:
    """Per row, (..., 1): the exponent of the largest finite element, at least `least`."""
    size = torch.where(torch.isfinite(x), x.abs(), 0.0).amax(dim=-1, keepdim=True)
    small = size < 1e-200
    raised = exponent_of(torch.where(small, size * 2.0**200, size))
    return (raised - torch.where(small, 200, 0)).clamp(min=least)


def sum_squares(z: Tensor) -> Tensor:
    """The sum of z**2 along the rows, z within (-4, 4), split so that the large parts are exact."""
    high = (z + _EXACT_MEAN) - _EXACT_MEAN
    rest = ((z - high) * (z + high)).sum(dim=-1, keepdim=True)
    total = high.square().sum(dim=-1, keepdim=True) + rest
    # An infinity has no parts: their sum would be NaN.
    return torch.where(total.isnan(), z.square().sum(dim=-1, keepdim=True), total)


def moments(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean, what its rounding lost, and the sum of squares about it, of rows within (-4, 4)."""
    high = (z + _EXACT_MEAN) - _EXACT_MEAN
    total = high.sum(dim=-1, keepdim=True)
    count = z.shape[-1]
    mean = (total / count + _EXACT_MEAN) - _EXACT_MEAN
    rest = (z - high).sum(dim=-1, keepdim=True)
    low = ((total - mean * count) + rest) / count
    return mean, low, sum_squares((z - mean) - low)


def safe(root: Tensor) -> Tensor:
    """1 instead of a root of 0, which belongs to rows that hold nothing but zeros."""
    return torch.where(root == 0, 1.0, root)


def _leading_half(x: Tensor) -> Tensor:
    return (x.contiguous().view(torch.int64) & -(1 << 27)).view(torch.float64)


def quotient_times(
    x: Tensor,  # (..., K) fp64
    weight: Tensor | None,  # (K,)
    exponent: Tensor,  # (..., 1)
    under: Tensor,  # (..., 1): the square of the root
) -> Tensor:
    """x / (2**exponent sqrt(under)) * weight, within 1.3 ULP; see `kernels.norms`."""
    root = safe(under.sqrt())
    high = (root + _EXACT_ROOT) - _EXACT_ROOT
    low = (under - high * high) / (high + root)
    m, k = split(x)
    plain = m / root
    quotient = _leading_half(plain)
    rest = ((m - quotient * high) - quotient * low) / root
    if weight is None:
        y = quotient + rest
    else:
        w, w_exponent = split(weight)
        k = k + w_exponent
        w_high = _leading_half(w)
        y = quotient * w_high + (quotient * (w - w_high) + rest * w)
        plain = plain * w
    y = torch.where(y.isnan(), plain, y)  # what is not finite has no parts
    return shift(y, k.clamp(min=LOWEST) - exponent)


def direction(x: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor]:
    """y' of rows (..., K), and its exponents, from their statistics (..., 2) or (..., 5)."""
    root, exponent = statistics[..., 0:1], statistics[..., 1:2].to(torch.int64)
    if statistics.shape[-1] == 5:
        mean, low = statistics[..., 2:3], statistics[..., 3:4]
        if x.dtype == torch.float64:
            x = shift(x, -statistics[..., 4:5].to(torch.int64))
        y = ((x.double() - mean) - low) / safe(root)
        return torch.where(root == 0, 0.0, y), torch.zeros_like(exponent)
    if x.dtype != torch.float64:
        return x.double() / safe(root), exponent
    m, k = split(x)
    return m / safe(root), k - exponent


def input_gradient(
    upstream: Tensor,  # (..., K)
    x: Tensor,  # (..., K)
    weight: Tensor | None,  # (K,)
    statistics: Tensor,  # (..., 2) or, for layer_norm, (..., 5)
) -> Tensor:
    """dx of rows; see `kernels.norm_gradients`."""
    if x.numel() == 0:
        return x.clone()
    root, exponent = statistics[..., 0:1], statistics[..., 1:2].to(torch.int64)
    y, y_exponent = direction(x, statistics)
    if x.dtype != torch.float64:
        h = upstream.double() if weight is None else upstream.double() * weight.double()
        across = h - y * (h * y).mean(dim=-1, keepdim=True)
        if statistics.shape[-1] == 5:
            mean = h.mean(dim=-1, keepdim=True)
            across = across - torch.where(torch.isfinite(mean), mean, torch.nan)
        return torch.where(root == 0, 0.0, across / safe(root)).to(x.dtype)
    h, h_exponent = split(upstream)
    if weight is not None:
        w, w_exponent = split(weight.double())
        h, h_exponent = h * w, h_exponent + w_exponent
    h_exponent = torch.where(h == 0, LOWEST, h_exponent)
    dot, dot_exponent = sum_pairs(h * y, h_exponent + y_exponent, -1)
    along = y * (dot / x.shape[-1])
    along_exponent = torch.where(along == 0, LOWEST, y_exponent + dot_exponent)
    top = torch.maximum(h_exponent, along_exponent)
    total, total_exponent = sum_pairs(h, h_exponent, -1)
    if statistics.shape[-1] == 5:
        top = torch.maximum(top, total_exponent)
        total = torch.where(torch.isfinite(total), total, torch.nan)
        mean = shift(total / x.shape[-1], total_exponent - top)
        out = shift(h, h_exponent - top) - mean - shift(along, along_exponent - top)
    else:
        out = shift(h, h_exponent - top) - shift(along, along_exponent - top)
    return torch.where(root == 0, 0.0, shift(out / safe(root), top - exponent))


def weight_gradient(upstream: Tensor, x: Tensor, weight: Tensor, statistics: Tensor) -> Tensor:
    """The sum over all rows (..., K) of g y', in the weight's dtype."""
    n_columns = x.shape[-1]
    y, y_exponent = direction(x, statistics)
    if x.dtype != torch.float64:
        return (upstream.double() * y).reshape(-1, n_columns).sum(dim=0).to(weight.dtype)
    g, g_exponent = split(upstream)
    return _sum_over_rows(g * y, g_exponent + y_exponent, weight)


def bias_gradient(upstream: Tensor, bias: Tensor) -> Tensor:
    """The sum over all rows (..., K) of g, in the bias's dtype."""
    if upstream.dtype != torch.float64:
        return upstream.double().reshape(-1, upstream.shape[-1]).sum(dim=0).to(bias.dtype)
    return _sum_over_rows(*split(upstream), bias)


def _sum_over_rows(value: Tensor, k: Tensor, parameter: Tensor) -> Tensor:
    if value.numel() == 0:
        return torch.zeros_like(parameter)
    n_columns = value.shape[-1]
    total, top = sum_pairs(
        value.reshape(-1, n_columns), k.expand(value.shape).reshape(-1, n_columns), 0
    )
    return shift(total, top)[0].to(parameter.dtype)
