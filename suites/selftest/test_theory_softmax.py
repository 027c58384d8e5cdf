"""Softmax as people write it breaks exactly where theory says; see `test_theory`."""

import math

import pytest

import harness
from harness.formats import Format
from suites.selftest.ieee import exponential, first_above, nearest
from suites.selftest.test_theory import N, before, named, rounded_exp


@named
# At the peak and in a constant row one exponential is infinite by itself.
@pytest.mark.parametrize(
    ("operation", "regime"),
    [("softmax", "peak"), ("softmax", "constant"), ("log_softmax", "peak")],
)
def test_naive_softmax_is_nan_where_its_exponential_overflows(
    fmt: Format, operation: str, regime: str
) -> None:
    """exp(x) / sum exp(x) is inf/inf from the first x whose exponential rounds to infinity."""
    breaks = first_above(fmt, lambda x: math.isinf(rounded_exp(fmt, x)))
    found = harness.frontier(operation, "naive", fmt.name, regime)
    assert (found.finite_until, found.nonfinite_from) == (before(fmt, breaks), breaks)
    assert found.verdict.word == "nan"


@named
def test_naive_log_softmax_meets_zero_where_the_sum_overflows(fmt: Format) -> None:
    """In a constant row N exp(x) overflows first: exp(x) / inf is 0, and its logarithm -inf.

    N is a power of two, so that the product is exact.
    """
    breaks = first_above(fmt, lambda x: N * rounded_exp(fmt, x) > fmt.largest)
    found = harness.frontier("log_softmax", "naive", fmt.name, "constant")
    assert (found.finite_until, found.nonfinite_from) == (before(fmt, breaks), breaks)
    assert found.verdict.word == "inf"


@named
def test_log_softmax_by_softmax_meets_zero_where_the_probability_underflows(fmt: Format) -> None:
    """log(softmax(x)) is -inf from where exp(-x) / (1 + 63 exp(-x)) rounds to 0."""

    def vanishes(x: float) -> bool:
        power = exponential(-x) if x < 800 else 0
        return nearest(fmt, power / (1 + (N - 1) * power)) == 0

    breaks = first_above(fmt, vanishes)
    found = harness.frontier("log_softmax", "softmax_log", fmt.name, "peak")
    assert (found.finite_until, found.nonfinite_from) == (before(fmt, breaks), breaks)
    assert found.verdict.word == "inf"
