"""Curve by curve: the highest stable learning rate, and when training first went wrong.

A curve is all learning rates and seeds with everything else equal. Only rates and seeds that both
runs tried are looked at. The highest stable rate is the last one, going up, before the first at
which any seed failed: a verdict other than ok, a first bad step, or divergence.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from harness.record import Record


@dataclass(frozen=True, slots=True)
class RateChange:
    """A learning rate at which seeds went wrong in both runs, and the first bad step of each.

    The step is the geometric mean over the seeds: first bad steps span decades, and are drawn
    against the rate on logarithmic axes.
    """

    rate: float
    base_step: float
    new_step: float
    seeds: int


@dataclass(frozen=True, slots=True)
class Curve:
    """What became of a curve. None: no rate was stable."""

    name: str
    base_rate: float | None
    new_rate: float | None
    rates: tuple[RateChange, ...]  # where both runs have a first bad step, lowest rate first
    lost: tuple[str, ...]  # ids that went well in the base and do not any more
    gained: tuple[str, ...]

    @property
    def regression(self) -> bool:
        """A lower highest stable rate, or a run that went well and now does not."""
        return bool(self.lost) or (self.new_rate or 0.0) < (self.base_rate or 0.0)

    @property
    def changed(self) -> bool:
        """Whether there is anything to tell."""
        moved = any(each.base_step != each.new_step for each in self.rates)
        return bool(self.lost or self.gained or moved) or self.base_rate != self.new_rate


@dataclass(frozen=True, slots=True)
class Training:
    """All curves that both runs have, those with a regression first."""

    curves: tuple[Curve, ...]

    @property
    def failures(self) -> int:
        """How many curves got worse."""
        return sum(curve.regression for curve in self.curves)


def compare_training(pairs: Iterable[tuple[Record, Record]]) -> Training:
    """Put the training suite's records together as curves and compare these."""
    curves: dict[str, list[tuple[Record, Record]]] = {}
    for old, now in pairs:
        if now.suite == "training":
            curves.setdefault(curve_name(now), []).append((old, now))
    found = [_curve(name, group) for name, group in curves.items()]
    return Training(tuple(sorted(found, key=lambda each: (not each.regression, not each.changed))))


_AXES = ("normalization", "initialization", "optimizer", "schedule", "clip", "steps")


def curve_name(record: Record) -> str:
    """All axes of a training record but its learning rate and seed."""
    first = (record.get("workload"), record.operation, record.path, record.dtype)
    parts = [str(each) for each in first]
    precision = record.get("precision")
    if precision not in (None, record.dtype):
        parts.append(str(precision))
    parts += [f"{name}={record[name]}" for name in _AXES if record.get(name) is not None]
    return "/".join(parts)


def went_well(record: Record) -> bool:
    """Whether a training run kept finite and did not diverge."""
    bad = record.get("first_bad_step") is not None or record.get("diverged") is True
    return record.verdict.is_accurate and not bad


def _curve(name: str, group: list[tuple[Record, Record]]) -> Curve:
    by_rate: dict[float, list[tuple[Record, Record]]] = {}
    for pair in group:
        by_rate.setdefault(float(pair[1]["learning_rate"]), []).append(pair)
    rates = sorted(by_rate)
    changes = [found for rate in rates if (found := _first_bad(rate, by_rate[rate]))]
    return Curve(
        name,
        _highest_stable([(rate, [old for old, _ in by_rate[rate]]) for rate in rates]),
        _highest_stable([(rate, [now for _, now in by_rate[rate]]) for rate in rates]),
        tuple(changes),
        tuple(now.id for old, now in group if went_well(old) and not went_well(now)),
        tuple(now.id for old, now in group if went_well(now) and not went_well(old)),
    )


def _highest_stable(rates: list[tuple[float, list[Record]]]) -> float | None:
    stable: float | None = None
    for rate, records in rates:
        if not all(went_well(record) for record in records):
            break
        stable = rate
    return stable


def _first_bad(rate: float, group: list[tuple[Record, Record]]) -> RateChange | None:
    steps = [(old.get("first_bad_step"), now.get("first_bad_step")) for old, now in group]
    both = [(first, second) for first, second in steps if first is not None and second is not None]
    if not both:
        return None
    first, second = (_geometric_mean([pair[side] for pair in both]) for side in (0, 1))
    return RateChange(rate, first, second, len(both))


def _geometric_mean(steps: list[int]) -> float:
    # Counted from 1, so that a run whose very first step is bad has a logarithm.
    return math.exp(sum(math.log(step + 1) for step in steps) / len(steps)) - 1
