"""Cross-entropy in one pass: the Triton kernels, the registered operators, and their autograd
function.

With m the row's maximum, y the target, S the sum of exp(x_j - m) over all columns *but* y, and e_y
= exp(x_y - m),

    loss = log1p(S)                     where x_y is the maximum,
    loss = (m - x_y) + log(S + e_y)     elsewhere.

All terms are nonnegative, so nothing cancels: the loss keeps its relative accuracy even where the
target's probability rounds to 1, and a common offset of the logits changes nothing. The gradient is
formed in backward only, from m and S:

    dx_j = g exp(x_j - m) / (S + e_y),      dx_y = -g S / (S + e_y).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import launch
from ..convert import narrow, widen
from ..elementary import (
    add_compensated,
    divide,
    exp_difference,
    log,
    log1p,
    power_of_two,
    sum_terms,
    unboosting_factors,
)
from ..first_order import first_order
from . import reference

# Exponentials and S are held as 2**64 times themselves: a confident row's are subnormal, and would
# lose their bits before the rest of the row, or the upstream gradient, makes up for it.
_BOOST = tl.constexpr(64)

# --- kernels --------------------------------------------------------------------------------------


@triton.jit
def finite_reference(maximum):
    """What to subtract: the maximum so far, or 0 while it is infinite (-inf minus -inf would be
    NaN).
    """
    return tl.where((maximum > float("-inf")) & (maximum < float("inf")), maximum, 0.0)


@triton.jit
def without_target(terms, columns, target):
    """The terms of the sum S: all but the target's own column."""
    return tl.where(columns == target, 0.0, terms)


@triton.jit
def _load_rows(
    logits,
    target,
    rows,
    n_rows,
    n_columns,
    ignore_index,
    stride_row,
    stride_column,
    STATISTICS: tl.constexpr,
):
    """Per row: is it inside, is it ignored, its class or -1 for none, its target's logit."""
    inside = rows < n_rows
    label = tl.load(target + rows, mask=inside, other=0)
    ignored = label == ignore_index
    has_class = inside & (label != ignore_index) & (label >= 0) & (label < n_columns)
    label = tl.where(has_class, label, -1)
    offset = rows * stride_row + tl.where(has_class, label, 0) * stride_column
    target_logit = widen(tl.load(logits + offset, mask=has_class, other=0.0), STATISTICS)
    return inside, ignored, label, target_logit


