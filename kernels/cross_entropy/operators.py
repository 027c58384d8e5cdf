"""Cross-entropy as operators that torch knows: opaque, with any number of leading dimensions.

Logits are (..., N, C), class indices (..., N) and probabilities (..., N, C); a mean or sum goes
over N alone. Class weights are (C,), or (..., C) where a transform has given each sample its own.
The options come last, in the order of `options.Options`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import launch
from . import launches
from .options import Options


@torch.library.custom_op("kernels::cross_entropy_forward", mutates_args=())
def forward_op(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    check_targets: bool,
    target_shape: Sequence[int],  # what the N rows were: where a bad target lies, for the error
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
    reduction: str,
    all_ignored: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The loss, (...) or (..., N); m, 2**boost S or R, log D, and the loss's factor of log D, (...,
    N) each; the mean's denominator, (..., 2). See `launches.Statistics`.
    """
    options = Options(ignore_index, label_smoothing, z_loss, softcap, reduction, all_ignored)
    if check_targets and not target.is_floating_point():
        check_range(target, target_shape, logits.shape[-1], ignore_index)
    if weight is not None and weight.dim() > 1:
        if _is_shared(weight):
            weight = weight[(0,) * (weight.dim() - 1)]
        else:
            samples = [
                forward_op(*each, False, target_shape, *options)
                for each in zip(logits, target, weight, strict=True)
            ]
            return tuple(torch.stack(part) for part in zip(*samples, strict=True))  # type: ignore
    lead, (n_rows, n_columns) = logits.shape[:-2], logits.shape[-2:]
    found = launches.forward_rows(
        logits.reshape(-1, n_columns), _rows_of(target, logits), _contiguous(weight), options
    )
    rows = (lead.numel(), n_rows)
    excess = found.excess.reshape(rows) if found.excess.numel() else found.excess
    loss, denominator = launches.reduce_rows(
        found.loss.reshape(rows),
        excess,
        found.row_weight.reshape(rows),
        options,
        _loss_dtype(logits),
    )
    shape = logits.shape[:-1]
    return (
        loss.reshape(shape if reduction == "none" else lead),
        found.maximum.reshape(shape),
        found.others.reshape(shape),
        found.log_sum.reshape(shape),
        found.mass.reshape(shape),
        denominator.reshape(*lead, 2),
    )


@forward_op.register_fake
def _(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    check_targets: bool,
    target_shape: Sequence[int],
    *options: int | float | str,
) -> tuple[Tensor, ...]:
    given = Options(*options)  # type: ignore[arg-type]
    rows, lead = logits.shape[:-1], logits.shape[:-2]
    statistics = launches.empty_statistics(logits, target, weight, given)
    return (
        logits.new_empty(rows if given.reduction == "none" else lead, dtype=_loss_dtype(logits)),
        statistics.maximum,
        statistics.others,
        statistics.log_sum,
        statistics.mass,
        logits.new_empty((*lead, 2), dtype=torch.float64),
    )


@torch.library.custom_op("kernels::cross_entropy_backward", mutates_args=())
def backward_op(
    upstream: Tensor,  # (...) or (..., N)
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    maximum: Tensor,
    others: Tensor,
    log_sum: Tensor,
    mass: Tensor,
    denominator: Tensor,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
    reduction: str,
    all_ignored: str,
) -> Tensor:
    """The gradient of the logits, (..., N, C), from what forward found."""
    options = Options(ignore_index, label_smoothing, z_loss, softcap, reduction, all_ignored)
    if weight is not None and weight.dim() > 1:
        if _is_shared(weight):
            weight = weight[(0,) * (weight.dim() - 1)]
        else:
            batched = (
                upstream, logits, target, weight, maximum, others, log_sum, mass, denominator
            )  # fmt: skip
            return torch.stack(
                [backward_op(*each, *options) for each in zip(*batched, strict=True)]
            )
    of_loss, of_z = launches.upstream_rows(
        upstream, target, maximum, log_sum, mass, denominator, weight is not None, options
    )
    gradient = launches.backward_rows(
        of_loss.reshape(-1),
        None if of_z is None else of_z.reshape(-1),
        logits.reshape(-1, logits.shape[-1]),
        _rows_of(target, logits),
        _contiguous(weight),
        maximum.reshape(-1),
        others.reshape(-1),
        mass.reshape(-1),
        options,
    )
    return gradient.reshape(logits.shape)


@backward_op.register_fake
def _(upstream: Tensor, logits: Tensor, *rest: object) -> Tensor:
    return torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)


@torch.library.custom_op("kernels::cross_entropy_target_gradient", mutates_args=())
def target_op(
    upstream: Tensor,  # (...) or (..., N)
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    maximum: Tensor,
    others: Tensor,
    log_sum: Tensor,
    mass: Tensor,
    denominator: Tensor,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
    reduction: str,
    all_ignored: str,
) -> Tensor:
    """The gradient of class probabilities, (..., N, C), in their dtype."""
    options = Options(ignore_index, label_smoothing, 0.0, softcap, reduction, all_ignored)
    if weight is not None and weight.dim() > 1:
        if _is_shared(weight):
            weight = weight[(0,) * (weight.dim() - 1)]
        else:
            batched = (
                upstream, logits, target, weight, maximum, others, log_sum, mass, denominator
            )  # fmt: skip
            return torch.stack([target_op(*each, *options) for each in zip(*batched, strict=True)])
    of_loss, _ = launches.upstream_rows(
        upstream, target, maximum, log_sum, mass, denominator, weight is not None, options
    )
    gradient = launches.target_rows(
        of_loss.reshape(-1),
        logits.reshape(-1, logits.shape[-1]),
        _contiguous(weight),
        maximum.reshape(-1),
        others.reshape(-1),
        log_sum.reshape(-1),
        options,
        target.dtype,
    )
    return gradient.reshape(logits.shape)


@target_op.register_fake
def _(upstream: Tensor, logits: Tensor, target: Tensor, *rest: object) -> Tensor:
    return torch.empty(target.shape, dtype=target.dtype, device=logits.device)


def _loss_dtype(logits: Tensor) -> torch.dtype:
    return launch.statistics_dtype(logits.dtype)


def _rows_of(target: Tensor, logits: Tensor) -> Tensor:
    """(..., N) indices as (N',), contiguous; (..., N, C) probabilities as (N', C)."""
    if target.is_floating_point():
        return target.reshape(-1, logits.shape[-1])
    return target.reshape(-1).contiguous()


def _contiguous(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.contiguous()


def _is_shared(weight: Tensor) -> bool:
    """Whether (..., C) weights are (C,) weights expanded."""
    pairs = zip(weight.shape[:-1], weight.stride()[:-1], strict=True)
    return weight.numel() > 0 and all(size == 1 or stride == 0 for size, stride in pairs)


def check_range(
    target: Tensor, target_shape: Sequence[int], n_classes: int, ignore_index: int
) -> None:
    bad = (target != ignore_index) & ((target < 0) | (target >= n_classes))
    if not bool(bad.any()):
        return
    place = bad.reshape(-1).nonzero()[0, 0]
    value = int(target.reshape(-1)[place])
    within = place % max(target.shape[-1], 1)
    position = tuple(int(i) for i in torch.unravel_index(within.cpu(), tuple(target_shape)))
    raise IndexError(
        f"target {value} at position {position} is outside the {n_classes} classes: "
        f"valid are [0, {n_classes}) and ignore_index={ignore_index}"
    )
