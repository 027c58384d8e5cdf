"""Each guard is needed: with it switched off the property that it serves is lost.

A guard is a function of its own in the kernels' modules; the interpreter looks functions up by name
when they are called, so replacing one there switches it off in the very kernel. A GPU has compiled
them in, so these tests run where the kernels are interpreted.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable

import pytest
import torch
import triton
import triton.language as tl

import kernels
from kernels import elementary, launch
from suites.conformance import exact

pytestmark = pytest.mark.skipif(
    not launch.INTERPRETED, reason="a compiled kernel has its guards built in"
)

Draw = Callable[..., torch.Tensor]
# By module name: as an attribute `kernels.cross_entropy` is the user's function.
ce_fused = importlib.import_module("kernels.cross_entropy.fused")
norm_fused = importlib.import_module("kernels.normalize.fused")


@triton.jit
def _unguarded_reference(maximum):
    return maximum


@triton.jit
def _no_reference(maximum):
    return maximum * 0.0


@triton.jit
def _with_target(terms, columns, target):
    return terms


@triton.jit
def _plain_exponential(x, reference, BOOST: tl.constexpr = 0):
    return tl.exp(x - reference) * (2.0**BOOST)


@triton.jit
def _without_boost(x, reference, BOOST: tl.constexpr = 0):
    return elementary.exp_difference(x, reference, 0) * (2.0**BOOST)


@triton.jit
def _uncompensated(total, lost, value):
    return total + value, lost


@triton.jit
def _no_scale(x):
    return tl.max((x * 0.0).to(tl.int32), axis=1)


def _loss(logits: torch.Tensor, target: list[int]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of what the guard prevents
        return kernels.cross_entropy(logits, torch.tensor(target), reduction="none")


def _masked_first_block() -> bool:
    logits = torch.zeros(1, 130)
    logits[:, :64] = -math.inf
    return math.isclose(_loss(logits, [100]).item(), math.log(66), rel_tol=1e-6)


def _large_logits() -> bool:
    logits = 1e4 + torch.arange(130.0)[None] % 7
    truth = exact.cross_entropy(logits, torch.tensor([3]))[0]
    return exact.max_ulps(_loss(logits, [3]), truth) <= 2


def _confident() -> bool:
    logits = torch.zeros(1, 130)
    logits[0, 5] = 40.0
    return math.isclose(_loss(logits, [5]).item(), 129 * math.exp(-40), rel_tol=1e-6)


def _subnormal_terms() -> bool:
    logits = torch.zeros(1, 130)
    logits[0, 5] = 100.0
    truth = exact.cross_entropy(logits, torch.tensor([5]))[0]
    return exact.max_ulps(_loss(logits, [5]), truth) <= 2


def _rounded_difference() -> bool:
    logits = torch.tensor([[60.0, 1e-6 + 16.0 / 3, 1.0 / 3]])
    truth = exact.cross_entropy(logits, torch.tensor([0]))[0]
    return exact.max_ulps(_loss(logits, [0]), truth) <= 2


def _many_blocks() -> bool:
    # A block of 64 equal terms, then 99 blocks too small to move an uncompensated fp64 sum.
    logits = torch.full((1, 64 * 100), -36.9, dtype=torch.float64)
    logits[0, :64] = 0.0
    truth = exact.cross_entropy(logits, torch.tensor([0]))[0]
    return exact.max_ulps(_loss(logits, [0]), truth) <= 2


def _large_vector() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = kernels.normalize(torch.full((1, 64), 1e38))
    return torch.equal(y, torch.full_like(y, 0.125))


def _small_vector() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = kernels.normalize(torch.full((1, 64), 2.0**-100).bfloat16(), eps=0.0)
    return torch.equal(y, torch.full_like(y, 0.125))


# Each guard, what stands in for it, and the check that must hold with it and fail without.
@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    ("module", "guard", "replacement", "holds"),
    [
        (ce_fused, "finite_reference", _unguarded_reference, _masked_first_block),
        (ce_fused, "finite_reference", _no_reference, _large_logits),
        (ce_fused, "without_target", _with_target, _confident),
        (ce_fused, "exp_difference", _plain_exponential, _rounded_difference),
        (ce_fused, "exp_difference", _without_boost, _subnormal_terms),
        (ce_fused, "add_compensated", _uncompensated, _many_blocks),
        (norm_fused, "scale_exponent", _no_scale, _large_vector),
        (norm_fused, "scale_exponent", _no_scale, _small_vector),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)).removeprefix("kernels."),
)
def test_guard_is_needed(
    module: object,
    guard: str,
    replacement: object,
    holds: Callable[[], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The property holds, and no longer does once the guard is replaced by what people usually
    write.
    """
    assert holds()
    monkeypatch.setattr(module, guard, replacement)
    assert not holds()


def test_gradient_scale_before_rounding(draw: Draw) -> None:
    """Scaling after the gradient was rounded to fp16 loses entries that scaling before keeps."""
    logits = draw(1, 30000, dtype=torch.float16).requires_grad_()
    loss = kernels.cross_entropy(logits, torch.tensor([0]))
    (unscaled,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (scaled,) = torch.autograd.grad(loss * 1024, logits)
    truth = exact.cross_entropy(logits.detach(), torch.tensor([0]))[1].sum()
    relative = [
        ((g.double() / s - truth).abs() / truth.abs()).max()
        for g, s in ((unscaled, 1), (scaled, 1024))
    ]
    assert relative[1] < 2e-3 < 0.02 < relative[0]
