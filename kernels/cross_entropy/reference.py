"""Cross-entropy as people write it, and the stable formula that stands in for the kernel on a plain
CPU.

The first four take logits (..., C) and class indices (...), compute in the logits' own dtype, and
return one loss a row, 0 where the target is -100. Each says where it breaks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import launch
from ..formulas import exp_boosted, times_boosted

IGNORE_INDEX = -100


def _pick(log_probabilities: Tensor, target: Tensor) -> Tensor:
    """Minus the target's entry in each row, 0 in ignored rows."""
    ignored = target == IGNORE_INDEX
    index = torch.where(ignored, 0, target).unsqueeze(-1)
    loss = -log_probabilities.gather(-1, index).squeeze(-1)
    return torch.where(ignored, 0.0, loss)


def naive(input: Tensor, target: Tensor) -> Tensor:  # (N, C), (N,) -> (N,)
    """exp, divide by the sum, log, pick.

    Breaks above ln(max): exp overflows and inf / inf is NaN (11.09 in fp16, 88.7 in fp32). Breaks
    where the target lies far below the maximum: its probability rounds to 0 and the loss is inf. A
    row far below zero underflows to 0 / 0.
    """
    exponentials = torch.exp(input)
    probabilities = exponentials / exponentials.sum(dim=-1, keepdim=True)
    return _pick(torch.log(probabilities), target)


def softmax_log(input: Tensor, target: Tensor) -> Tensor:  # (N, C), (N,) -> (N,)
    """torch.softmax, then torch.log.

    Softmax itself is safe, but a probability that rounds to 0 (a gap of 17.3 in fp16, 103 in fp32)
    has log -inf, and the gradient through it is NaN. A probability that rounds to 1 has loss 0:
    every confident row loses its accuracy.
    """
    return _pick(torch.log(torch.softmax(input, dim=-1)), target)


def clamped(input: Tensor, target: Tensor) -> Tensor:  # (N, C), (N,) -> (N,)
    """The quick fix: log(max(p, 1e-9)).

    Finite but wrong where p < 1e-9: the loss stays at 20.7 and the gradient is exactly 0, so the
    worst rows stop learning. In fp16 1e-9 is itself 0 and nothing is fixed.
    """
    return _pick(torch.log(torch.clamp(torch.softmax(input, dim=-1), min=1e-9)), target)


def torch_native(input: Tensor, target: Tensor) -> Tensor:  # (N, C), (N,) -> (N,)
    """F.cross_entropy: log-softmax, then pick.

    Overflows where the loss does not fit the logits' dtype (131008 in fp16), and its mean where one
    row's loss or the sum overflows. Loses relative accuracy where the target's probability is near
    1.
    """
    rows = input.reshape(-1, input.shape[-1])
    loss = torch.nn.functional.cross_entropy(rows, target.reshape(-1), reduction="none")
    return loss.reshape(target.shape)


# --- the stable formula ---------------------------------------------------------------------------


def _sum_of_others(x: Tensor, reference: Tensor, is_target: Tensor) -> Tensor:
    """2**64 times the sum of exp(x - reference) over all columns but the target's, in fp64."""
    value = torch.where(is_target, 0.0, exp_boosted(x, reference))
    # The parts that are multiples of 2**(64 - 30) add up exactly, the rest is small.
    high = (value + 1.5 * 2.0**86) - 1.5 * 2.0**86
    return high.sum(dim=-1) + (value - high).sum(dim=-1)


def _classes(target: Tensor, n_columns: int, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows are ignored, which have a class, and that class (0 where there is none)."""
    ignored = target == ignore_index
    has_class = ~ignored & (target >= 0) & (target < n_columns)
    return ignored, has_class, torch.where(has_class, target, 0)


def stable_forward(
    logits: Tensor,  # (N, C)
    target: Tensor,  # (N,)
    ignore_index: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the forward kernel computes: half the gap m - x_y, the rest of the loss, m, 2**64 S."""
    x = logits.to(launch.statistics_dtype(logits.dtype))
    n_rows, n_columns = x.shape
    if n_columns == 0:
        ignored = target == ignore_index
        empty = x.new_zeros(n_rows)
        rest = torch.where(ignored, 0.0, torch.nan).to(x.dtype)
        return empty, rest, empty.clone(), x.new_zeros(n_rows, dtype=launch.sum_dtype(logits.dtype))
    ignored, has_class, index = _classes(target, n_columns, ignore_index)
    index = index[:, None]
    maximum = x.amax(dim=-1)
    subtract = torch.where(maximum.isinf(), 0.0, maximum)[:, None]
    is_target = (torch.arange(n_columns, device=x.device) == index) & has_class[:, None]
    total = _sum_of_others(x, subtract, is_target).to(launch.sum_dtype(logits.dtype))
    others = (total * 2.0**-64).to(x.dtype)
    x_y = x.gather(-1, index)[:, 0]
    e_y = (exp_boosted(x_y, subtract[:, 0]) * 2.0**-64).to(x.dtype)
    at_maximum = x_y == maximum
    rest = torch.where(at_maximum, torch.log1p(others), torch.log(others + e_y))
    rest = torch.where(has_class & ~maximum.isinf(), rest, torch.nan)
    half_gap = torch.where(at_maximum | ~has_class, 0.0, maximum * 0.5 - x_y * 0.5)
    return half_gap, torch.where(ignored, 0.0, rest), maximum, total


def stable_backward(
    upstream: Tensor,  # (N,)
    logits: Tensor,  # (N, C)
    target: Tensor,  # (N,)
    maximum: Tensor,  # (N,)
    others: Tensor,  # (N,)
    ignore_index: int,
) -> Tensor:
    """What the backward kernel computes: the gradient of the logits, from m and 2**64 S."""
    x = logits.to(maximum.dtype)
    n_columns = x.shape[1]
    if n_columns == 0:
        return torch.empty_like(logits)
    ignored, has_class, index = _classes(target, n_columns, ignore_index)
    index = index[:, None]
    subtract = torch.where(maximum.isinf(), 0.0, maximum)[:, None]
    others = others.double()
    terms = exp_boosted(x, subtract)
    e_y = torch.where(has_class, terms.gather(-1, index)[:, 0], 0.0)
    defined = ~maximum.isinf() & (ignored | has_class)
    normalizer = torch.where(defined, (others + e_y) * 2.0**-64, torch.nan)
    scale = torch.where(ignored, 0.0, upstream.double())
    at_target = -times_boosted(others / normalizer, scale)
    scale = (scale / normalizer)[:, None]
    is_target = (torch.arange(n_columns, device=x.device) == index) & has_class[:, None]
    gradient = torch.where(is_target, at_target[:, None], times_boosted(terms, scale))
    return gradient.to(logits.dtype)
