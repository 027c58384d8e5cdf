"""What came of a trial: paired runs of control and treatment, and a verdict with an interval."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from harness.training.curves import Curve, RunOf
from harness.training.declare import Trial
from harness.training.setting import Setting

HELPS, DELAYS, NOTHING, HARMS = "helps", "only delays", "does nothing", "harms"
UNCLEAR, UNMEASURED = "unclear", "not measured"
# Less than this change in the share of runs that end well is no effect, however certain.
_LEAST_SHARE = 0.1
_LEAST_DELAY = 1.25  # factor on the first bad step
_LEAST_LOSS = 1.25  # factor on the final loss where both end well


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95% interval over seeds (Student's t)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Result:
    """Of one trial. `share` is the treatment's share of runs that end well minus the control's."""

    verdict: str
    seeds: int
    pairs: int
    control_well: int
    treatment_well: int
    share: Interval | None = None
    delay: Interval | None = None  # factor on the first bad step, pairs in which both break
    loss: Interval | None = None  # factor on the final loss, pairs in which both end well
    reason: str = ""  # why there is no measurement


def judge_trial(trial: Trial, curves: Mapping[tuple[Setting, int], Curve]) -> Result:
    """Pair the runs and say what the treatment did.

    A run ends well if it stayed finite and ended no worse than untrained. Over seeds, the share of
    rates at which it does is compared, pair by pair: `helps` and `harms` need an interval clear of
    0 and a change of at least 0.1. Else, where both break, `only delays` needs a first bad step
    later by a factor of 1.25, the interval clear of 1. Else, where both end well, a final loss
    changed by a factor of 1.25 `helps` or `harms`. An interval of the share as wide as the whole
    question is `unclear`.
    """
    control = curves.get((trial.control, trial.steps))
    treatment = curves.get((trial.treatment, trial.steps * trial.steps_factor))
    for curve in (control, treatment):
        if curve is None or not curve.runs:
            reason = curve.unsupported if curve is not None else ""
            return Result(UNMEASURED, 0, 0, 0, 0, reason=reason)
    assert control is not None
    assert treatment is not None
    by_seed: dict[int, list[tuple[RunOf, RunOf]]] = {}
    for rate in trial.rates:
        for seed in control.seeds:
            first = control.at(rate, seed)
            second = treatment.at(float(f"{rate * trial.rate_factor:.6g}"), seed)
            if first is not None and second is not None:
                by_seed.setdefault(seed, []).append((first, second))
    pairs = [pair for each in by_seed.values() for pair in each]
    if len(by_seed) < trial.seeds:
        return Result(
            UNMEASURED, len(by_seed), len(pairs), 0, 0, reason=f"fewer than {trial.seeds} seeds"
        )
    found = _over_seeds([fmean(b.well - a.well for a, b in each) for each in by_seed.values()])
    share = Interval(found.value, max(found.low, -1.0), min(found.high, 1.0))
    delay = factor(
        [
            [_log_ratio(a.bad_step, b.bad_step) for a, b in each if _both_broke(a, b)]
            for each in by_seed.values()
        ]
    )
    loss = factor(
        [
            [
                math.log(max(b.final_loss or 0.0, 1e-12) / max(a.final_loss or 0.0, 1e-12))
                for a, b in each
                if a.well and b.well
            ]
            for each in by_seed.values()
        ]
    )
    return Result(
        _verdict(share, delay, loss),
        len(by_seed),
        len(pairs),
        sum(a.well for a, _ in pairs),
        sum(b.well for _, b in pairs),
        share,
        delay,
        loss,
    )


def _verdict(share: Interval, delay: Interval | None, loss: Interval | None) -> str:
    if share.low > 0 and share.value >= _LEAST_SHARE:
        return HELPS
    if share.high < 0 and share.value <= -_LEAST_SHARE:
        return HARMS
    if abs(share.value) >= _LEAST_SHARE:
        return UNCLEAR
    if delay is not None and delay.low > 1 and delay.value >= _LEAST_DELAY:
        return DELAYS
    if delay is not None and delay.high < 1 and delay.value <= 1 / _LEAST_DELAY:
        return HARMS
    if loss is not None and loss.high < 1 and loss.value <= 1 / _LEAST_LOSS:
        return HELPS
    if loss is not None and loss.low > 1 and loss.value >= _LEAST_LOSS:
        return HARMS
    return NOTHING


def _both_broke(a: RunOf, b: RunOf) -> bool:
    return a.bad_step is not None and b.bad_step is not None


def _log_ratio(first: int | None, second: int | None) -> float:
    # Counted from 1, so that a run whose very first step is bad has a logarithm.
    return math.log(((second or 0) + 1) / ((first or 0) + 1))


def factor(by_seed: list[list[float]]) -> Interval | None:
    """Of logarithms: the geometric mean over seeds of each seed's own; None below two seeds."""
    means = [fmean(each) for each in by_seed if each]
    if len(means) < 2:
        return None
    found = _over_seeds(means)
    return Interval(math.exp(found.value), math.exp(found.low), math.exp(found.high))


def _over_seeds(values: list[float]) -> Interval:
    """Mean and interval. Values all alike leave one of no width: the seeds did not differ."""
    from scipy import stats

    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    deviation = math.sqrt(sum((each - mean) ** 2 for each in values) / (len(values) - 1))
    wide = float(stats.t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
    return Interval(mean, mean - wide, mean + wide)
