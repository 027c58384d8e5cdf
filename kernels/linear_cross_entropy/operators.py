"""Linear layer and cross-entropy as one operator, in chunks of rows.

A chunk's logits exist in forward and, computed once more, in backward, and are gone with the next
chunk. What stays of a row is what cross-entropy keeps of it (`kernels.cross_entropy.launches`). So
the gradient is formed when its upstream scale is known, and nothing is rounded before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import launch
from ..cross_entropy import launches
from ..cross_entropy.operators import check_range
from ..cross_entropy.options import Options
from . import product

# A chunk's logits may always take this many elements: 64 MiB in fp32.
_LEAST = 2**24


def rows_of_chunk(x: Tensor, weight: Tensor, asked: int) -> int:
    """Rows whose logits are held at a time: as asked, or as many as make a chunk of logits no
    larger than the input itself.
    """
    if asked > 0:
        return asked
    return max(max(x.numel(), _LEAST) // max(weight.shape[0], 1), 1)


def _chunks(n_rows: int, size: int) -> Iterator[slice]:
    # One empty chunk for no rows at all: the results then have their dtypes and shapes.
    for start in range(0, max(n_rows, 1), size):
        yield slice(start, min(start + size, n_rows))


def _logits(x: Tensor, weight: Tensor, bias: Tensor | None, positions: int) -> Tensor:
    """The logits of some rows, (rows * positions, C): a weight (C, positions, H) makes one row of
    logits for each position.
    """
    logits = product.logits_of(x, weight, bias)
    if positions == 1:
        return logits
    return (
        logits.reshape(x.shape[0], -1, positions).movedim(1, 2).reshape(x.shape[0] * positions, -1)
    )


def _merged(logits_gradient: Tensor, positions: int) -> Tensor:
    """The inverse of what `_logits` does to the shape."""
    if positions == 1:
        return logits_gradient
    n_classes = logits_gradient.shape[1]
    parts = logits_gradient.reshape(-1, positions, n_classes).movedim(2, 1)
    return parts.reshape(-1, n_classes * positions)


def _part(rows: slice, positions: int) -> slice:
    return slice(rows.start * positions, rows.stop * positions)


@torch.library.custom_op("kernels::linear_cross_entropy_forward", mutates_args=())
def forward_op(
    x: Tensor,  # (N, H)
    weight: Tensor,  # (C * positions, H)
    bias: Tensor | None,  # (C * positions,)
    target: Tensor,  # (N * positions,) class indices, or (N * positions, C) probabilities
    class_weight: Tensor | None,  # (C,)
    positions: int,
    chunk_rows: int,
    check_targets: bool,
    target_shape: Sequence[int],
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
    reduction: str,
    all_ignored: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What `cross_entropy.operators.forward_op` returns, for logits that are never held whole."""
    options = Options(ignore_index, label_smoothing, z_loss, softcap, reduction, all_ignored)
    if check_targets and not target.is_floating_point():
        check_range(target, target_shape, weight.shape[0] // positions, ignore_index)
    found = []
    for rows in _chunks(x.shape[0], rows_of_chunk(x, weight, chunk_rows)):
        logits = _logits(x[rows], weight, bias, positions)
        part = target[_part(rows, positions)].contiguous()
        found.append(launches.forward_rows(logits, part, class_weight, options))
    whole = launches.Statistics(*(torch.cat(each) for each in zip(*found, strict=True)))
    excess = whole.excess[None] if whole.excess.numel() else whole.excess
    loss, denominator = launches.reduce_rows(
        whole.loss[None], excess, whole.row_weight[None], options, launch.statistics_dtype(x.dtype)
    )
    return loss[0], whole.maximum, whole.others, whole.log_sum, whole.mass, denominator[0]


@forward_op.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    positions: int,
    chunk_rows: int,
    check_targets: bool,
    target_shape: Sequence[int],
    *options: int | float | str,
) -> tuple[Tensor, ...]:
    given = Options(*options)  # type: ignore[arg-type]
    wide = launch.statistics_dtype(x.dtype)
    logits = x.new_empty(x.shape[0] * positions, weight.shape[0] // positions, dtype=wide)
    statistics = launches.empty_statistics(logits, target, class_weight, given)
    shape = logits.shape[:1] if given.reduction == "none" else logits.shape[:0]
    return (
        x.new_empty(shape, dtype=wide),
        statistics.maximum,
        statistics.others,
        statistics.log_sum,
        statistics.mass,
        x.new_empty(2, dtype=torch.float64),
    )


@torch.library.custom_op("kernels::linear_cross_entropy_backward", mutates_args=())
def backward_op(
    upstream: Tensor,  # () or (N * positions,)
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    maximum: Tensor,
    others: Tensor,
    log_sum: Tensor,
    mass: Tensor,
    denominator: Tensor,
    positions: int,
    chunk_rows: int,
    wanted: Sequence[bool],  # of x, weight, bias
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
    reduction: str,
    all_ignored: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias in their dtypes; empty where not wanted."""
    options = Options(ignore_index, label_smoothing, z_loss, softcap, reduction, all_ignored)
    wide = launch.statistics_dtype(x.dtype)
    of_loss, of_z = launches.upstream_rows(
        upstream[None], target[None], maximum[None], log_sum[None], mass[None],
        denominator[None], class_weight is not None, options,
    )  # fmt: skip
    of_x = x.new_empty(x.shape if wanted[0] else 0)
    of_weight = weight.new_zeros(weight.shape if wanted[1] else 0, dtype=wide)
    of_bias = weight.new_zeros(weight.shape[0] if wanted[2] else 0, dtype=wide)
    for rows in _chunks(x.shape[0], rows_of_chunk(x, weight, chunk_rows)):
        part = _part(rows, positions)
        gradient = launches.backward_rows(
            of_loss[0, part], None if of_z is None else of_z[0, part],
            _logits(x[rows], weight, bias, positions), target[part].contiguous(), class_weight,
            maximum[part], others[part], mass[part], options,
        )  # fmt: skip
        gradient = _merged(gradient, positions)
        if wanted[0]:
            of_x[rows] = product.times_weight(gradient, weight).to(x.dtype)
        if wanted[1]:
            product.add_outer(of_weight, gradient, x[rows])
        if wanted[2]:
            of_bias += gradient.sum(dim=0)
    bias_dtype = weight.dtype if bias is None else bias.dtype
    return of_x, of_weight.to(weight.dtype), of_bias.to(bias_dtype)


@backward_op.register_fake
def _(upstream: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Any:
    wanted = rest[9]
    return (
        x.new_empty(x.shape if wanted[0] else 0),
        weight.new_empty(weight.shape if wanted[1] else 0),
        (weight if bias is None else bias).new_empty(weight.shape[0] if wanted[2] else 0),
    )
