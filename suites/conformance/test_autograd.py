"""The operations behave under autograd: repeated backward, saved outputs, second derivatives,
transforms.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

import kernels

Draw = Callable[..., torch.Tensor]
Operation = Callable[[torch.Tensor], torch.Tensor]

OURS: dict[str, Operation] = {
    "cross_entropy": lambda x: kernels.cross_entropy(x, torch.arange(4, device=x.device)),
    "binary_cross_entropy": lambda x: kernels.binary_cross_entropy_with_logits(
        x, x.detach().sigmoid()
    ),
    "normalize": lambda x: kernels.normalize(x)[:, 1].sum(),
}
TORCH: dict[str, Operation] = {
    "cross_entropy": lambda x: F.cross_entropy(x, torch.arange(4, device=x.device)),
    "binary_cross_entropy": lambda x: F.binary_cross_entropy_with_logits(x, x.detach().sigmoid()),
    "normalize": lambda x: F.normalize(x)[:, 1].sum(),
}


@pytest.mark.parametrize("name", list(OURS))
@pytest.mark.usefixtures("route")
def test_backward_twice(name: str, draw: Draw) -> None:
    """With retain_graph a second backward gives the same gradient again, not its double."""
    x = draw(4, 6, dtype=torch.float32).requires_grad_()
    loss = OURS[name](x)
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    (second,) = torch.autograd.grad(loss, x)
    assert bool(first.any())
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", list(OURS))
@pytest.mark.usefixtures("route")
def test_logits_from_an_op_that_saves_its_output(name: str, draw: Draw) -> None:
    """tanh's backward reads its output: a kernel that overwrote its logits would spoil that
    gradient.
    """
    x = draw(4, 6, dtype=torch.float64).requires_grad_()
    (ours,) = torch.autograd.grad(OURS[name](torch.tanh(x)), x)
    (theirs,) = torch.autograd.grad(TORCH[name](torch.tanh(x)), x)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", list(OURS))
@pytest.mark.usefixtures("route")
def test_inputs_stay_bitwise_the_same(name: str, dtype: torch.dtype, draw: Draw) -> None:
    """Neither forward nor backward changes a bit of the input, nor counts as an in-place change."""
    x = draw(4, 6, dtype=dtype).requires_grad_()
    before, version = copy.deepcopy(x.detach()), x._version
    OURS[name](x).backward()
    assert torch.equal(x.detach().view(torch.uint8), before.view(torch.uint8))
    assert x._version == version


@pytest.mark.parametrize("name", list(OURS))
@pytest.mark.usefixtures("route")
def test_second_derivatives_are_refused(name: str, draw: Draw) -> None:
    """Differentiating the gradient raises; it never silently treats the gradient as a constant."""
    x = draw(4, 6, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(OURS[name](x), x, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivative only"):
        gradient.square().sum().backward()


@pytest.mark.parametrize("name", list(OURS))
@pytest.mark.usefixtures("route")
def test_functional_gradient(name: str, draw: Draw) -> None:
    """torch.func.grad gives the gradient that backward gives."""
    x = draw(4, 6, dtype=torch.float64)
    torch.testing.assert_close(torch.func.grad(OURS[name])(x), torch.func.grad(TORCH[name])(x))


@pytest.mark.parametrize("name", list(OURS))
def test_operators_are_registered_soundly(name: str, draw: Draw) -> None:
    """Schema and fake implementation say what the forward operator does: shapes, dtypes, no
    mutation, no alias.
    """
    x = draw(4, 6, dtype=torch.float16)
    arguments = {
        "cross_entropy": (x, torch.arange(4, device=x.device), -100),
        "binary_cross_entropy": (x.reshape(-1), x.reshape(-1).sigmoid()),
        "normalize": (x, 1e-12),
    }[name]
    operator = getattr(torch.ops.kernels, f"{name}_forward")
    torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))


def test_compiled_graph(draw: Draw) -> None:
    """torch.compile traces all three without a graph break, and changes no bit of the gradient."""
    x = draw(4, 6, dtype=torch.float32).requires_grad_()
    target = torch.arange(4, device=x.device)

    def total(x: torch.Tensor) -> torch.Tensor:
        loss = kernels.cross_entropy(x, target) + kernels.normalize(x)[:, 1].sum()
        return loss + kernels.binary_cross_entropy_with_logits(x, torch.ones_like(x))

    compiled = torch.compile(total, backend="aot_eager", fullgraph=True)
    (eager,) = torch.autograd.grad(total(x), x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.compile itself uses what torch has deprecated
        (graph,) = torch.autograd.grad(compiled(x), x)
    assert torch.equal(eager, graph)
