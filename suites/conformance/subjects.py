"""All subjects of the exhaustive proofs: adding an operation is adding its table to this one.

What of the proofs is a sample, run every time, and what runs in nightly runs alone (marked `full`)
is decided here, for a minute of one core in all. In the sample are the subjects named below, most
through the kernel in two dtypes, or in one with options, and through the formula in one; 1,024
patterns of a 16-bit dtype and all pairs of 48 exponents. What it holds of widths, layouts and
planted defects is said in each file. Nothing is in the sample alone: nightly runs have all of it.
"""

from __future__ import annotations

from typing import Any

import pytest

from suites.conformance import (
    subject_binary_cross_entropy,
    subject_cross_entropy,
    subject_norms,
    subject_softmax,
    subject_weighted_norms,
)
from suites.conformance.known import known
from suites.conformance.proof import Subject

SUBJECTS: tuple[Subject, ...] = (
    *subject_cross_entropy.SUBJECTS,
    *subject_binary_cross_entropy.SUBJECTS,
    *subject_softmax.SUBJECTS,
    *subject_norms.SUBJECTS,
    *subject_weighted_norms.SUBJECTS,
)
BY_NAME = {subject.name: subject for subject in SUBJECTS}

# One of each family, and the options that change a formula rather than extend it.
PLAIN = ("cross_entropy", "binary_cross_entropy", "softmax", "log_softmax", "normalize")
OPTIONS = (
    "cross_entropy(weight)",
    "cross_entropy(label_smoothing)",
    "cross_entropy(probabilities)",
    "binary_cross_entropy(weight,pos_weight)",
    "rms_norm(weight,eps=1e-06)",
    "layer_norm(weight,bias,eps=1e-05)",
)
SAMPLED = (*PLAIN, *OPTIONS)
ROUTES = ("kernel", "formula")


def case(*values: Any, sample: bool) -> Any:
    """One set of parameters, of the sample or of nightly runs alone; its id begins with the
    subject's name. One that is known to fail must fail.
    """
    words = [value.name if isinstance(value, Subject) else str(value) for value in values]
    marks = [] if sample else [pytest.mark.full]
    reason = known(*words[:3]) if len(words) >= 3 else None
    if reason:
        marks.append(pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason))
    return pytest.param(*values, id="-".join(words), marks=marks)
