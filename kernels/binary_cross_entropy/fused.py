"""Binary cross-entropy with logits, element by element: the Triton kernels, the operators, the
autograd function.

    loss = (x (1 - y) if x > 0 else |x| y) + log1p(exp(-|x|))
    dx = g ((1 - y) sigmoid(x) - y sigmoid(-x)),     dy = -g x

For targets within [0, 1] both terms of the loss are nonnegative, so nothing cancels. The sigmoids
come from e = exp(-|x|) as 1 / (1 + e) and e / (1 + e), each accurate relatively.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import launch
from ..convert import narrow, widen
from ..elementary import divide, exp_difference, log1p, power_of_two, unboosting_factors
from ..first_order import first_order
from . import reference

_BOOST = tl.constexpr(64)

# --- kernels --------------------------------------------------------------------------------------


@triton.jit
def _forward_kernel(
    logits,  # (N,) contiguous
    target,  # (N,) contiguous
    loss,  # (N,) out
    n_elements,
    STATISTICS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < n_elements
    x = widen(tl.load(logits + index, mask=mask, other=0.0), STATISTICS)
    y = widen(tl.load(target + index, mask=mask, other=0.0), STATISTICS)
    size = tl.abs(x)
    finite = size < float("inf")
    linear = tl.where(finite, size, 0.0) * tl.where(x > 0.0, 1.0 - y, y)
    # exp(-|x|) as a difference from 0: underflow and infinity are dealt with there. NaN comes back
    # as NaN.
    out = linear + log1p(exp_difference(-size, tl.zeros_like(size)))
    # torch computes (1 - y) x - log(sigmoid(x)): inf for x = inf and y < 1, else inf - inf or 0 *
    # inf.
    infinite = tl.where((x > 0.0) & (y < 1.0), float("inf"), float("nan"))
    infinite = tl.where((x > 0.0) & (y > 1.0), float("-inf"), infinite)
    tl.store(loss + index, tl.where(size == float("inf"), infinite, out), mask=mask)


@triton.jit
def _backward_kernel(
    upstream,  # (N,) statistics dtype, stride 0 allowed
    logits,  # (N,) contiguous
    target,  # (N,) contiguous
    gradient,  # (N,) out
    n_elements,
    stride_upstream,
    STATISTICS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < n_elements
    g = widen(tl.load(upstream + index * stride_upstream, mask=mask, other=0.0), STATISTICS)
    x = widen(tl.load(logits + index, mask=mask, other=0.0), STATISTICS)
    y = widen(tl.load(target + index, mask=mask, other=0.0), STATISTICS)
    size = tl.abs(x)
    # e and 1 are held as 2**64 times themselves, so that a small e keeps its bits until the
    # upstream gradient has entered; only a target far outside [0, 1] could then overflow.
    e = exp_difference(-size, tl.zeros_like(size), _BOOST)
    boost = power_of_two(tl.full(size.shape, _BOOST, tl.int32), STATISTICS)
    unboost = power_of_two(tl.full(size.shape, -_BOOST, tl.int32), STATISTICS)
    denominator = 1.0 + e * unboost
    usual = tl.abs(y) <= 1024.0
    one = tl.where(usual, boost, 1.0)
    e = tl.where(usual, e, e * unboost)
    # The larger sigmoid, of |x|, is 1 / (1 + e), the smaller e / (1 + e).
    slope = tl.where(x > 0.0, (1.0 - y) * one - y * e, (1.0 - y) * e - y * one)
    slope = divide(slope, denominator)
    before, after = unboosting_factors(g, _BOOST)
    before = tl.where(usual, before, g)
    out = slope * before * tl.where(usual, after, 1.0)
    tl.store(gradient + index, narrow(out, gradient.dtype.element_ty), mask=mask)


# --- operators: allocate and launch ---------------------------------------------------------------


def _launch_options(logits: Tensor) -> tuple[tuple[int], dict[str, Any]]:
    _, block = launch.tile(1, logits.numel())
    constants = {
        "STATISTICS": launch.triton_dtype(launch.statistics_dtype(logits.dtype)),
        "BLOCK": block,
    }
    return (triton.cdiv(logits.numel(), block),), constants | launch.OPTIONS


@torch.library.custom_op("kernels::binary_cross_entropy_forward", mutates_args=())
def forward_op(logits: Tensor, target: Tensor) -> Tensor:
    """The loss of each element of contiguous (N,) logits."""
    if not launch.uses_triton(logits):
        return reference.stable_forward(logits, target)
    loss = logits.new_empty(logits.shape, dtype=launch.statistics_dtype(logits.dtype))
    if logits.numel():
        grid, options = _launch_options(logits)
        with launch.on_device(logits):
            _forward_kernel[grid](logits, target, loss, logits.numel(), **options)
    return loss


@forward_op.register_fake
def _(logits: Tensor, target: Tensor) -> Tensor:
    return logits.new_empty(logits.shape, dtype=launch.statistics_dtype(logits.dtype))


@torch.library.custom_op("kernels::binary_cross_entropy_backward", mutates_args=())
def backward_op(upstream: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    """The gradient of contiguous (N,) logits for an upstream gradient (N,) of any stride."""
    if not launch.uses_triton(logits):
        return reference.stable_backward(upstream, logits, target)
    gradient = torch.empty_like(logits)
    if logits.numel():
        grid, options = _launch_options(logits)
        with launch.on_device(logits):
            _backward_kernel[grid](
                upstream, logits, target, gradient, logits.numel(), upstream.stride(0), **options
            )
    return gradient


@backward_op.register_fake
def _(upstream: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    return torch.empty_like(logits)


# --- autograd -------------------------------------------------------------------------------------


class BinaryCrossEntropy(torch.autograd.Function):
    """The loss of contiguous (N,) logits and targets, reduced."""

    @staticmethod
    def forward(logits: Tensor, target: Tensor, reduction: str) -> Tensor:
        return combine(forward_op(logits, target), reduction)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        logits, target, ctx.reduction = inputs
        ctx.save_for_backward(logits, target)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, target = ctx.saved_tensors
        if ctx.reduction == "mean":
            grad = (grad.double() / logits.numel()).to(grad.dtype)
        upstream = grad.expand(logits.shape)
        for_logits = for_target = None
        if ctx.needs_input_grad[0]:
            for_logits = first_order("binary_cross_entropy", backward_op, upstream, logits, target)
        if ctx.needs_input_grad[1]:
            for_target = (-upstream * logits).to(target.dtype)
        return for_logits, for_target, None


def combine(loss: Tensor, reduction: str) -> Tensor:
    """The reduced loss, its mean finite whenever the true mean is: fp32 is summed in fp64, fp64
    scaled before where its sum overflows (elsewhere subnormal losses would lose their bits).
    """
    if reduction == "none":
        return loss
    if loss.dtype == torch.float32:
        return (loss.double().mean() if reduction == "mean" else loss.double().sum()).float()
    if reduction == "sum":
        return loss.sum()
    plain = loss.mean()
    if not loss.numel():
        return plain
    power = 2.0 ** loss.numel().bit_length()
    scaled = (loss / power).sum() * (power / loss.numel())
    return torch.where(plain.isfinite(), plain, scaled)
