"""Binary cross-entropy as people write it, and the stable formula that stands in for the kernel on
a plain CPU.

The first four take logits and targets of one shape, compute in the logits' own dtype, and return
one loss an element. Each says where it breaks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import launch
from ..formulas import exp_boosted, times_boosted


def naive(input: Tensor, target: Tensor) -> Tensor:  # (...), (...) -> (...)
    """h = sigmoid(x), then -(y log h + (1 - y) log(1 - h)).

    Breaks where h rounds to 1 (x above 8.3 in fp16, 16.6 in fp32): log(1 - h) is -inf, the loss
    inf, or NaN where its weight is 0. Breaks again where h rounds to 0, far below zero.
    """
    h = torch.sigmoid(input)
    return -(target * torch.log(h) + (1 - target) * torch.log(1 - h))


def clamped(input: Tensor, target: Tensor) -> Tensor:  # (...), (...) -> (...)
    """The quick fix: h clamped to [1e-9, 1 - 1e-9] first.

    Finite but wrong below 1e-9, and its gradient is exactly 0 there. The upper bound rounds to 1 in
    every dtype but fp64, the lower to 0 in fp16: what was to be fixed still breaks.
    """
    h = torch.clamp(torch.sigmoid(input), 1e-9, 1 - 1e-9)
    return -(target * torch.log(h) + (1 - target) * torch.log(1 - h))


def torch_bce(input: Tensor, target: Tensor) -> Tensor:  # (...), (...) -> (...)
    """F.binary_cross_entropy on sigmoid(x): torch clamps each logarithm at -100.

    Once the sigmoid has rounded to 0 or 1 the loss is 100 whatever x, and the gradient nearly 0
    where it should be 1.
    """
    return torch.nn.functional.binary_cross_entropy(torch.sigmoid(input), target, reduction="none")


def torch_with_logits(input: Tensor, target: Tensor) -> Tensor:  # (...), (...) -> (...)
    """F.binary_cross_entropy_with_logits, computed from the logits: finite over the whole range.

    (1 - y) x - log(sigmoid(x)) loses relative accuracy where the two nearly cancel, x far below 0
    in confident rows.
    """
    return torch.nn.functional.binary_cross_entropy_with_logits(input, target, reduction="none")


# --- the stable formula ---------------------------------------------------------------------------


def stable_forward(logits: Tensor, target: Tensor) -> Tensor:  # (N,), (N,) -> (N,)
    """What the forward kernel computes, see `kernels.binary_cross_entropy.fused`."""
    statistics = launch.statistics_dtype(logits.dtype)
    x, y = logits.to(statistics), target.to(statistics)
    size = x.abs()
    linear = torch.where(size.isinf(), 0.0, size) * torch.where(x > 0, 1 - y, y)
    infinite = torch.where((x > 0) & (y < 1), torch.inf, torch.nan)
    infinite = torch.where((x > 0) & (y > 1), -torch.inf, infinite).to(statistics)
    e = torch.exp(-size)
    # torch's vectorised log1p flushes subnormals; this far down it is the identity.
    tail = torch.where(e < 2.0**-60, e, torch.log1p(e))
    return torch.where(size.isinf(), infinite, linear + tail)


def stable_backward(upstream: Tensor, logits: Tensor, target: Tensor) -> Tensor:  # (N,) each
    """What the backward kernel computes: the gradient of the logits."""
    statistics = launch.statistics_dtype(logits.dtype)
    x, y = logits.to(statistics).double(), target.to(statistics).double()
    g = upstream.double()
    e = exp_boosted(-x.abs(), torch.zeros_like(x))
    denominator = 1 + e * 2.0**-64
    usual = y.abs() <= 1024
    one = torch.where(usual, 2.0**64, 1.0)
    e = torch.where(usual, e, e * 2.0**-64)
    slope = torch.where(x > 0, (1 - y) * one - y * e, (1 - y) * e - y * one) / denominator
    return torch.where(usual, times_boosted(slope, g), g * slope).to(logits.dtype)
