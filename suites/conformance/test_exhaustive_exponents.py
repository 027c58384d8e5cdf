"""Every pair of exponents of fp32 and fp64, in every pair of roles, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from harness.formats import FORMATS
from suites.conformance import patterns
from suites.conformance.proof import Subject, prove
from suites.conformance.subjects import BY_NAME, PLAIN, ROUTES, SAMPLED, SUBJECTS, case

WIDE = ("fp32", "fp64")
ALL = [(subject, pair, wide) for subject in SUBJECTS for pair in subject.pairs for wide in WIDE]
# fp64's 4.4 million pairs in parts of half a minute, so that processes share them.
PARTS = {"fp32": 1, "fp64": 4}


def _sample() -> Iterator[Any]:
    """All pairs of the plain subjects' roles, through the kernel in both dtypes; with options every
    other pair, through the kernel in fp64; and all pairs of all these through the formula in fp64.
    """
    for name in SAMPLED:
        for place, pair in enumerate(BY_NAME[name].pairs):
            for wide in WIDE if name in PLAIN else ("fp64",) if place % 2 == 0 else ():
                yield case(BY_NAME[name], pair, wide, "kernel", sample=True)
            yield case(BY_NAME[name], pair, "fp64", "formula", sample=True)


def _prove(
    subject: Subject,
    pair: str,
    values: tuple[torch.Tensor, torch.Tensor],
    device: torch.device,
    *,
    twice: bool,
) -> None:
    label = f"{pair} {values[0].dtype}"
    judged = prove(subject, subject.pairs[pair](*values), device, label, twice=twice)
    # Pairs that are outside what is promised are left out.
    assert judged >= len(values[0]) // 2


@pytest.mark.parametrize(("subject", "pair", "wide", "route"), list(_sample()), indirect=["route"])
@pytest.mark.usefixtures("route")
def test_sampled_exponents(subject: Subject, pair: str, wide: str, device: torch.device) -> None:
    """All pairs among 48 exponents, both ends of every range and random ones between."""
    fmt = FORMATS[wide]
    values = patterns.exponent_pairs(fmt, patterns.sample_exponents(fmt), 0, 1)
    # Bitwise the same twice: for one pair of each subject.
    _prove(subject, pair, values, device, twice=pair == next(iter(subject.pairs)))


@pytest.mark.parametrize(
    ("subject", "pair", "wide", "route"),
    [case(*each, route, sample=False) for each in ALL for route in ROUTES],
    indirect=["route"],
)
@pytest.mark.usefixtures("route")
def test_a_hundred_exponents(subject: Subject, pair: str, wide: str, device: torch.device) -> None:
    """All pairs among a hundred exponents, through the formula as well."""
    fmt = FORMATS[wide]
    values = patterns.exponent_pairs(fmt, patterns.sample_exponents(fmt, 96), 0, 1)
    _prove(subject, pair, values, device, twice=True)


@pytest.mark.parametrize(
    ("subject", "pair", "wide", "part"),
    [case(*each, part, sample=False) for each in ALL for part in range(PARTS[each[2]])],
)
def test_every_exponent(
    subject: Subject, pair: str, wide: str, part: int, device: torch.device
) -> None:
    """All pairs of the 278 exponents of fp32 and of the 2,099 of fp64, zero counted as one."""
    fmt = FORMATS[wide]
    values = patterns.exponent_pairs(fmt, patterns.exponents(fmt), part, PARTS[wide])
    _prove(subject, pair, values, device, twice=True)
