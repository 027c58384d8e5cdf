"""Every bit pattern of fp16 and bf16 in every role of every operation, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from suites.conformance import patterns
from suites.conformance.conftest import DTYPES
from suites.conformance.proof import Subject, prove
from suites.conformance.subjects import BY_NAME, PLAIN, ROUTES, SAMPLED, SUBJECTS, case

HALVES = ("fp16", "bf16")
LAUNCHES = 4  # of a role that takes many: spread evenly over its patterns
ROLES = [
    case(subject, role, half, route, sample=False)
    for subject in SUBJECTS
    for role in subject.roles
    for half in HALVES
    for route in ROUTES
]


def _sample() -> Iterator[Any]:
    """Through the kernel, all roles of the plain subjects in bf16 and every other one in fp16, and
    with options every other one in bf16; all roles of all these through the formula in fp16.
    """
    for name in SAMPLED:
        for place, role in enumerate(BY_NAME[name].roles):
            if name in PLAIN or place % 2 == 0:
                yield case(BY_NAME[name], role, "bf16", "kernel", sample=True)
            if name in PLAIN and place % 2 == 0:
                yield case(BY_NAME[name], role, "fp16", "kernel", sample=True)
            yield case(BY_NAME[name], role, "fp16", "formula", sample=True)


def _prove(
    subject: Subject, role: str, values: torch.Tensor, device: torch.device, *, sample: bool
) -> None:
    inputs = subject.roles[role](values)
    if sample and isinstance(inputs, list):
        inputs = inputs[:: -(-len(inputs) // LAUNCHES)]
    # Bitwise the same twice: in the sample for one role of each subject.
    twice = not sample or role == next(iter(subject.roles))
    judged = prove(subject, inputs, device, f"{role} {values.dtype}", twice=twice)
    # Where only [0, 1] is promised, a quarter of the patterns is left.
    assert sample or judged >= int(values.isfinite().sum()) // 4


@pytest.mark.parametrize(("subject", "role", "half", "route"), list(_sample()), indirect=["route"])
@pytest.mark.usefixtures("route")
def test_sampled_patterns(subject: Subject, role: str, half: str, device: torch.device) -> None:
    """All exponents with boundary mantissas, and random patterns: every element of the output and
    of every gradient is right.
    """
    _prove(subject, role, patterns.sample_patterns(DTYPES[half]), device, sample=True)


@pytest.mark.parametrize(("subject", "role", "half", "route"), ROLES, indirect=["route"])
@pytest.mark.usefixtures("route")
def test_every_pattern(subject: Subject, role: str, half: str, device: torch.device) -> None:
    """All 65,536 patterns: NaNs with every payload, infinities, subnormals and both zeros among
    them. Right, and bitwise the same twice.
    """
    _prove(subject, role, patterns.every_pattern(DTYPES[half]), device, sample=False)
