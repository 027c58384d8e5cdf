"""Cross-entropy as people write it, with its options where they write them, and the plain formula
that second derivatives are taken of.

The first four take logits (..., C) and class indices (...) or probabilities (..., C), compute in
the logits' own dtype, and return one loss a row, 0 where the target is -100. Each says where it
breaks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .. import launch
from .options import Options

IGNORE_INDEX = -100


def _pick(
    log_probabilities: Tensor, target: Tensor, weight: Tensor | None, label_smoothing: float
) -> Tensor:
    """Minus the sum of coefficients times log-probabilities, as it is usually written: a masked
    class (-inf) with a coefficient of 0 makes NaN. 0 in ignored rows.
    """
    weights = 1.0 if weight is None else weight
    if target.is_floating_point():
        n_classes = target.shape[-1]
        target = target * (1 - label_smoothing) + label_smoothing / n_classes
        return -(weights * target * log_probabilities).sum(dim=-1)
    ignored = target == IGNORE_INDEX
    index = torch.where(ignored, 0, target).unsqueeze(-1)
    weighted = log_probabilities if weight is None else weights * log_probabilities
    loss = -weighted.gather(-1, index).squeeze(-1)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * weighted.mean(dim=-1)
    return torch.where(ignored, 0.0, loss)


def _with_options(
    log_softmax: Callable[[Tensor], Tensor],
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
) -> Tensor:
    if softcap:
        input = softcap * torch.tanh(input / softcap)
    loss = _pick(log_softmax(input), target, weight, label_smoothing)
    if z_loss:
        extra = z_loss * torch.log(torch.exp(input).sum(dim=-1)).square()
        kept = torch.ones_like(loss, dtype=torch.bool)
        if not target.is_floating_point():
            kept = target != IGNORE_INDEX
        loss = loss + torch.where(kept, extra, 0.0)
    return loss


def naive(
    input: Tensor,  # (N, C)
    target: Tensor,  # (N,) or (N, C)
    weight: Tensor | None = None,  # (C,)
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> Tensor:  # (N,)
    """exp, divide by the sum, log, pick; z_loss * log(sum(exp))**2.

    Breaks above ln(max): exp overflows and inf / inf is NaN (11.09 in fp16, 88.7 in fp32). Breaks
    where the target lies far below the maximum: its probability rounds to 0 and the loss is inf. A
    row far below zero underflows to 0 / 0. With smoothing, weights of 0 or probabilities every
    class is looked at, and one that underflowed or is masked makes the row inf or NaN. A softcap
    below ln(max) cures the overflow, and nothing else.
    """

    def log_softmax(x: Tensor) -> Tensor:
        exponentials = torch.exp(x)
        return torch.log(exponentials / exponentials.sum(dim=-1, keepdim=True))

    return _with_options(log_softmax, input, target, weight, label_smoothing, z_loss, softcap)


def softmax_log(
    input: Tensor,  # (N, C)
    target: Tensor,  # (N,) or (N, C)
    weight: Tensor | None = None,  # (C,)
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> Tensor:  # (N,)
    """torch.softmax, then torch.log.

    Softmax itself is safe, but a probability that rounds to 0 (a gap of 17.3 in fp16, 103 in fp32)
    has log -inf, and the gradient through it is NaN. A probability that rounds to 1 has loss 0:
    every confident row loses its accuracy. With smoothing or probabilities any class far below the
    maximum makes the row inf, or NaN where its coefficient is 0.
    """
    return _with_options(
        lambda x: torch.log(torch.softmax(x, dim=-1)),
        input, target, weight, label_smoothing, z_loss, softcap,
    )  # fmt: skip


def clamped(
    input: Tensor,  # (N, C)
    target: Tensor,  # (N,) or (N, C)
    weight: Tensor | None = None,  # (C,)
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> Tensor:  # (N,)
    """The quick fix: log(max(p, 1e-9)).

    Finite but wrong where p < 1e-9: the loss stays at 20.7 and the gradient is exactly 0, so the
    worst rows stop learning. In fp16 1e-9 is itself 0 and nothing is fixed. Smoothing spreads the
    error to every row with a class that far down.
    """
    return _with_options(
        lambda x: torch.log(torch.clamp(torch.softmax(x, dim=-1), min=1e-9)),
        input, target, weight, label_smoothing, z_loss, softcap,
    )  # fmt: skip


def epsilon(
    input: Tensor,  # (N, C)
    target: Tensor,  # (N,) or (N, C)
    weight: Tensor | None = None,  # (C,)
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> Tensor:  # (N,)
    """The other quick fix: log(p + 1e-8).

    The loss stays at 18.4 where p is far below 1e-8, the gradient vanishes with p instead of
    tending to -1, and a confident row's loss is off by 1e-8. In fp16 1e-8 rounds to 0.
    """
    return _with_options(
        lambda x: torch.log(torch.softmax(x, dim=-1) + 1e-8),
        input, target, weight, label_smoothing, z_loss, softcap,
    )  # fmt: skip


def nan_to_num(
    input: Tensor,  # (N, C)
    target: Tensor,  # (N,) or (N, C)
    weight: Tensor | None = None,  # (C,)
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> Tensor:  # (N,)
    """The textbook formula with torch.nan_to_num over its loss.

    What overflowed comes out as 0 or as the largest float: finite, and no loss at all. The gradient
    of what was replaced is 0 times infinity: NaN, as before.
    """
    loss = naive(
        input, target, weight, label_smoothing=label_smoothing, z_loss=z_loss, softcap=softcap
    )
    return torch.nan_to_num(loss)


def torch_native(
    input: Tensor,  # (..., C)
    target: Tensor,  # (...) or (..., C)
    weight: Tensor | None = None,  # (C,)
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> Tensor:  # (...)
    """F.cross_entropy: log-softmax, then pick; beside it z_loss * torch.logsumexp(input)**2.

    Overflows where the loss does not fit the logits' dtype (131008 in fp16), and its mean where one
    row's loss or the sum overflows. Loses relative accuracy where the target's probability is near
    1. A masked class whose weight or probability is 0 makes the loss NaN.
    """
    if softcap:
        input = softcap * torch.tanh(input / softcap)
    rows = input.reshape(-1, input.shape[-1])
    soft = target.is_floating_point()
    labels = target.reshape(rows.shape) if soft else target.reshape(-1)
    loss = torch.nn.functional.cross_entropy(
        rows, labels, weight, reduction="none", label_smoothing=label_smoothing
    )
    if z_loss:
        extra = z_loss * torch.logsumexp(rows, dim=-1).square()
        loss = loss + (extra if soft else torch.where(labels == IGNORE_INDEX, 0.0, extra))
    return loss.reshape(input.shape[:-1])


# --- for derivatives of derivatives ---------------------------------------------------------------


def plain(
    logits: Tensor,  # (..., N, C)
    target: Tensor,  # (..., N) indices or (..., N, C) probabilities
    weight: Tensor | None,  # (C,) or (..., C)
    options: Options,
) -> Tensor:  # (...), or (..., N) without a reduction
    """The loss with all its options, each operation differentiable as often as one likes.

    Its values lose what the kernels keep: relative accuracy in confident rows, means of rows that
    overflow. It is there to be differentiated twice.
    """
    x = logits.to(launch.statistics_dtype(logits.dtype))
    if options.softcap != 0.0:
        x = options.softcap * torch.tanh(x / options.softcap)
    log_sum = torch.logsumexp(x, dim=-1, keepdim=True)
    gap = log_sum - x
    n_classes = x.shape[-1]
    if target.is_floating_point():
        counts = torch.ones_like(log_sum[..., 0])
        own = target.to(x.dtype)
    else:
        counts = (target != options.ignore_index).to(x.dtype)
        own = (torch.arange(n_classes, device=x.device) == target.unsqueeze(-1)).to(x.dtype)
    weights = 1.0 if weight is None else weight.unsqueeze(-2).to(x.dtype)
    row_weight = counts if target.is_floating_point() else counts * (own * weights).sum(dim=-1)
    share = options.label_smoothing / max(n_classes, 1)
    coefficient = weights * (own * (1.0 - options.label_smoothing) + share)
    gap = torch.where((coefficient == 0) & gap.isinf(), 0.0, gap)
    rows = (coefficient * gap).sum(dim=-1)
    if options.z_loss != 0.0:
        rows = rows + options.z_loss * log_sum[..., 0].square()
    rows = torch.where(counts == 0, 0.0, rows)
    if options.reduction == "none":
        return rows
    if options.reduction == "sum":
        return rows.sum(dim=-1)
    denominator = row_weight.sum(dim=-1)
    if options.all_ignored == "zero":
        denominator = torch.where(denominator == 0, torch.inf, denominator)
    return rows.sum(dim=-1) / denominator
