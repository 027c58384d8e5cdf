"""Binary cross-entropy as people write it, and the stable formula that stands in for the kernel on
a plain CPU.

The first four take logits and targets of one shape, compute in the logits' own dtype, and return
one loss an element. Each says where it breaks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import launch
from ..formulas import exp_boosted, residual


def naive(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
) -> Tensor:  # all (...) -> (...)
    """h = sigmoid(x), then -w (p y log h + (1 - y) log(1 - h)).

    Breaks where h rounds to 1 (x above 8.3 in fp16, 16.6 in fp32): log(1 - h) is -inf, the loss
    inf, or NaN where its weight is 0. Breaks again where h rounds to 0, far below zero.
    """
    h = torch.sigmoid(input)
    positive = target if pos_weight is None else pos_weight * target
    loss = -(positive * torch.log(h) + (1 - target) * torch.log(1 - h))
    return loss if weight is None else weight * loss


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


def torch_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
) -> Tensor:  # all (...) -> (...)
    """F.binary_cross_entropy_with_logits, computed from the logits: finite over the whole range.

    (1 - y) x - log(sigmoid(x)) loses relative accuracy where the two nearly cancel, x far below 0
    in confident rows.
    """
    return torch.nn.functional.binary_cross_entropy_with_logits(
        input, target, weight, reduction="none", pos_weight=pos_weight
    )


# --- the stable formula ---------------------------------------------------------------------------


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """What the kernels compute in where there are weights: fp64, but for fp16, of a short range."""
    return torch.float32 if dtype == torch.float16 else torch.float64


def _infinite_loss(x: Tensor, y: Tensor, slope: Tensor | float) -> Tensor:
    """The loss at an infinite logit: torch's (1 - y) x + slope softplus(-x)."""
    return (1 - y) * x + slope * torch.where(x < 0, torch.inf, 0.0).to(x.dtype)


def stable_forward(
    logits: Tensor,  # (...)
    target: Tensor,  # (...)
    weight: Tensor | None,  # (...)
    pos_weight: Tensor | None,  # (...)
) -> Tensor:
    """What the forward kernel computes, see `kernels.binary_cross_entropy.fused`."""
    statistics = launch.statistics_dtype(logits.dtype)
    x, y = logits.to(statistics), target.to(statistics)
    size = x.abs()
    finite = torch.where(size.isinf(), 0.0, size)
    e = torch.exp(-size)
    # torch's vectorised log1p flushes subnormals; this far down it is the identity.
    tail = torch.where(e < 2.0**-60, e, torch.log1p(e))
    if weight is None and pos_weight is None:
        loss = finite * torch.where(x > 0, 1 - y, y) + tail
        return torch.where(size.isinf(), _infinite_loss(x, y, 1.0), loss)
    x, y, finite = x.double(), y.double(), finite.double()
    p, w = _weight(pos_weight, x, statistics), _weight(weight, x, statistics)
    boosted = exp_boosted(-size, torch.zeros_like(x))
    tail = torch.where(e < 2.0**-60, boosted * 2.0**-64, torch.log1p(e.double()))
    slope = (1 - y) + p * y
    # Where p could overflow it, a large |x| lends its exponent, and two more for the sum, until the
    # weight has entered.
    exponent = torch.frexp(finite).exponent.clamp(min=1) + 1
    exponent = torch.where(p.abs() >= 1, exponent, 0)
    down = torch.ldexp(torch.ones_like(x), -exponent)
    finite = finite * down
    both = (finite >= 1) & (p.abs() >= 1)
    positive = torch.where(both, (finite * y) * p, (finite * p) * y)
    linear = torch.where(x > 0, finite * (1 - y), positive)
    loss = _times_scales(linear + slope * (tail * down), [w], exponent)
    faint = (linear == 0) & (e < 2.0**-60)
    unboost = torch.full_like(exponent, -64)
    loss = torch.where(faint, _times_scales(slope, [boosted, w], unboost), loss)
    loss = torch.where(w.isfinite(), loss, loss * w)
    return torch.where(size.isinf(), w * _infinite_loss(x, y, slope), loss).to(statistics)


def _weight(weight: Tensor | None, like: Tensor, statistics: torch.dtype) -> Tensor:
    return torch.ones_like(like) if weight is None else weight.to(statistics).to(like.dtype)


def _times_scales(value: Tensor, scales: list[Tensor], exponent: Tensor) -> Tensor:
    """value times all scales and 2**exponent in fp64, each scale with its exponent beside it, so
    that no product in between leaves the range; an infinite scale counts as 1.
    """
    for scale in scales:
        mantissa, power = torch.frexp(torch.where(scale.isfinite(), scale, 1.0))
        value, exponent = value * mantissa, exponent + power
    exponent = exponent.clamp(-2044, 2044)
    half = exponent.div(2, rounding_mode="floor")
    return torch.ldexp(torch.ldexp(value, half), exponent - half)


