"""FastNorm's claims, from records whose numbers are known."""

from dataclasses import replace

import pytest
from scipy import stats

from harness.record import Record
from harness.training.curves import curves_of
from harness.training.norms import accuracies, drifts, growth, norm_times
from harness.training.setting import Setting
from suites.selftest.test_training_analysis import run

_BASE = Setting("toy", "torch", "fp32")
# Accuracies of three seeds, by normalisation: deviations of 0.2, 0.2 and 0.1.
_METRICS = {"none": (0.3, 0.5, 0.7), "weight": (0.4, 0.6, 0.8), "fastnorm": (0.5, 0.6, 0.7)}
_WIDTHS = {256: (0.001, 0.002), 512: (0.004, 0.002)}  # exact, inferred


def _named(setting: Setting, rate: float, seed: int, **outcome: object) -> Record:
    """As `run`, with the axis that these are about."""
    made = run(setting, rate, seed, steps=60, **outcome)
    return replace(made, data=made.data | {"normalization": setting.normalization})


def normed() -> list[Record]:
    """Three normalisations at a rate that all stand and one that two of three seeds do; drifts and
    times.
    """
    found = []
    for name, metrics in _METRICS.items():
        setting = replace(_BASE, normalization=name)
        for seed, metric in enumerate(metrics):
            found.append(_named(setting, 0.1, seed, final_metric=metric))
            bad = {"first_bad_step": 9} if seed == 2 else {"final_metric": 0.9}
            found.append(_named(setting, 1.0, seed, **bad))
    for period, drift in (("never", 2e-3), ("10", 1e-4)):
        setting = replace(_BASE, precision="fp16", normalization=f"fastnorm_{period}")
        for part in (0.5, 1.0):
            measured = {"norm_drift": drift * part}
            found.append(_named(setting, 0.1, round(2 * part), measured=measured))
    for width, times in _WIDTHS.items():
        for name, seconds in zip(("weight", "fastnorm"), times, strict=True):
            setting = replace(_BASE, workload=f"toy_wide_{width}", normalization=name)
            found.append(_named(setting, 0.1, 0, measured={"norm_seconds": seconds}))
    return found


def test_spread_is_the_ratio_of_deviations() -> None:
    """0.1 over 0.2, at the rate that all runs stood alone; the interval is F's."""
    none, weight, fast = accuracies(curves_of(normed()))
    assert (none.normalization, none.spread, none.stable) == ("none", None, 0.1)
    assert none.stable_by_seed == (1.0, 1.0, 0.1)
    assert weight.spread is not None
    assert weight.spread.value == pytest.approx(1.0)
    assert fast.spread is not None
    assert fast.spread.value == pytest.approx(0.5)
    assert fast.spread.low == pytest.approx(0.5 / stats.f.ppf(0.975, 2, 2) ** 0.5)
    assert fast.spread.high == pytest.approx(0.5 / stats.f.ppf(0.025, 2, 2) ** 0.5)
    assert fast.rate is not None
    assert (fast.rate.value, fast.rate.low, fast.rate.high) == (1.0, 1.0, 1.0)
    (stood, broke) = fast.by_rate
    assert stood[:2] == (0.1, pytest.approx(0.6))
    assert stood[2:] == (pytest.approx(0.1), 3)
    assert broke[3] == 2


def test_drifts_by_period() -> None:
    """The largest of all runs, periods in order, never last."""
    periods, rows = drifts(curves_of(normed()))
    assert periods == ["10", "never"]
    assert rows == [("fp16", [1e-4, 2e-3])]


def test_growth_is_the_exponent() -> None:
    """Four times the time at twice the width is n^2; the same time is n^0."""
    times = norm_times(curves_of(normed()))
    assert times == [(256, 0.001, 0.002), (512, 0.004, 0.002)]
    assert growth(times) == (pytest.approx(2.0), pytest.approx(0.0))
    assert growth(times[:1]) is None
