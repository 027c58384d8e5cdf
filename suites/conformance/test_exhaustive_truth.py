"""The exhaustive proofs' truth is itself proved: against certified ball arithmetic and the catalog.

Extended precision is fast enough for millions of elements and certifies nothing; balls certify and
are slow. So the formulas are compared on samples that span the whole range.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.formats import FORMATS
from harness.operation import Expected, Operation
from suites.catalog.binary_cross_entropy import BINARY_CROSS_ENTROPY
from suites.catalog.cross_entropy import CROSS_ENTROPY
from suites.catalog.normalize import NORMALIZE
from suites.conformance import exact, extended, patterns, subject_norms
from suites.conformance.proof import Inputs, Subject, Truth, expected_of
from suites.conformance.subjects import BY_NAME

# A truth may err by 2**-9 of a double's unit roundoff, relatively or of the terms that cancel.
CLOSE = 2.0**-62
SUBNORMAL = 2.0**-1074


def _random_pairs() -> tuple[torch.Tensor, torch.Tensor]:
    fmt = FORMATS["fp64"]
    return patterns.exponent_pairs(fmt, patterns.sample_exponents(fmt, 28), 0, 1)


def _truths(subject: Subject, inputs: Inputs) -> dict[str, Truth]:
    with np.errstate(all="ignore"):
        return subject.truth({k: extended.extend(v) for k, v in inputs.items()})


def _agree(ours: np.ndarray, certified: exact.Exact, terms: np.ndarray) -> None:
    """Within CLOSE of the value and of the terms, wherever the value fits a double."""
    theirs = extended.extend(certified.high) + extended.extend(certified.low)
    fits = np.isfinite(theirs)
    assert fits.mean() > 0.5
    with np.errstate(invalid="ignore"):
        error = np.abs(np.where(fits, ours - theirs, 0))
    bound = CLOSE * (np.abs(np.where(fits, theirs, 0)) + np.where(fits, terms, 0)) + SUBNORMAL
    assert (error <= bound).all(), (error / bound).max()


@pytest.mark.parametrize("pair", ["logits", "logit_upstream"])
def test_cross_entropy(pair: str) -> None:
    """Loss and gradient agree with balls for logits of any exponents."""
    subject = BY_NAME["cross_entropy"]
    inputs = subject.pairs[pair](*_random_pairs())
    ours = _truths(subject, inputs)
    loss, gradient = exact.cross_entropy(inputs["input"], inputs["target"])
    _agree(ours["output"].value, loss, np.zeros(1))
    some = inputs["upstream"] != 0
    upstream = extended.extend(inputs["upstream"][some])[:, None]
    per_unit = ours["input"].value[some.numpy()] / upstream
    _agree(per_unit, exact.Exact(*(part[some] for part in gradient)), np.zeros(1))


def test_binary_cross_entropy() -> None:
    """Loss and gradients agree with balls for logits and targets of any exponents."""
    subject = BY_NAME["binary_cross_entropy"]
    inputs = subject.pairs["logit_target"](*_random_pairs())
    ours = _truths(subject, inputs)
    loss, gradient, size = exact.binary_cross_entropy(inputs["input"], inputs["target"])
    _agree(ours["output"].value, loss, ours["output"].terms)
    _agree(ours["input"].value, gradient, np.abs(extended.extend(size)))


@pytest.mark.parametrize("pair", list(subject_norms.NORM_PAIRS))
@pytest.mark.parametrize("eps", [0.0, 1e-12])
def test_normalize(pair: str, eps: float) -> None:
    """Direction and gradient agree with balls for entries and upstream gradients of any
    exponents.
    """
    subject = subject_norms.normalize(eps)
    inputs = subject.pairs[pair](*_random_pairs())
    ours = _truths(subject, inputs)
    direction, gradient, size = exact.normalize(inputs["input"], inputs["upstream"], eps)
    _agree(ours["output"].value, direction, np.zeros(1))
    _agree(ours["input"].value, gradient, np.abs(extended.extend(size)))


@pytest.mark.parametrize(
    ("operation", "subject", "role"),
    [
        (CROSS_ENTROPY, BY_NAME["cross_entropy"], "target_in_crowd"),
        (CROSS_ENTROPY, BY_NAME["cross_entropy"], "logit"),
        (BINARY_CROSS_ENTROPY, BY_NAME["binary_cross_entropy"], "logit"),
        (NORMALIZE, subject_norms.normalize(0.0), "in_crowd"),
    ],
)
def test_agrees_with_the_catalog(operation: Operation, subject: Subject, role: str) -> None:
    """For upstream ones the sweep's truth is the proofs', and so is what it allows for
    cancellation.
    """
    inputs = subject.roles[role](patterns.sample_patterns(torch.bfloat16, 4096))
    inputs["upstream"] = torch.ones_like(inputs["upstream"])
    kept = ~subject.strange(inputs, subject.shared)
    if operation is BINARY_CROSS_ENTROPY:
        kept &= (inputs["target"] >= 0) & (inputs["target"] <= 1)
    ours, _ = expected_of(subject, inputs)
    roles = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
    roles.pop("upstream")
    values, slack = operation.truth(roles), operation.slack(roles)
    roundoff = FORMATS["fp32"].unit_roundoff
    for name, pass_ in (("output", "forward"), ("input", "backward")):
        found: Expected = ours[name]
        theirs, mine = values[pass_][kept], found.high[kept]
        scale = found.slack[kept] / roundoff + mine.abs()
        close = (theirs - mine).abs() <= 2.0**-45 * scale + 1e-300
        assert bool((close | (theirs == mine)).all())
        allowed = operation.slack_factor * roundoff * slack[pass_][kept]
        torch.testing.assert_close(found.slack[kept], allowed, rtol=1e-9, atol=0)
