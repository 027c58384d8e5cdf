"""Comparing training: by curve, over the rates and seeds that both runs tried."""

from pathlib import Path

import pytest

from harness import Run, Verdict
from harness.compare import compare_runs
from harness.compare.training import Curve
from harness.record import Record
from suites.selftest.written_runs import HEAD, trained


def curves(base: list[Record], new: list[Record]) -> tuple[Curve, ...]:
    found = compare_runs(Run(Path("b"), HEAD, tuple(base)), Run(Path("n"), HEAD, tuple(new)))
    return found.training.curves


def sweep(first_bad: dict[float, int | None], seeds: int = 2) -> list[Record]:
    """A curve by rate; every seed of a rate goes bad at the same step, or none."""
    return [trained(rate, seed, bad) for rate, bad in first_bad.items() for seed in range(seeds)]


FINE = sweep({0.01: None, 0.03: None, 0.1: None, 0.3: 111})


def test_the_same_training_twice_is_one_unchanged_curve() -> None:
    """All rates and seeds together are one curve, with its highest stable rate and no change."""
    (curve,) = curves(FINE, FINE)
    assert (curve.base_rate, curve.new_rate) == (0.1, 0.1)
    assert (curve.regression, curve.changed) == (False, False)
    assert curve.name == "digits/cross_entropy/naive/fp16/optimizer=sgd/steps=500"


def test_a_lower_highest_stable_rate_is_a_regression() -> None:
    """One seed at one rate went bad: that rate is stable no more, and the run is named."""
    worse = [
        trained(0.1, 1, 200) if e.id.endswith("lr@0.1/optimizer=sgd/seed=1") else e for e in FINE
    ]
    (curve,) = curves(FINE, worse)
    assert (curve.base_rate, curve.new_rate, curve.regression) == (0.1, 0.03, True)
    assert curve.lost == ("digits/cross_entropy/naive/fp16/lr@0.1/optimizer=sgd/seed=1",)
    (back,) = curves(worse, FINE)
    assert (back.regression, back.changed, back.gained) == (False, True, curve.lost)


def test_the_highest_stable_rate_is_below_the_first_failure() -> None:
    """A rate that survives above one that does not is luck, not stability."""
    lucky = sweep({0.01: None, 0.03: 400, 0.1: None})
    (curve,) = curves(lucky, lucky)
    assert curve.base_rate == 0.01
    (none,) = curves(sweep({0.01: 3, 0.03: None}), sweep({0.01: 3, 0.03: None}))
    assert none.base_rate is None


def test_divergence_without_a_nan_counts() -> None:
    """A run that stayed finite and diverged did not go well."""
    diverged = [trained(0.01), trained(0.03, diverged=True)]
    (curve,) = curves([trained(0.01), trained(0.03)], diverged)
    assert (curve.new_rate, curve.regression) == (0.01, True)


def test_first_bad_steps_meet_in_their_geometric_mean() -> None:
    """Steps 9 and 999, counted from 1, have the mean 99; it is told and is no regression."""
    base = [trained(0.01), trained(0.3, 0, 9), trained(0.3, 1, 999)]
    new = [trained(0.01), trained(0.3, 0, 0), trained(0.3, 1, 99)]
    (curve,) = curves(base, new)
    (rate,) = curve.rates
    assert (rate.rate, rate.seeds) == (0.3, 2)
    assert rate.base_step == pytest.approx(99)
    assert rate.new_step == pytest.approx(9)
    assert (curve.regression, curve.changed) == (False, True)


def test_only_what_both_tried_is_compared() -> None:
    """A rate or seed of one run alone is missing or new, and says nothing of the other."""
    base, wider = FINE, [*FINE, trained(0.2, 0, 50), trained(0.01, 7, 3)]
    for first, second in ((base, wider), (wider, base)):
        (curve,) = curves(first, second)
        assert (curve.base_rate, curve.new_rate, curve.regression) == (0.1, 0.1, False)


def test_other_axes_are_other_curves() -> None:
    """Another optimizer is another curve: its worse rate does not hide in the better one's."""

    def adam(record: Record) -> Record:
        data = dict(record.data) | {"optimizer": "adam"}
        id_ = record.id.replace("sgd", "adam")
        return Record(
            id_, "training", record.operation, record.path, record.dtype, record.verdict, data
        )

    worse = [adam(each) for each in sweep({0.01: None, 0.03: 5, 0.1: None, 0.3: 111})]
    found = curves([*FINE, *map(adam, FINE)], [*FINE, *worse])
    assert [(curve.regression, "adam" in curve.name) for curve in found] == [
        (True, True),
        (False, False),
    ]


def test_training_is_not_counted_twice() -> None:
    """ok -> nan of a training run is a finding of its curve, not one of the verdicts as well."""
    found = compare_runs(
        Run(Path("b"), HEAD, (trained(0.1),)), Run(Path("n"), HEAD, (trained(0.1, 0, 35),))
    )
    assert found.stability.failures == 0
    assert found.training.failures == 1
    assert trained(0.1, 0, 35).verdict is Verdict.NAN
