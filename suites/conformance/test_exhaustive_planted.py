"""The exhaustive proofs find what is wrong: for each family a planted defect must make them fail.

A guard of the kernels is replaced in the interpreter (see test_switched_off_fixes), or an operation
is wrapped so that it errs for a single bit pattern, as hardware and compilers do.
"""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Callable

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.formats import FORMATS
from kernels import launch
from suites.conformance import patterns
from suites.conformance.proof import Inputs, Subject, prove
from suites.conformance.subjects import BY_NAME, case

interpreted = pytest.mark.skipif(
    not launch.INTERPRETED, reason="a compiled kernel has its guards built in"
)


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
def _plain_logarithm(x):
    return tl.log(1.0 + x)


@triton.jit
def _unit_scale(x):
    return tl.max((x * 0.0).to(tl.int32), axis=1)


def _sampled(subject: Subject, role: str) -> Inputs:
    return subject.roles[role](patterns.sample_patterns(torch.bfloat16))


def _pairs(subject: Subject, pair: str) -> Inputs:
    fmt = FORMATS["fp32"]
    return subject.pairs[pair](*patterns.exponent_pairs(fmt, patterns.sample_exponents(fmt), 0, 1))


# Per family: the module, its guard, what people write instead, and a proof that must see it. In the
# sample is each family's first.
GUARDS = [
    ("cross_entropy", "finite_reference", _no_reference, _sampled, "constant"),
    ("cross_entropy", "without_target", _with_target, _sampled, "target_logit"),
    ("cross_entropy", "exp_difference", _plain_exponential, _pairs, "logits"),
    ("binary_cross_entropy", "log1p", _plain_logarithm, _sampled, "logit"),
    ("binary_cross_entropy", "log1p", _plain_logarithm, _pairs, "logit_target"),
    ("normalize", "scale_exponent", _unit_scale, _sampled, "lone"),
    ("normalize", "scale_exponent", _unit_scale, _pairs, "entries"),
]


@interpreted
@pytest.mark.parametrize(
    ("family", "guard", "replacement", "draw", "role"),
    [
        pytest.param(*planted, marks=() if first else (pytest.mark.full,))
        for place, planted in enumerate(GUARDS)
        for first in [planted[0] not in [before[0] for before in GUARDS[:place]]]
    ],
)
def test_switched_off_guards_are_found(
    family: str,
    guard: str,
    replacement: object,
    draw: Callable[[Subject, str], Inputs],
    role: str,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sample holds with the guard, and fails without it."""
    subject = BY_NAME[family]
    inputs = draw(subject, role)
    prove(subject, inputs, device)
    monkeypatch.setattr(importlib.import_module(f"kernels.{family}.fused"), guard, replacement)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of what the guard prevents
        with pytest.raises(AssertionError, match="elements are wrong"):
            prove(subject, inputs, device)


def _erring_at(value: Tensor, bits: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The value, changed where its own 16 bits are these."""
    here = value.detach().view(torch.int16) == bits
    return torch.where(here, change(value), value)


# A single subnormal flushed, the largest finite value taken for infinite, one NaN swallowed.
DEFECTS = {
    "flushed_subnormal": (0x0001, lambda v: v * 0),
    "overflowed_largest": (0x7BFF, lambda v: v * 2),
    "swallowed_nan": (0x7E01, torch.zeros_like),
}


# Under a softcap the largest logit and an infinite one are the same, and so are their gradients.
CAPPED = ("cross_entropy(softcap)", "cross_entropy(everything)")
# In the sample: one defect for each family.
SAMPLE = {
    ("cross_entropy", "overflowed_largest"),
    ("binary_cross_entropy", "flushed_subnormal"),
    ("softmax", "flushed_subnormal"),
    ("normalize", "swallowed_nan"),
    ("layer_norm(weight,bias,eps=1e-05)", "swallowed_nan"),
}
PLANTED = [
    case(name, defect, sample=(name, defect) in SAMPLE)
    for name in BY_NAME
    for defect in DEFECTS
    if not (name in CAPPED and defect == "overflowed_largest")
]


@pytest.mark.parametrize(("name", "defect"), PLANTED)
def test_a_single_wrong_pattern_is_found(name: str, defect: str, device: torch.device) -> None:
    """An operation that errs for one of 65,536 inputs, and is right otherwise, fails."""
    subject = BY_NAME[name]
    bits, change = DEFECTS[defect]
    sound = subject.ours

    def erring(input: Tensor, **rest: Tensor) -> Tensor:
        return sound(input=_erring_at(input, bits, change), **rest)

    around = torch.arange(bits - 100, bits + 100).to(torch.int16).view(torch.float16)
    role = next(r for r in ("in_crowd", "logit_in_crowd", "logit") if r in subject.roles)
    inputs = subject.roles[role](around)
    prove(subject, inputs, device)
    with pytest.raises(AssertionError, match="elements are wrong"):
        prove(dataclasses.replace(subject, ours=erring), inputs, device)


def _nondeterministic(subject: Subject) -> Callable[..., Tensor]:
    calls = iter(range(100))
    return lambda **given: subject.ours(**given) * (1 + 2.0**-20 * next(calls))


def _forgetful(**given: Tensor) -> Tensor:
    """Sound, but one row is never written: memory as torch.empty gives it."""
    out = BY_NAME["normalize"].ours(**given)
    hole = torch.empty_like(out)
    return torch.where(torch.arange(len(out), device=out.device)[:, None] == 7, hole, out)


def test_unrepeatable_and_unwritten_elements_are_found(device: torch.device) -> None:
    """A result that differs between two runs fails, and so does one that was left unwritten."""
    for name, defect, word in (
        ("binary_cross_entropy", _nondeterministic(BY_NAME["binary_cross_entropy"]), "nondetermin"),
        ("normalize", _forgetful, "unwritten"),
    ):
        subject = BY_NAME[name]
        inputs = next(iter(subject.roles.values()))(patterns.every_pattern(torch.float16)[:256])
        prove(subject, inputs, device)
        with pytest.raises(AssertionError, match=word):
            prove(dataclasses.replace(subject, ours=defect), inputs, device)
