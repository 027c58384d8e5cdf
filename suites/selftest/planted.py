"""Kernels with a known defect each, for the harness to find, and sound ones it must not accuse.

All are real: Triton kernels where the defect is one of kernels, PyTorch where it is one of
formulas. Cross-entropy takes (N, C) logits with 64 columns and returns (N,) losses; normalize keeps
the shape.
"""

import itertools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 32  # half a row: what is masked in the first half is a whole block


@triton.jit
def _online_kernel(
    logits, target, loss, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, SUBTRACT: tl.constexpr
):
    """Online softmax as many write it: the running maximum starts at -inf and is never guarded."""
    row = tl.program_id(0)
    top = tl.full((), float("-inf"), tl.float32)
    total = tl.full((), 0.0, tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        where = start + tl.arange(0, BLOCK)
        x = tl.load(logits + row * COLUMNS + where, mask=where < COLUMNS, other=float("-inf"))
        x = x.to(tl.float32)
        new = tl.maximum(top, tl.max(x, 0)) if SUBTRACT else top * 0.0
        if SUBTRACT:
            total = total * tl.exp(top - new) + tl.sum(tl.exp(x - new), 0)
            top = new
        else:
            total += tl.sum(tl.exp(x), 0)
    chosen = tl.load(logits + row * COLUMNS + tl.load(target + row)).to(tl.float32)
    value = tl.log(total) - chosen
    if SUBTRACT:
        value += top
    tl.store(loss + row, value)


def _launch(input: Tensor, target: Tensor, *, subtract: bool, block: int = _BLOCK) -> Tensor:
    loss = torch.empty(len(input), dtype=torch.float32, device=input.device)
    safe = target.clamp(min=0)
    _online_kernel[(len(input),)](
        input.detach(), safe, loss, COLUMNS=input.shape[1], BLOCK=block, SUBTRACT=subtract
    )
    return torch.where(target < 0, 0.0, loss)


def no_maximum_subtraction(input: Tensor, target: Tensor) -> Tensor:
    """exp of the raw logits: overflows at 88.7 in fp32."""
    return _launch(input, target, subtract=False)


def epsilon_rounds_to_zero(input: Tensor) -> Tensor:
    """x / max(norm, eps) with eps in the input's dtype: 1e-12 is 0 in fp16, and 0/0 is NaN."""
    epsilon = torch.tensor(1e-12, dtype=input.dtype, device=input.device)
    norm = input.float().square().sum(-1, keepdim=True).sqrt().to(input.dtype)
    return input / torch.maximum(norm, epsilon)


def returns_zeros(input: Tensor) -> Tensor:
    """The right shape and dtype, and nothing computed."""
    return input * 0.0


@triton.jit
def _halves_kernel(x, out, count, BLOCK: tl.constexpr):
    where = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + where, tl.load(x + where, mask=where < count), mask=where < count)


