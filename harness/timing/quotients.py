"""What a row of samples says: median, its interval, and the quotient of two paths' samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Summary:
    """The median of samples in seconds, and the interval that holds the true median."""

    median: float
    low: float
    high: float


def summarize(samples: Sequence[float]) -> Summary:
    """Median and its 95% interval by order statistics, which assumes no distribution.

    The k-th smallest and k-th largest of n samples enclose the median with probability
    1 - 2 P(B < k), B binomial(n, 1/2) (David and Nagaraja, Order Statistics, 7.1). Below six
    samples no pair does with 95%: then the extremes stand there.
    """
    ordered = sorted(samples)
    place = _rank(len(ordered))
    return Summary(median(ordered), ordered[place], ordered[-1 - place])


def _rank(count: int) -> int:
    """The largest k, counted from 0, whose pair of order statistics still has the confidence."""
    tail, place = 0.0, 0
    for below in range(count // 2):
        tail += math.comb(count, below) / 2**count
        if 2 * tail > 1 - CONFIDENCE:
            break
        place = below
    return place


def quotient(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over rounds of ours / theirs: what moves both in a round cancels.

    Raises:
        ValueError: if the samples are not of the same rounds.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} and {len(theirs)} samples are not of the same rounds")
    return median(a / b for a, b in zip(ours, theirs, strict=True))
