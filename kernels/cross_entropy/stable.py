"""The stable PyTorch formulas that stand in for the kernels on a plain CPU: the same statistics and
gradients, row by row, in fp64 arithmetic, and where fp64 is not wider than the logits, in pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import launch
from .arithmetic import (
    divide_pair,
    exp_pair,
    log1p,
    log_rest,
    scaled,
    sloped,
    soft_cap,
    sum_exactly,
    times,
)
from .options import Options

if TYPE_CHECKING:
    from .launches import Statistics


def _prepared(logits: Tensor, options: Options) -> Tensor:
    """The logits as softcapped, rounded to the dtype of the statistics, in fp64."""
    x = logits.double()
    if options.softcap == 0.0:
        return x
    return soft_cap(x, options.softcap).to(launch.statistics_dtype(logits.dtype)).double()


def _maximum(x: Tensor) -> tuple[Tensor, Tensor]:
    """(m, what to subtract): the maximum, and 0 in its place where it is infinite."""
    if x.shape[1] == 0:
        maximum = x.new_full(x.shape[:1], -torch.inf)
    else:
        maximum = x.amax(dim=-1)
    return maximum, torch.where(maximum.isinf(), 0.0, maximum)


def _classes(target: Tensor, n_columns: int, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows are ignored, which have a class, and the (N, C) mask of that class."""
    ignored = target == options.ignore_index
    has_class = ~ignored & (target >= 0) & (target < n_columns)
    columns = torch.arange(n_columns, device=target.device)
    return ignored, has_class, (columns == target[:, None]) & has_class[:, None]


def _picked(values: Tensor, is_target: Tensor) -> Tensor:
    """Each row's value in the column of its class, 0 where it has none."""
    return torch.where(is_target, values, 0.0).sum(dim=-1)


def _coefficients(
    target: Tensor, weight: Tensor | None, shape: torch.Size, options: Options
) -> Tensor:
    """a_c = w_c ((1 - s) t_c + s / C), (N, C), as the dense kernels have it."""
    keep, share = 1.0 - options.label_smoothing, options.label_smoothing / max(shape[1], 1)
    if target.is_floating_point():
        a = target.double() * keep + share
    else:
        is_target = _classes(target, shape[1], options)[2]
        a = torch.where(is_target, keep + share, torch.full(shape, share, dtype=torch.float64))
    return a if weight is None else a * weight.double()


