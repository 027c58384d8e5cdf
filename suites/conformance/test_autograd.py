"""The operations leave alone what they were given, and what others have saved."""

from __future__ import annotations

import pytest
import torch

from suites.conformance.differentiable import CASES, draw

pytestmark = pytest.mark.parametrize("name", list(CASES))


@pytest.mark.usefixtures("route")
def test_inputs_from_an_op_that_saves_its_output(name: str, device: torch.device) -> None:
    """tanh's backward reads its output: a kernel that overwrote its input would spoil that
    gradient.
    """
    case = CASES[name]
    found = []
    for function in (case.ours, case.theirs):
        inputs = [value.requires_grad_() for value in draw(case, torch.float64, device)]
        value = function(*[torch.tanh(each) for each in inputs])
        weights = torch.linspace(1, 2, value.numel(), dtype=value.dtype, device=device)
        total = (value.reshape(-1) * weights).sum()
        found.append(torch.autograd.grad(total, inputs))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-13)


# One dtype whose statistics are wider, and one whose are its own.
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=["fp16", "fp64"])
def test_inputs_stay_bitwise_the_same(name: str, dtype: torch.dtype, device: torch.device) -> None:
    """Neither forward nor backward changes a bit of an input or of the upstream gradient, nor
    counts as an in-place change.
    """
    case = CASES[name]
    inputs = [value.requires_grad_() for value in draw(case, dtype, device)]
    value = case.ours(*inputs)
    upstream = torch.linspace(1, 2, max(value.numel(), 1), device=device).to(value.dtype)
    upstream = upstream.reshape(value.shape)
    watched = [*inputs, upstream]
    before = [(each.detach().clone(), each._version) for each in watched]
    torch.autograd.grad(value, inputs, upstream)
    for each, (value, version) in zip(watched, before, strict=True):
        now, then = (t.detach().reshape(-1).view(torch.uint8) for t in (each, value))
        assert torch.equal(now, then)
        assert each._version == version
