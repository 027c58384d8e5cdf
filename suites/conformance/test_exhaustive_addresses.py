"""Elements past 2**31: offsets within a tensor are 64-bit in every kernel, forward and backward.

The tensors are promised by the system and, but for the pages in use, never touched: in the
interpreter the first and the last program of a launch run, and none between. Their rows must come
out bitwise as in a small tensor of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.poison import bits_of
from kernels import launch
from suites.conformance.proof import Inputs, Subject
from suites.conformance.subjects import SUBJECTS, case

COLUMNS = 4096
ROWS = 2**31 // COLUMNS + 1  # the last row begins at element 2**31

# The sample: offsets of a row, of an element and of a target; the others' are made alike.
SAMPLE = ("cross_entropy",)


@pytest.fixture
def ends_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the first and the last program of each grid alone. A GPU runs them all."""
    if not launch.INTERPRETED:
        yield
        return
    from triton.runtime import interpreter

    builder, last = interpreter.interpreter_builder, [0]
    set_index, set_size = builder.set_grid_idx, builder.set_grid_dim
    original = interpreter.GridExecutor.__init__

    def shortened(self: Any, fn: Any, names: Any, grid: Any, *rest: Any) -> None:
        first = grid[0] if isinstance(grid, tuple) else grid
        last[0] = first - 1
        original(self, fn, names, (min(first, 2), *tuple(grid)[1:]), *rest)

    def set_grid_idx(x: int, y: int, z: int) -> None:
        set_index(last[0] if x else 0, y, z)

    def set_grid_dim(x: int, y: int, z: int) -> None:
        set_size(last[0] + 1, y, z)

    monkeypatch.setattr(interpreter.GridExecutor, "__init__", shortened)
    monkeypatch.setattr(builder, "set_grid_idx", set_grid_idx)
    monkeypatch.setattr(builder, "set_grid_dim", set_grid_dim)
    yield


def _stretched(value: Tensor, shared: bool, device: torch.device) -> Tensor:
    """Two rows of values as the first and the last of a tensor past 2**31 elements."""
    if shared:
        return value.to(device)
    big = torch.empty((ROWS, *value.shape[1:]), dtype=value.dtype, device=device)
    if value.dim() == 1:
        big.zero_()  # a column of targets or of upstream gradients is small, and all of it is read
    big[0], big[-1] = value[0], value[1]
    return big


def _results(subject: Subject, inputs: Inputs) -> dict[str, Tensor]:
    """The first and the last row of the output and of the first input's gradient."""
    given = {k: v for k, v in inputs.items() if k != "upstream"}
    rowwise = subject.differentiable[:1]
    for name in rowwise:
        given[name] = given[name].detach().requires_grad_()
    output = subject.ours(**given)
    gradients = torch.autograd.grad(
        output, [given[name] for name in rowwise], inputs["upstream"].to(output.dtype)
    )
    found = {"output": output.detach()} | dict(zip(rowwise, gradients, strict=True))
    return {name: torch.stack([value[0], value[-1]]).cpu() for name, value in found.items()}


@pytest.mark.parametrize(
    "subject", [case(subject, sample=subject.name in SAMPLE) for subject in SUBJECTS]
)
@pytest.mark.usefixtures("ends_only")
def test_rows_past_2_to_the_31(subject: Subject, device: torch.device) -> None:
    """The row at element 2**31 of contiguous inputs, outputs and gradients is its own row."""
    if launch.INTERPRETED and subject.name.startswith("binary_cross_entropy"):
        pytest.skip("torch's own steps around this kernel touch all 2**31 elements: tens of GB")
    small = subject.draw(2, COLUMNS, torch.float16)
    expected = _results(subject, {k: v.to(device) for k, v in small.items()})
    large = {k: _stretched(v, k in subject.shared, device) for k, v in small.items()}
    found = _results(subject, large)
    for name, value in found.items():
        assert torch.equal(bits_of(value), bits_of(expected[name])), f"{subject.name} {name}"