def forward_rows(
    logits: Tensor,  # (N, C)
    target: Tensor,  # (N,) or (N, C)
    weight: Tensor | None,  # (C,)
    options: Options,
) -> Statistics:
    """What the forward kernels compute."""
    from .launches import Statistics, boost, is_dense, mass_dtype

    statistics = launch.statistics_dtype(logits.dtype)
    exponent = boost(logits.dtype)
    precise = logits.dtype == torch.float64
    x = _prepared(logits, options)
    maximum, subtract = _maximum(x)
    dense = is_dense(target, options)
    probabilities = target.is_floating_point()
    if probabilities:
        ignored = torch.zeros_like(maximum, dtype=torch.bool)
        has_class, row_weight = ~ignored, torch.ones_like(maximum)
    else:
        ignored, has_class, is_target = _classes(target, x.shape[1], options)
        row_weight = torch.ones_like(maximum)
        if weight is not None:
            row_weight = torch.where(has_class, _picked(weight.double(), is_target), 1.0)
        row_weight = torch.where(ignored, 0.0, row_weight)
    high, low = exp_pair(x, subtract[:, None], exponent, precise)
    left_out = x == subtract[:, None] if dense else is_target
    total = sum_exactly(torch.where(left_out, 0.0, high), torch.where(left_out, 0.0, low))
    if dense:
        at_top = (left_out.sum(dim=-1) - 1).clamp(min=0).double()
        others = total + at_top * 2.0**exponent
        rest = total * 2.0**-exponent + at_top
        log_sum = log1p(rest)
        first, second = torch.ones_like(rest), rest
        a = _coefficients(target, weight, x.shape, options)
        mass = sum_exactly(a)
        half_gap = sum_exactly(times(a, subtract[:, None] * 0.5 - x * 0.5))
        gap_weight = torch.ones_like(mass)
    else:
        others = total
        x_y = _picked(x, is_target)
        x_y = torch.where(has_class, x_y, subtract)
        at_maximum = x_y == maximum
        e_y = sum(exp_pair(x_y, subtract, 0, precise))
        rest = total * 2.0**-exponent
        log_sum = torch.where(at_maximum, log1p(rest), torch.log(rest + e_y))
        first = torch.where(at_maximum, 1.0, rest)
        second = torch.where(at_maximum, rest, e_y)
        half_gap = torch.where(at_maximum, 0.0, subtract * 0.5 - x_y * 0.5)
        mass = gap_weight = row_weight
    log_low = log_rest(log_sum, first, second) if precise else torch.zeros_like(log_sum)
    defined = ~maximum.isinf() & (has_class | ignored)
    log_sum = torch.where(defined, log_sum, torch.nan)
    normalizer = maximum + log_sum
    loss, excess = _row_loss(half_gap, gap_weight, mass, log_sum, normalizer, options)
    loss = loss + torch.where(excess == 0, times(log_low, mass), 0.0)
    loss = torch.where(ignored, 0.0, torch.where(defined, loss, torch.nan))
    excess = torch.where(ignored, 0.0, excess)
    return Statistics(
        loss=loss,
        excess=excess if precise else excess.new_empty(0),
        maximum=maximum.to(statistics),
        others=others.to(launch.sum_dtype(logits.dtype)),
        log_sum=log_sum,
        mass=mass.to(mass_dtype(logits, target, weight, options)),
        row_weight=row_weight.to(statistics),
    )


def _row_loss(
    half_gap: Tensor,
    gap_weight: Tensor,
    mass: Tensor,
    log_sum: Tensor,
    normalizer: Tensor,
    options: Options,
) -> tuple[Tensor, Tensor]:
    """(loss, excess) as `rows.row_loss` has them."""
    z = options.z_loss
    excess = times(half_gap * 2.0**-511, gap_weight * 2.0**-512)
    excess = excess + times(log_sum * 2.0**-512, mass * 2.0**-512)
    if z != 0.0:
        excess = excess + (z * (normalizer * 2.0**-512)) * (normalizer * 2.0**-512)
    large = (excess.abs() >= 2.0**-96) & excess.isfinite()
    loss = 2.0 * times(half_gap, gap_weight) + times(log_sum, mass)
    if z != 0.0:
        loss = loss + (z * normalizer) * normalizer
    return torch.where(large, 0.0, loss), torch.where(large, excess, 0.0)


