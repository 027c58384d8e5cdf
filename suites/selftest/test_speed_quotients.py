"""The statistics of a speed record: medians, their intervals, quotients of paired samples."""

import random

import pytest

from harness.timing.quotients import quotient, summarize


# Six samples are the first to have an interval; 21 and 51 are what the suite takes. The ranks are
# those of the binomial table: P(B < k) <= 0.025 for the largest such k.
@pytest.mark.parametrize(("count", "below"), [(6, 0), (7, 0), (9, 1), (21, 5), (51, 18)])
def test_the_interval_is_that_of_the_binomial_table(count: int, below: int) -> None:
    """The interval reaches from the (below+1)-th smallest sample to the (below+1)-th largest."""
    samples = [float(k) for k in range(count)]
    random.Random(0).shuffle(samples)
    summary = summarize(samples)
    assert (summary.low, summary.high) == (float(below), float(count - 1 - below))
    assert summary.median == (count - 1) / 2


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    """Of a skewed distribution, whose mean is nowhere near its median: at least 95%, not always."""
    chance = random.Random(1)
    inside = 0
    for _ in range(2000):
        summary = summarize([chance.expovariate(1.0) for _ in range(21)])
        inside += summary.low <= 0.6931 <= summary.high
    assert 0.95 * 2000 < inside < 0.995 * 2000


def test_a_single_sample_is_its_own_interval() -> None:
    """Nothing is made up of one number."""
    summary = summarize([3.0])
    assert (summary.low, summary.median, summary.high) == (3.0, 3.0, 3.0)


def test_quotients_are_of_pairs() -> None:
    """The median of the rounds' quotients, which is not the quotient of the medians."""
    ours, theirs = [1.0, 2.0, 9.0], [1.0, 4.0, 3.0]
    assert quotient(ours, theirs) == 1.0
    assert quotient(ours, theirs) != 2.0 / 3.0


@pytest.mark.parametrize("theirs", [[], [1.0]])
def test_samples_of_different_rounds_have_no_quotient(theirs: list[float]) -> None:
    """Unequal counts cannot be paired, and are refused."""
    with pytest.raises(ValueError, match="not of the same rounds"):
        quotient([1.0, 2.0], theirs)
