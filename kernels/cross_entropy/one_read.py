"""Cross-entropy and its gradient in one launch: logits read once, their gradient written once.

The formulas are those of `kernels.cross_entropy.fused`. What a loss and its backward cannot have,
one read of the logits for both, takes two things here: a row is held on chip between its sums and
its gradient, and the scale of its gradient is known beforehand. Of that scale, everything but the
upstream number lies in targets and weights, N numbers beside the N x C of the logits: the mean's
denominator is summed before the kernel starts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import launch
from ..convert import narrow, widen
from ..elementary import power_of_two
from ..row import load_row, store_piece
from . import launches
from .exponential import exp_difference, exp_difference_pair, scaled_pair, split_sum
from .operators import check_range
from .options import Options
from .rows import (
    block_maximum,
    finite_reference,
    gradient_factors,
    load_at,
    load_labels,
    log_of_row,
    row_loss,
    without_target,
)

FAMILY = "cross_entropy_with_gradient"


@triton.jit
def _kernel(
    logits,  # (N, C), rows of adjacent elements
    target,  # (N,) int64
    row_weight,  # (N,): the row's weight, 0 where it is ignored
    upstream,  # (N,) SUMS, stride 0 allowed: g
    loss,  # (N,) fp64 out: the row's loss
    excess,  # (N,) fp64 out, for fp64: what of it is beyond fp64, see `row_loss`
    gradient,  # (N, C) out, contiguous
    n_rows,
    n_columns,
    ignore_index,
    stride_row,
    stride_upstream,
    STATISTICS: tl.constexpr,
    SUMS: tl.constexpr,
    BOOST: tl.constexpr,
    PIECES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    UNIT: tl.constexpr,
):
    n_columns = launch.known_multiple(n_columns, UNIT)
    stride_row = launch.known_multiple(stride_row, UNIT)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = rows < n_rows
    ignored, label = load_labels(target, rows, inside, n_columns, ignore_index)
    x_y = load_at(logits, rows, label, stride_row, 1, STATISTICS)
    row = load_row(logits, rows, inside, stride_row, n_columns, float("-inf"), PIECES)
    m = tl.full([BLOCK_M], float("-inf"), STATISTICS)
    for i in tl.static_range(len(PIECES)):
        m = block_maximum(widen(row[i], STATISTICS), m)
    subtract = finite_reference(m)

    total = tl.zeros([BLOCK_M], tl.float64)
    rest = tl.zeros([BLOCK_M], tl.float64)  # of fp64 logits: what is to be added at the end
    powers = ()
    lows = ()
    start = 0
    for i in tl.static_range(len(PIECES)):
        x = widen(row[i], STATISTICS)
        columns = (start + tl.arange(0, PIECES[i]))[None, :]
        if STATISTICS == tl.float64:
            power, low = exp_difference_pair(x, subtract[:, None], BOOST)
            terms = without_target(power, columns, label[:, None])
            low_terms = without_target(low, columns, label[:, None])
            coarse, fine = split_sum(terms, low_terms, BOOST)
            # Exact, so that the pieces' sum is rounded once.
            total += coarse
            rest += fine
            powers = powers + (power,)  # type: ignore[assignment]
            lows = lows + (low,)  # type: ignore[assignment]
        else:
            power = exp_difference(x, subtract[:, None], BOOST)
            terms = without_target(power, columns, label[:, None])
            total += tl.sum(terms.to(tl.float64), axis=1)
            powers = powers + (power,)  # type: ignore[assignment]
        start += PIECES[i]
    if STATISTICS == tl.float64:
        total += rest

    g = tl.load(upstream + rows * stride_upstream, mask=inside, other=0.0)
    g = tl.where(ignored, 0.0, g)
    at_target, before, before_low, after = gradient_factors(
        g, tl.zeros_like(g), total.to(SUMS), x_y, m, label, ignored, False, BOOST
    )
    start = 0
    for i in tl.static_range(len(PIECES)):
        columns = (start + tl.arange(0, PIECES[i]))[None, :]
        if STATISTICS == tl.float64:
            out = scaled_pair(
                powers[i], lows[i], before[:, None], before_low[:, None], after[:, None]
            )
        else:
            out = powers[i].to(SUMS) * before[:, None] * after[:, None]
        out = tl.where(columns == label[:, None], at_target[:, None], out)
        out = narrow(out, gradient.dtype.element_ty)
        store_piece(gradient, rows, inside, n_columns, n_columns, out, start)
        start += PIECES[i]

    # Last, when the row has left the registers; what is small is read again rather than kept.
    ignored, label = load_labels(target, rows, inside, n_columns, ignore_index)
    x_y = load_at(logits, rows, label, stride_row, 1, STATISTICS)
    unboost = power_of_two(tl.full([BLOCK_M], -BOOST, tl.int32), tl.float64)
    half_gap, log_d, log_low = log_of_row(total * unboost, x_y, m, label, ignored)
    weight = tl.load(row_weight + rows, mask=inside, other=0.0)
    value, beyond = row_loss(half_gap, weight, weight, log_d, log_low, log_d, 0.0, False)
    tl.store(loss + rows, tl.where(ignored, 0.0, value), mask=inside)
    if STATISTICS == tl.float64:
        tl.store(excess + rows, tl.where(ignored, 0.0, beyond), mask=inside)


@torch.library.custom_op("kernels::cross_entropy_with_gradient", mutates_args=())
def with_gradient_op(
    logits: Tensor,  # (N, C)
    target: Tensor,  # (N,) int64
    weight: Tensor | None,  # (C,)
    upstream: Tensor,  # (), of the loss's dtype
    check_targets: bool,
    target_shape: Sequence[int],
    ignore_index: int,
    reduction: str,
    all_ignored: str,
) -> tuple[Tensor, Tensor]:
    """The loss, () or (N,), and `upstream` times the gradient of (the sum of) it, (N, C)."""
    options = Options(ignore_index, 0.0, 0.0, 0.0, reduction, all_ignored)
    if check_targets:
        check_range(target, target_shape, logits.shape[-1], ignore_index)
    weight = None if weight is None else weight.contiguous()
    target = target.contiguous()
    if not _fits(logits):
        return _in_two_reads(logits, target, weight, upstream, options)
    if logits.stride(1) != 1 and logits.shape[1] > 1:
        logits = logits.contiguous()
    row_weight = _row_weight(logits, target, weight, options)
    of_loss = _upstream_rows(upstream, target, row_weight, weight is not None, options)
    of_loss = of_loss.to(launch.sum_dtype(logits.dtype))
    out = launches.empty_statistics(logits, target, weight, options)
    gradient = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    if logits.shape[0] > 0:
        programs, constants = launch.row_launch(FAMILY, logits, *logits.shape, logits.stride(0))
        for of_loop in ("BLOCK_N", "STATIC_BLOCKS"):
            del constants[of_loop]
        with launch.on_device(logits):
            _kernel[(programs,)](
                logits, target, row_weight, of_loss, out.loss, out.excess, gradient,
                *logits.shape, ignore_index, logits.stride(0), of_loss.stride(0),
                STATISTICS=launch.triton_dtype(launch.statistics_dtype(logits.dtype)),
                SUMS=launch.triton_dtype(launch.sum_dtype(logits.dtype)),
                BOOST=launches.boost(logits.dtype), **constants,
            )  # fmt: skip
    return _reduced(out.loss, out.excess, row_weight, options), gradient


@with_gradient_op.register_fake
def _(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    upstream: Tensor,
    check_targets: bool,
    target_shape: Sequence[int],
    ignore_index: int,
    reduction: str,
    all_ignored: str,
) -> tuple[Tensor, Tensor]:
    shape = logits.shape[:1] if reduction == "none" else ()
    loss = logits.new_empty(shape, dtype=launch.statistics_dtype(logits.dtype))
    return loss, torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)


def _fits(logits: Tensor) -> bool:
    """Whether the kernel runs, and holds rows of this width on chip."""
    if not launch.uses_triton(logits):
        return False
    columns = logits.shape[1]
    shape = launch.shape(FAMILY, logits, columns)
    return bool(launch.row_pieces(columns, logits.dtype, shape))


def _in_two_reads(
    logits: Tensor, target: Tensor, weight: Tensor | None, upstream: Tensor, options: Options
) -> tuple[Tensor, Tensor]:
    """The same by the kernels, or formulas, of a loss and its backward."""
    found = launches.forward_rows(logits, target, weight, options)
    of_loss = _upstream_rows(upstream, target, found.row_weight, weight is not None, options)
    gradient = launches.backward_rows(
        of_loss, None, logits, target, weight, found.maximum, found.others, found.mass, options
    )
    return _reduced(found.loss, found.excess, found.row_weight, options), gradient


def _row_weight(logits: Tensor, target: Tensor, weight: Tensor | None, options: Options) -> Tensor:
    """What each row counts for, (N,), as the forward kernel has it; reads no logits."""
    counts = (target != options.ignore_index).to(launch.statistics_dtype(logits.dtype))
    n_columns = logits.shape[1]
    if weight is None or n_columns == 0:
        return counts
    has_class = (target >= 0) & (target < n_columns)
    picked = weight.to(counts.dtype)[torch.where(has_class, target, 0)]
    # Not a product: an ignored row of infinite weight counts for nothing.
    return torch.where(counts == 0, counts, torch.where(has_class, picked, 1.0))


def _upstream_rows(
    upstream: Tensor, target: Tensor, row_weight: Tensor, has_weight: bool, options: Options
) -> Tensor:
    """The upstream gradient of each row's unweighted loss, (N,)."""
    weights = row_weight[None]
    upstream = upstream.expand(weights.shape if options.reduction == "none" else (1,))
    denominator = launches.denominator_of(weights, options)
    # Of the maxima only the shape matters, of log D nothing, where there is no z-loss.
    of_loss, _ = launches.upstream_rows(
        upstream, target[None], weights, weights, weights, denominator, has_weight, options
    )
    return of_loss[0]


def _reduced(loss: Tensor, excess: Tensor, row_weight: Tensor, options: Options) -> Tensor:
    excess = excess[None] if excess.numel() else excess
    return launches.reduce_rows(loss[None], excess, row_weight[None], options, row_weight.dtype)[0][
        0
    ]