@triton.jit
def _forward_kernel(
    logits,  # (N, C), any strides
    target,  # (N,) int64
    half_gap,  # (N,) out: (m - x_y) / 2
    rest,  # (N,) out: the loss beyond that gap
    maximum,  # (N,) out: m
    others,  # (N,) out: 2**64 S
    n_rows,
    n_columns,
    ignore_index,
    stride_row,
    stride_column,
    STATISTICS: tl.constexpr,
    SUMS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STATIC_BLOCKS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside, ignored, label, x_y = _load_rows(
        logits, target, rows, n_rows, n_columns, ignore_index, stride_row, stride_column, STATISTICS
    )
    unboost = power_of_two(tl.full([BLOCK_M], -_BOOST, tl.int32), SUMS)
    m = tl.full([BLOCK_M], float("-inf"), STATISTICS)
    total = tl.zeros([BLOCK_M], SUMS)
    lost = tl.zeros([BLOCK_M], SUMS)
    for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
        columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        offsets = rows[:, None] * stride_row + columns[None, :] * stride_column
        mask = inside[:, None] & (columns < n_columns)[None, :]
        x = widen(tl.load(logits + offsets, mask=mask, other=float("-inf")), STATISTICS)
        # Reductions drop NaN or not, by version and device: take it out here, the sum below carries
        # it.
        new_m = tl.maximum(m, tl.max(tl.where(x == x, x, float("-inf")), axis=1))
        subtract = finite_reference(new_m)
        terms = exp_difference(x, subtract[:, None], _BOOST)
        terms = without_target(terms, columns[None, :], label[:, None])
        rescale = exp_difference(m.to(SUMS), subtract.to(SUMS), _BOOST)
        # Both factors carry 2**64: take one out first where the product would overflow, else last.
        before = tl.where(total >= 1.0, unboost, 1.0)
        after = tl.where(total >= 1.0, 1.0, unboost)
        total = total * before * rescale * after
        lost = lost * before * rescale * after
        total, lost = add_compensated(total, lost, sum_terms(terms, SUMS, _BOOST))
        m = new_m

    tl.store(maximum + rows, m, mask=inside)
    tl.store(others + rows, total, mask=inside)
    total = (total * unboost).to(STATISTICS)
    subtract = finite_reference(m)
    at_maximum = x_y == m
    # Outside a row whose maximum is finite the target's logit may be anything: compute with the
    # maximum instead.
    x_y = tl.where((x_y <= subtract) | (x_y != x_y), x_y, subtract)
    e_y = exp_difference(x_y, subtract)
    gap = tl.where(at_maximum, 0.0, subtract * 0.5 - x_y * 0.5)
    beyond = tl.where(at_maximum, log1p(total), log(tl.maximum(total, 1.0) + e_y))
    beyond = tl.where(total == total, beyond, total)
    # An infinite maximum (all -inf, or a +inf) or a target that names no class has no loss; an
    # ignored row's is 0.
    defined = (label >= 0) & (m > float("-inf")) & (m < float("inf"))
    beyond = tl.where(defined, beyond, float("nan"))
    tl.store(half_gap + rows, tl.where(ignored | (label < 0), 0.0, gap), mask=inside)
    tl.store(rest + rows, tl.where(ignored, 0.0, beyond), mask=inside)


@triton.jit
def _backward_kernel(
    upstream,  # (N,) statistics dtype, stride 0 allowed
    logits,  # (N, C), any strides
    target,  # (N,) int64
    maximum,  # (N,) m
    others,  # (N,) 2**64 S
    gradient,  # (N, C) out, contiguous
    n_rows,
    n_columns,
    ignore_index,
    stride_upstream,
    stride_row,
    stride_column,
    STATISTICS: tl.constexpr,
    SUMS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STATIC_BLOCKS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside, ignored, label, x_y = _load_rows(
        logits, target, rows, n_rows, n_columns, ignore_index, stride_row, stride_column, STATISTICS
    )
    g = widen(tl.load(upstream + rows * stride_upstream, mask=inside, other=0.0), STATISTICS)
    m = tl.load(maximum + rows, mask=inside, other=0.0)
    total = tl.load(others + rows, mask=inside, other=1.0)
    subtract = finite_reference(m)
    x_y = tl.where((x_y <= subtract) | (x_y != x_y), x_y, subtract)
    e_y = tl.where(label >= 0, exp_difference(x_y, subtract), 0.0)
    # As in torch, a row without a loss has no gradient either, and a non-finite row has none even
    # where it is ignored.
    defined = (m > float("-inf")) & (m < float("inf")) & (ignored | (label >= 0))
    unboost = power_of_two(tl.full([BLOCK_M], -_BOOST, tl.int32), SUMS)
    normalizer = tl.where(defined, total * unboost + e_y.to(SUMS), float("nan"))
    # The upstream scale enters before 2**64 is taken out and the gradient is rounded to the logits'
    # dtype: what a loss scaler relies on.
    g = tl.where(ignored, 0.0, g).to(SUMS)
    before, after = unboosting_factors(g, _BOOST)
    at_target = -divide(total, normalizer) * before * after
    before, after = unboosting_factors(divide(g, normalizer), _BOOST)
    for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
        columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        mask = inside[:, None] & (columns < n_columns)[None, :]
        offsets = rows[:, None] * stride_row + columns[None, :] * stride_column
        x = widen(tl.load(logits + offsets, mask=mask, other=float("-inf")), STATISTICS)
        out = exp_difference(x, subtract[:, None], _BOOST).to(SUMS)
        out = out * before[:, None] * after[:, None]
        out = tl.where(columns[None, :] == label[:, None], at_target[:, None], out)
        offsets = rows[:, None] * n_columns + columns[None, :]
        tl.store(gradient + offsets, narrow(out, gradient.dtype.element_ty), mask=mask)


# --- operators: allocate and launch ---------------------------------------------------------------


def _grid_and_tile(logits: Tensor) -> tuple[tuple[int], dict[str, Any]]:
    n_rows, n_columns = logits.shape
    block_m, block_n = launch.tile(n_rows, n_columns)
    constants = {
        "STATISTICS": launch.triton_dtype(launch.statistics_dtype(logits.dtype)),
        "SUMS": launch.triton_dtype(launch.sum_dtype(logits.dtype)),
        "BLOCK_M": block_m,
        "BLOCK_N": block_n,
        "STATIC_BLOCKS": launch.static_blocks(n_columns, block_n),
    }
    return (triton.cdiv(n_rows, block_m),), constants | launch.OPTIONS


def _empty_statistics(logits: Tensor) -> list[Tensor]:
    """The four outputs of the forward kernel, the sum in a dtype of its own."""
    statistics = launch.statistics_dtype(logits.dtype)
    dtypes = (statistics, statistics, statistics, launch.sum_dtype(logits.dtype))
    return [logits.new_empty(logits.shape[0], dtype=dtype) for dtype in dtypes]


@torch.library.custom_op("kernels::cross_entropy_forward", mutates_args=())
def forward_op(
    logits: Tensor, target: Tensor, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per row of (N, C) logits: half the gap m - x_y, the rest of the loss, m and 2**64 S."""
    if not launch.uses_triton(logits):
        return reference.stable_forward(logits, target, ignore_index)
    half_gap, rest, maximum, others = _empty_statistics(logits)
    n_rows, n_columns = logits.shape
    if n_rows:
        grid, options = _grid_and_tile(logits)
        with launch.on_device(logits):
            _forward_kernel[grid](
                logits, target, half_gap, rest, maximum, others,
                n_rows, n_columns, ignore_index, logits.stride(0), logits.stride(1), **options,
            )  # fmt: skip
    return half_gap, rest, maximum, others


@forward_op.register_fake
def _(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, ...]:
    return tuple(_empty_statistics(logits))


@torch.library.custom_op("kernels::cross_entropy_backward", mutates_args=())
def backward_op(
    upstream: Tensor,
    logits: Tensor,
    target: Tensor,
    maximum: Tensor,
    others: Tensor,
    ignore_index: int,
) -> Tensor:
    """The gradient of the (N, C) logits for an upstream gradient (N,), from m and 2**64 S."""
    if not launch.uses_triton(logits):
        return reference.stable_backward(upstream, logits, target, maximum, others, ignore_index)
    n_rows, n_columns = logits.shape
    gradient = torch.empty(n_rows, n_columns, dtype=logits.dtype, device=logits.device)
    if n_rows:
        grid, options = _grid_and_tile(logits)
        with launch.on_device(logits):
            _backward_kernel[grid](
                upstream, logits, target, maximum, others, gradient,
                n_rows, n_columns, ignore_index,
                upstream.stride(0), logits.stride(0), logits.stride(1), **options,
            )  # fmt: skip
    return gradient


@backward_op.register_fake
def _(upstream: Tensor, logits: Tensor, *rest: Any) -> Tensor:
    return torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)


# --- autograd -------------------------------------------------------------------------------------


class CrossEntropy(torch.autograd.Function):
    """loss, m, 2**64 S and the number of rows that count, of logits (N, C) and targets (N,)."""

    @staticmethod
    def forward(
        logits: Tensor, target: Tensor, ignore_index: int, reduction: str, all_ignored: str
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        half_gap, rest, maximum, others = forward_op(logits, target, ignore_index)
        count = (target != ignore_index).sum().double()
        if all_ignored == "zero":
            count = count.clamp(min=1.0)
        return combine(half_gap, rest, count, reduction), maximum, others, count

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        logits, target, ctx.ignore_index, ctx.reduction, _ = inputs
        _, maximum, others, count = output
        ctx.mark_non_differentiable(maximum, others, count)
        ctx.save_for_backward(logits, target, maximum, others, count)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        logits, target, maximum, others, count = ctx.saved_tensors
        if ctx.reduction == "mean":
            grad = (grad.double() / count).to(grad.dtype)
        upstream = grad.expand(logits.shape[0])
        arguments = (upstream, logits, target, maximum, others, ctx.ignore_index)
        gradient = first_order("cross_entropy", backward_op, *arguments)
        return gradient, None, None, None, None


def combine(half_gap: Tensor, rest: Tensor, count: Tensor, reduction: str) -> Tensor:
    """The reduced loss of rows 2 * half_gap + rest, finite whenever the true value is.

    A single row of logits 3e38 and -3e38 overflows fp32, the mean over a thousand rows does not:
    fp32 rows are summed in fp64, fp64 rows, where their sum overflows, after division by the power
    of two 2**k above the count (subnormal rows would lose their bits). No step waits for the
    device.
    """
    if reduction == "none":
        return torch.add(rest, half_gap, alpha=2)
    if half_gap.dtype == torch.float32:
        total = torch.add(rest.double(), half_gap.double(), alpha=2).sum()
        return (total / count if reduction == "mean" else total).float()
    if reduction == "sum":
        return torch.add(rest, half_gap, alpha=2).sum()
    mantissa = torch.frexp(count).mantissa
    scale = mantissa / count  # 2**-k, exactly
    scaled = (half_gap * scale).sum() + (rest * (scale * 0.5)).sum()
    plain = torch.add(rest, half_gap, alpha=2).sum() / count
    return torch.where(plain.isfinite(), plain, scaled * 2 / mantissa)