def stable_backward(
    upstream: Tensor,  # (...)
    logits: Tensor,  # (...)
    target: Tensor,  # (...)
    weight: Tensor | None,  # (...)
    pos_weight: Tensor | None,  # (...)
) -> Tensor:
    """What the backward kernel computes: the gradient of the logits."""
    statistics = launch.statistics_dtype(logits.dtype)
    x, y = logits.to(statistics).double(), target.to(statistics).double()
    g = upstream.double()
    p, w = _weight(pos_weight, x, statistics), _weight(weight, x, statistics)
    e = exp_boosted(-x.abs(), torch.zeros_like(x))
    one, other = 1 - y, p * y
    far = (one.abs() > 1024) | (other.abs() > 1024)
    one, other = torch.where(far, one * 0.25, one), torch.where(far, other * 0.25, other)
    one_e = torch.where(far, one * 2.0**-64 * e, one * e)
    other_e = torch.where(far, other * 2.0**-64 * e, other * e)
    boost = torch.where(far, 1.0, 2.0**64).double()
    slope = torch.where(x > 0, one * boost - other_e, one_e - other * boost)
    denominator = 1 + e * 2.0**-64
    lost = e * 2.0**-64 - (denominator - 1)
    quotient = slope / denominator
    slope = quotient + (residual(slope, quotient, denominator) - quotient * lost) / denominator
    exponent = torch.where(far, 2, -64)
    if weight is None and pos_weight is None:  # within the range up to its very end
        larger = torch.where(x > 0, 1.0, e * 2.0**-64) / denominator
        slope = torch.where(far, larger - y, slope)
        exponent = torch.where(far, 0, -64)
    gradient = _times_scales(slope, [g, w], exponent)
    usual = g.isfinite() & w.isfinite()
    gradient = torch.where(usual, gradient, (slope * g) * w)
    gradient = torch.where(p.isinf(), torch.nan, gradient)
    gradient = torch.where(y.isinf() & ~x.isnan(), -y * (g * w), gradient)
    return torch.where(y.isnan(), y, gradient).to(logits.dtype)


def _rows(loss: Tensor, n_dims: int) -> Tensor:
    lead = loss.shape[: loss.dim() - n_dims]
    return loss.reshape(*lead, math.prod(loss.shape[len(lead) :]))


def reduced(loss: Tensor, reduction: str, n_dims: int) -> Tensor:
    """The loss reduced over its last n_dims dimensions, a mean finite whenever the true mean is.

    fp32 is summed in fp64; fp64 is scaled before where its sum overflows (elsewhere subnormal
    losses would lose their bits).
    """
    if reduction == "none":
        return loss
    loss = _rows(loss, n_dims)
    if loss.dtype == torch.float32:
        wide = loss.double()
        return (wide.mean(dim=-1) if reduction == "mean" else wide.sum(dim=-1)).float()
    if reduction == "sum":
        return loss.sum(dim=-1)
    plain = loss.mean(dim=-1)
    count = loss.shape[-1]
    if not count:
        return plain
    power = 2.0 ** count.bit_length()
    scaled = (loss / power).sum(dim=-1) * (power / count)
    return torch.where(plain.isfinite(), plain, scaled)


def plain(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
    n_dims: int,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The loss, reduced over the last n_dims dimensions, in operations that torch differentiates
    any number of times, in a dtype, by default that of the statistics: where second derivatives,
    and the gradients of target and weights, come from.
    """
    statistics = dtype or launch.statistics_dtype(logits.dtype)
    # Contiguous: torch's vectorised and other loops round differently.
    x, y = logits.to(statistics).contiguous(), target.to(statistics).contiguous()
    # From terms of one sign, as in the kernels, so that the target's gradient, too, adds up without
    # cancelling. Not by |x|, whose derivative at 0 is none of the two sides'; and with a zero in
    # the branch not taken, where an infinite x would make the target's gradient NaN.
    right = x > 0
    tail = torch.nn.functional.softplus(torch.where(right, -x, x))
    # Not torch.where: of a number in it, or its gradient, torch.compile makes a scalar, in fp64.
    above, below = x.masked_fill(~right, 0.0), x.masked_fill(right, 0.0)
    positive = y
    if pos_weight is not None:
        p = pos_weight.to(statistics).contiguous()
        positive = p * y
        # The target's gradient has p - 1 times the tail: near 1 as one factor, which is exact.
        near = (p - 1).abs() <= 0.5
        factor = 1 + (p.masked_fill(~near, 1.0) - 1) * y
        other = (1 - y) + positive
        tail = tail * (factor.masked_fill(~near, 0.0) + other.masked_fill(near, 0.0))
    loss = (1 - y) * above - positive * below + tail
    if weight is not None:
        loss = loss * weight.to(statistics).contiguous()
    if reduction == "none":
        return loss
    rows = _rows(loss, n_dims)
    return rows.mean(dim=-1) if reduction == "mean" else rows.sum(dim=-1)