def backward_rows(
    upstream: Tensor,  # (N,)
    upstream_z: Tensor | None,  # (N,)
    logits: Tensor,  # (N, C)
    target: Tensor,  # (N,) or (N, C)
    weight: Tensor | None,  # (C,)
    maximum: Tensor,  # (N,)
    others: Tensor,  # (N,)
    mass: Tensor,  # (N,)
    options: Options,
) -> Tensor:
    """What the backward kernels compute: the gradient of the logits."""
    from .launches import boost, is_dense

    exponent = boost(logits.dtype)
    precise = logits.dtype == torch.float64
    x = _prepared(logits, options)
    subtract = torch.where(maximum.isinf(), 0.0, maximum).double()
    rest = others.double() * 2.0**-exponent
    high, low = exp_pair(x, subtract[:, None], exponent, precise)
    g = upstream.double()
    h = torch.zeros_like(g) if upstream_z is None else upstream_z.double()
    dense = is_dense(target, options)
    if target.is_floating_point():
        ignored, has_class = maximum != maximum, maximum == maximum
        ignored = torch.zeros_like(ignored)
        own = torch.ones_like(rest)
    else:
        ignored, has_class, is_target = _classes(target, x.shape[1], options)
        g, h = torch.where(ignored, 0.0, g), torch.where(ignored, 0.0, h)
        x_y = torch.where(has_class, _picked(x, is_target), 0.0)
        x_y = torch.where((x_y <= subtract) | x_y.isnan(), x_y, subtract)
        own = torch.where(has_class, sum(exp_pair(x_y, subtract, 0, precise)), 0.0)
    if dense:
        own = torch.ones_like(rest)  # the maximum's own column, which R leaves out
    defined = ~maximum.isinf() & (ignored | has_class)
    normalizer = torch.where(defined, rest + own, torch.nan)
    lost = torch.where(rest > own, (rest - normalizer) + own, (own - normalizer) + rest)
    quotient, quotient_low = divide_pair(g, normalizer, lost)
    of_z = h / normalizer
    if dense:
        a = _coefficients(target, weight, x.shape, options)
        apart = mass.double()[:, None] - a  # A - a_c
        if weight is None and not target.is_floating_point():
            # Smoothed indices: what the others add up to is known, and need not cancel.
            spread = options.label_smoothing * (x.shape[1] - 1) / max(x.shape[1], 1)
            apart = torch.where(
                is_target, spread, apart.new_full((), 1.0 - options.label_smoothing + spread)
            )
        gradient = scaled(high, low, quotient[:, None], quotient_low[:, None], exponent, apart)
        e = (high + low) * 2.0**-exponent
        at_top = scaled(others.double(), torch.zeros_like(rest), quotient, quotient_low, exponent)
        beside = (normalizer[:, None] - e) * quotient[:, None]
        beside = torch.where(x == maximum[:, None], at_top[:, None], beside)
        gradient = gradient - times(beside, a)
        if upstream_z is not None:
            zero = torch.zeros_like(of_z)[:, None]
            gradient = gradient + scaled(high, low, of_z[:, None], zero, exponent)
    else:
        zero = torch.zeros_like(others.double())
        at_target = -scaled(others.double(), zero, quotient, quotient_low, exponent)
        if upstream_z is not None:
            at_target = at_target + own * of_z
            quotient, quotient_low = divide_pair(g + h, normalizer, lost)
        gradient = scaled(high, low, quotient[:, None], quotient_low[:, None], exponent)
        gradient = torch.where(is_target, at_target[:, None], gradient)
    if options.softcap != 0.0:
        gradient = sloped(gradient, logits.double(), options.softcap, exponent, precise)
    return gradient.to(logits.dtype)


def target_rows(
    upstream: Tensor,  # (N,)
    logits: Tensor,  # (N, C)
    weight: Tensor | None,  # (C,)
    maximum: Tensor,  # (N,)
    others: Tensor,  # (N,)
    log_sum: Tensor,  # (N,)
    options: Options,
    dtype: torch.dtype,
) -> Tensor:
    """What the target kernel computes: the gradient of class probabilities."""
    from .launches import boost

    x = _prepared(logits, options)
    subtract = torch.where(maximum.isinf(), 0.0, maximum).double()[:, None]
    half = subtract * 0.5 - x * 0.5
    certain = (half == 0) & (log_sum < 2.0**-64)[:, None]
    half = half + 0.5 * log_sum[:, None]
    scale = (upstream.double() * (1.0 - options.label_smoothing))[:, None].expand_as(half)
    if weight is not None:
        scale = scale * weight.double()
    # Log D of a certain row may be subnormal, or less, and a large scale lift it out again.
    exponent = boost(logits.dtype)
    large = scale.abs() >= 1
    lifted = others.double()[:, None] * torch.where(large, scale * 2.0**-exponent, scale)
    lifted = torch.where(large, lifted, lifted * 2.0**-exponent)
    gradient = torch.where(certain & scale.isfinite(), lifted, 2.0 * times(half, scale))
    return gradient.to(dtype)