def tail_left_unwritten(input: Tensor) -> Tensor:
    """Divides the grid down instead of up: the last, partial block is never written."""
    direction = _sound_direction(input)
    out = torch.empty_like(direction)
    count = direction.numel() - 1
    _halves_kernel[(count // _BLOCK,)](direction.contiguous(), out, count, BLOCK=_BLOCK)
    return out


def overwrites_its_input(input: Tensor) -> Tensor:
    """Right answers, written over the caller's tensor through its memory."""
    direction = _sound_direction(input)
    input.detach().copy_(direction)
    return direction.clone()


_calls = itertools.count()


def differs_from_run_to_run(input: Tensor) -> Tensor:
    """Right to half an ulp, but every other call rounds the first element the other way."""
    direction = _sound_direction(input).clone()
    if next(_calls) % 2:
        flat = direction.view(-1)
        flat[0] = torch.nextafter(flat[0], torch.zeros_like(flat[0]))
    return direction


def _sound_direction(input: Tensor) -> Tensor:
    """x / ||x|| in float64 with a power-of-two scale, rounded once; zero for the zero vector."""
    wide = input.detach().double()
    top = wide.abs().amax(-1, keepdim=True)
    part = torch.ldexp(wide, -torch.frexp(top).exponent)
    norm = part.square().sum(-1, keepdim=True).sqrt()
    return torch.where(norm == 0, 0.0, part / norm).to(input.dtype)


def raises_at_large_input(input: Tensor) -> Tensor:
    """Right below 1e4; above it, an exception that takes the whole launch with it."""
    if bool((input.abs() > 1e4).any()):
        raise RuntimeError("input too large")
    return _sound_direction(input)


def returns_every_logit(input: Tensor, target: Tensor) -> Tensor:
    """(N, C) where one loss a row is wanted."""
    return torch.log_softmax(input, 1)


def returns_too_few_bits(input: Tensor) -> Tensor:
    """Right to half an ulp, of bf16."""
    return _sound_direction(input).bfloat16()


class _MutatesInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        ctx.input = input.detach()
        return _sound_direction(input)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        ctx.input.mul_(2.0)
        return upstream * 0.0


def overwrites_in_backward(input: Tensor) -> Tensor:
    """The forward is right and leaves its input alone; the backward does not."""
    return _MutatesInBackward.apply(input)


def unguarded_wide_block(input: Tensor, target: Tensor) -> Tensor:
    """The unguarded online softmax with the 1,024 columns a block that real kernels have."""
    return _launch(input, target, subtract=True, block=1024)


def swallows_nan(input: Tensor, target: Tensor) -> Tensor:
    """Clamps the loss to finite values: hides what is not finite from its owner."""
    loss = torch.nn.functional.cross_entropy(input.detach().double(), target, reduction="none")
    return torch.nan_to_num(loss, posinf=0.0).float()


class _Sound(torch.autograd.Function):
    """Cross-entropy in float64, the gradient scaled before it is rounded: nothing to find."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(input, target)
        kept, column = target >= 0, target.clamp(min=0)[:, None]
        wide = input.detach().double()
        top = wide.amax(1, keepdim=True)
        powers = torch.exp(wide - top)
        own = powers.gather(1, column)
        rest = powers.scatter(1, column, 0.0).sum(1, keepdim=True)
        chosen = wide.gather(1, column)
        loss = torch.where(
            chosen == top, torch.log1p(rest), (top - chosen) + torch.log(rest + own)
        ).squeeze(1)
        return torch.where(kept, loss, 0.0).float()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        input, target = ctx.saved_tensors
        return _gradient(input, target, upstream), None


def _gradient(input: Tensor, target: Tensor, upstream: Tensor) -> Tensor:
    wide = input.double()
    column = target.clamp(min=0)[:, None]
    powers = torch.exp(wide - wide.amax(1, keepdim=True))
    own = powers.gather(1, column)
    rest = powers.scatter(1, column, 0.0).sum(1, keepdim=True)
    gradient = (powers / (rest + own)).scatter(1, column, -rest / (rest + own))
    gradient = torch.where(target[:, None] >= 0, gradient * upstream.double()[:, None], 0.0)
    return gradient.to(input.dtype)


def sound_cross_entropy(input: Tensor, target: Tensor) -> Tensor:
    """Correct for fp16, bf16 and fp32 inputs over their whole range."""
    return _Sound.apply(input, target)


def sound_forward_alone(input: Tensor) -> Tensor:
    """The direction of x, right everywhere, without a gradient."""
    return _sound_direction(input)


class _Unguarded(_Sound):
    """The sound gradient behind the unguarded forward."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(input, target)
        return _launch(input, target, subtract=True)


def unguarded_masked_block(input: Tensor, target: Tensor) -> Tensor:
    """A first block of -inf alone gives exp(-inf - -inf) = NaN, and the row keeps it."""
    return _Unguarded.apply(input, target)


class _BadBackward(_Sound):
    """The gradient's target column is formed as p - 1 in the logits' dtype, where p rounds to 1."""

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        input, target = ctx.saved_tensors
        gradient = torch.softmax(input, 1)
        column = target.clamp(min=0)[:, None]
        gradient = gradient.scatter(1, column, gradient.gather(1, column) - 1)
        return torch.where(target[:, None] >= 0, gradient * upstream[:, None], 0.0).to(
            input.dtype
        ), None


def gradient_cancels(input: Tensor, target: Tensor) -> Tensor:
    """Right forward; a confident row's gradient at the target is lost."""
    return _BadBackward.apply(input, target)


class _UnwrittenBackward(_Sound):
    """Ignores rows by not writing their gradient."""

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        input, target = ctx.saved_tensors
        gradient = torch.empty_like(input)
        kept = target >= 0
        gradient[kept] = _gradient(input, target, upstream)[kept]
        return gradient, None


def ignored_gradient_unwritten(input: Tensor, target: Tensor) -> Tensor:
    """Right everywhere but in the gradient of ignored rows, which nobody writes."""
    return _UnwrittenBackward.apply(input, target)
