"""Recorded samples shown to pytest-benchmark through its `timer=`, which takes any clock.

pytest-benchmark allows one measured call a test and knows no device time. It subtracts what its
timer gave after a call from what it gave before: so the timer hands out objects whose difference is
the next recorded sample, to the bit, and the call between them does nothing. Its tables, JSON and
comparisons then show device time.
"""

from collections.abc import Sequence
from typing import Any

import pytest


class Instant:
    """A reading of the replaying clock; a later reading minus an earlier one is a sample."""

    def __init__(self, samples: Sequence[float], position: int) -> None:
        self._samples, self._position = samples, position

    def __sub__(self, earlier: "Instant") -> float:
        return self._samples[earlier._position // 2]


class ReplayedSamples:
    """The clock: readings come in pairs, before a call and after it, a pair a sample."""

    def __init__(self, samples: Sequence[float], name: str) -> None:
        self._samples = tuple(samples)
        self._readings = 0
        self.__name__ = name  # what pytest-benchmark's JSON says of its timer

    def __call__(self) -> Instant:
        position, self._readings = self._readings, self._readings + 1
        return Instant(self._samples, position)


def replay(
    request: pytest.FixtureRequest,
    samples: Sequence[float],
    *,
    group: str,
    timer: str,
    **about: Any,
) -> None:
    """Give this test's benchmark the samples; `about` goes to its `extra_info`.

    The marker must stand before the fixture is made, so the fixture is asked for here.
    """
    clock = ReplayedSamples(samples, f"{timer}_time_replayed")
    request.node.add_marker(pytest.mark.benchmark(timer=clock, group=group))
    benchmark = request.getfixturevalue("benchmark")
    benchmark.extra_info.update(about)
    benchmark.pedantic(_nothing, rounds=len(samples), iterations=1)


def _nothing() -> None:
    """The call was timed when its samples were taken."""
