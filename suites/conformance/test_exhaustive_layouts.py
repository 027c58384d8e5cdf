"""How a tensor lies in memory changes no bit: strided, transposed, misaligned and expanded inputs
and upstream gradients give what their contiguous copies give.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from harness.poison import bits_of
from suites.conformance.conftest import DTYPES
from suites.conformance.proof import Inputs, Subject, run
from suites.conformance.subjects import PLAIN, ROUTES, SUBJECTS, case


def _every_other(value: Tensor) -> Tensor:
    """Steps of two in the last dimension, with poison between."""
    wide = torch.full((*value.shape[:-1], 2 * value.shape[-1]), torch.nan).to(value)
    wide[..., ::2] = value
    return wide[..., ::2]


def _transposed(value: Tensor) -> Tensor:
    """The first dimension innermost."""
    return value.movedim(0, -1).contiguous().movedim(-1, 0)


def _misaligned(value: Tensor) -> Tensor:
    """Rows that begin one element off, and further apart than they are long."""
    wide = torch.full((*value.shape[:-1], value.shape[-1] + 3), torch.nan).to(value)
    wide[..., 1:-2] = value
    return wide[..., 1:-2]


def _rows_expanded(value: Tensor) -> Tensor:
    """The first row for all rows, at stride 0."""
    return value[:1].expand_as(value)


def _columns_expanded(value: Tensor) -> Tensor:
    """The first column for all columns, at stride 0."""
    return value[..., :1].expand_as(value)


def _scalar_expanded(value: Tensor) -> Tensor:
    """One element for all, at stride 0 throughout: the upstream gradient of a sum."""
    return value.reshape(-1)[:1].reshape([1] * value.dim()).expand_as(value)


LAYOUTS: tuple[Callable[[Tensor], Tensor], ...] = (
    _every_other,
    _transposed,
    _misaligned,
    _rows_expanded,
    _columns_expanded,
    _scalar_expanded,
)


def _sampled(subject: Subject, name: str, route: str) -> bool:
    return subject.name in PLAIN and name == "input" and route == "kernel"


# The sample, of the plain subjects: the input through the kernel, and everything strided at once.
INPUTS = [
    case(subject, name, route, sample=_sampled(subject, name, route))
    for subject in SUBJECTS
    for name in subject.draw(1, 1, torch.float32)
    for route in ROUTES
]
STRIDED = [
    case(subject, dtype, route, sample=subject.name in PLAIN and dtype == "fp32")
    for subject in SUBJECTS
    for dtype in DTYPES
    for route in ROUTES
]


def _assert_same(subject: Subject, given: Inputs, device: torch.device, label: str) -> None:
    contiguous = {k: v.clone(memory_format=torch.contiguous_format) for k, v in given.items()}
    theirs = run(subject.ours, contiguous, subject.differentiable, device)
    ours = run(subject.ours, given, subject.differentiable, device)
    for name, value in ours.items():
        assert torch.equal(bits_of(value), bits_of(theirs[name])), f"{label}: {name}"


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__.strip("_"))
@pytest.mark.parametrize(("subject", "name", "route"), INPUTS, indirect=["route"])
@pytest.mark.usefixtures("route")
def test_layouts(
    subject: Subject, name: str, layout: Callable[[Tensor], Tensor], device: torch.device
) -> None:
    """One input, or the upstream gradient, in this layout: not a bit differs."""
    inputs = {k: v.to(device) for k, v in subject.draw(5, 70, torch.float32).items()}
    inputs[name] = layout(inputs[name])
    _assert_same(subject, inputs, device, f"{subject.name} {name}")


@pytest.mark.parametrize(("subject", "name", "route"), STRIDED, indirect=["route"])
@pytest.mark.usefixtures("route")
def test_everything_strided(subject: Subject, name: str, device: torch.device) -> None:
    """All inputs and the upstream gradient transposed at once, in every dtype."""
    inputs = {k: v.to(device) for k, v in subject.draw(9, 70, DTYPES[name]).items()}
    inputs = {k: _transposed(_every_other(v)) for k, v in inputs.items()}
    _assert_same(subject, inputs, device, subject.name)
