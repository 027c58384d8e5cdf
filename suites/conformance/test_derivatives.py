"""First and second derivatives, functional transforms, and how autograd is used."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels import launch
from suites.conformance.differentiable import CASES, Case, draw

pytestmark = pytest.mark.parametrize("name", list(CASES))


def _scalar(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function's result times fixed, unequal weights, added up: a sum alone may be constant."""

    def total(*inputs: Tensor) -> Tensor:
        value = function(*inputs)
        weights = torch.arange(1, value.numel() + 1, device=value.device, dtype=value.dtype)
        return (value.reshape(-1) * weights).sum()

    return total


def _close(ours: object, theirs: object) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


def _each(case: Case) -> tuple[int, ...]:
    return tuple(range(len(case.shapes)))


def test_first_and_second_derivatives(name: str, route: str, device: torch.device) -> None:
    """Both agree with finite differences in fp64, for every differentiable input.

    In the interpreter along random directions only: a launch there costs milliseconds.
    """
    case = CASES[name]
    inputs = [value.requires_grad_() for value in draw(case, torch.float64, device)]
    fast = route == "kernel" and launch.INTERPRETED
    assert torch.autograd.gradcheck(case.ours, inputs, fast_mode=fast)
    assert torch.autograd.gradgradcheck(case.ours, inputs, fast_mode=fast)


def test_second_derivatives_are_torchs(name: str, device: torch.device) -> None:
    """A penalty on the gradient has the gradient that PyTorch's own function gives it."""
    case = CASES[name]
    found = []
    for function in (case.ours, case.theirs):
        inputs = [value.requires_grad_() for value in draw(case, torch.float64, device)]
        gradients = torch.autograd.grad(_scalar(function)(*inputs), inputs, create_graph=True)
        penalty = sum(gradient.square().sum() for gradient in gradients)
        found.append(torch.autograd.grad(penalty, inputs, materialize_grads=True))
    _close(*found)


def test_backward_twice(name: str, device: torch.device) -> None:
    """With retain_graph a second backward gives the same bits again, not their double."""
    case = CASES[name]
    inputs = [value.requires_grad_() for value in draw(case, torch.float32, device)]
    total = _scalar(case.ours)(*inputs)
    first = torch.autograd.grad(total, inputs, retain_graph=True)
    second = torch.autograd.grad(total, inputs)
    for a, b in zip(first, second, strict=True):
        assert bool(a.any())
        assert torch.equal(a, b)


def test_functional_gradient(name: str, device: torch.device) -> None:
    """torch.func.grad gives PyTorch's gradient of every input."""
    case = CASES[name]
    inputs = draw(case, torch.float64, device)
    found = [
        torch.func.grad(_scalar(function), argnums=_each(case))(*inputs)
        for function in (case.ours, case.theirs)
    ]
    _close(*found)


def test_vmap(name: str, device: torch.device) -> None:
    """Mapped over a batch, in front or last, it gives what one call a sample gives."""
    case = CASES[name]
    inputs = draw(case, torch.float64, device, 3)
    one_by_one = torch.stack([case.ours(*[x[k] for x in inputs]) for k in range(3)])
    _close(torch.func.vmap(case.ours)(*inputs), one_by_one)
    last = [x.movedim(0, -1) for x in inputs]
    _close(torch.func.vmap(case.ours, in_dims=-1)(*last), one_by_one)


def test_vmap_over_some_inputs(name: str, device: torch.device) -> None:
    """Inputs that are not mapped are shared by all samples."""
    case = CASES[name]
    first, *others = draw(case, torch.float64, device, 3)
    shared = [x[0] for x in others]
    mapped = torch.func.vmap(case.ours, in_dims=(0, *[None] * len(shared)))(first, *shared)
    _close(mapped, torch.stack([case.ours(x, *shared) for x in first]))


def test_gradients_of_each_sample(name: str, device: torch.device) -> None:
    """vmap over grad, as for per-sample gradients, gives PyTorch's."""
    case = CASES[name]
    inputs = draw(case, torch.float64, device, 3)
    found = [
        torch.func.vmap(torch.func.grad(_scalar(function), argnums=_each(case)))(*inputs)
        for function in (case.ours, case.theirs)
    ]
    _close(*found)


def test_gradient_through_vmap(name: str, device: torch.device) -> None:
    """grad over vmap gives PyTorch's."""
    case = CASES[name]
    inputs = draw(case, torch.float64, device, 3)

    def total(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *x: torch.func.vmap(_scalar(function))(*x).square().sum()

    found = [
        torch.func.grad(total(function), argnums=_each(case))(*inputs)
        for function in (case.ours, case.theirs)
    ]
    _close(*found)


def test_hessian_by_reverse_mode(name: str, device: torch.device) -> None:
    """jacrev of jacrev, which maps a second derivative over a batch, gives PyTorch's."""
    case = CASES[name]
    inputs = draw(case, torch.float64, device)
    found = [
        torch.func.jacrev(torch.func.jacrev(_scalar(function)))(*inputs)
        for function in (case.ours, case.theirs)
    ]
    _close(*found)


# torch's forward mode compiles its own decompositions with what torch has deprecated.
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_forward_mode_is_refused(name: str, device: torch.device) -> None:
    """A directional derivative raises, and is never a silent zero."""
    case = CASES[name]
    inputs = tuple(draw(case, torch.float64, device))
    with pytest.raises((NotImplementedError, RuntimeError), match=r"jvp|forward"):
        torch.func.jvp(case.ours, inputs, inputs)
