"""FastNorm's claims from recorded runs: stable rate, spread over seeds, drift, and the norm's time.

Curves that differ in the normalisation alone are put beside each other.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean, variance

from harness.training.curves import Curve
from harness.training.setting import Setting
from harness.training.trials import Interval, factor

Curves = Mapping[tuple[Setting, int], Curve]

_BASES = ("none", "weight", "fastnorm")
_FEWEST = 3  # seeds


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A normalisation in one training; metrics are of runs that ended well."""

    name: str  # workload, path and precision
    steps: int
    normalization: str
    seeds: int
    stable: float | None  # the highest stable rate
    stable_by_seed: tuple[float | None, ...]
    by_rate: tuple[tuple[float, float | None, float | None, int], ...]  # rate, mean, sd, ended well
    # The seeds' highest stable rates over those without normalisation, and its 95% interval.
    rate: Interval | None
    # Standard deviation over seeds divided by that without normalisation, over the rates at which
    # all runs of both ended well, and its 95% interval (F distribution).
    spread: Interval | None


def accuracies(curves: Curves) -> list[Accuracy]:
    """Every normalisation of trainings that were run with FastNorm, none and weight first."""
    found = []
    for (setting, steps), _ in curves.items():
        if setting.normalization != "fastnorm":
            continue
        beside = {
            name: curves.get((replace(setting, normalization=name), steps)) for name in _BASES
        }
        for name, curve in beside.items():
            if curve is not None and len(curve.seeds) >= _FEWEST:
                found.append(_accuracy(name, curve, beside["none"]))
    return found


def _accuracy(name: str, curve: Curve, plain: Curve | None) -> Accuracy:
    setting = curve.setting
    by_rate = []
    for rate in curve.rates:
        metrics, runs = _metrics(curve, rate)
        mean = fmean(metrics) if metrics else None
        deviation = math.sqrt(variance(metrics)) if len(metrics) > 1 else None
        by_rate.append((rate, mean, deviation, len(metrics) if runs else 0))
    return Accuracy(
        " ".join([setting.workload, setting.path, setting.precision]),
        curve.steps,
        name,
        len(curve.seeds),
        curve.highest_stable(),
        tuple(curve.highest_stable(seed) for seed in curve.seeds),
        tuple(by_rate),
        None if plain is None or plain is curve else _raised(curve, plain),
        None if plain is None or plain is curve else _spread(curve, plain),
    )


def _metrics(curve: Curve, rate: float) -> tuple[list[float], int]:
    runs = [run for run in curve.runs if run.rate == rate]
    return [run.metric for run in runs if run.well and run.metric is not None], len(runs)


def _raised(curve: Curve, plain: Curve) -> Interval | None:
    """Seed by seed; those for which no rate at all is stable in either are left out."""
    pairs = [
        (curve.highest_stable(seed), plain.highest_stable(seed))
        for seed in curve.seeds
        if seed in plain.seeds
    ]
    return factor([[math.log(a / b)] for a, b in pairs if a is not None and b is not None])


def _spread(curve: Curve, plain: Curve) -> Interval | None:
    """The ratio of pooled standard deviations; None where no rate went well throughout in both."""
    from scipy import stats

    squares, freedom = [0.0, 0.0], [0, 0]
    for rate in curve.rates:
        both = [_metrics(each, rate) for each in (curve, plain)]
        if any(len(metrics) < max(2, runs) for metrics, runs in both):
            continue
        for place, (metrics, _) in enumerate(both):
            squares[place] += variance(metrics) * (len(metrics) - 1)
            freedom[place] += len(metrics) - 1
    if not freedom[0] or not squares[0] or not squares[1]:
        return None
    ratio = (squares[0] / freedom[0]) / (squares[1] / freedom[1])
    low = ratio / float(stats.f.ppf(0.975, *freedom))
    high = ratio / float(stats.f.ppf(0.025, *freedom))
    return Interval(math.sqrt(ratio), math.sqrt(low), math.sqrt(high))


def drifts(curves: Curves) -> tuple[list[str], list[tuple[str, list[float | None]]]]:
    """Refresh periods, and for each precision the largest drift at each of them."""
    found: dict[str, dict[str, float]] = {}
    for (setting, _), curve in curves.items():
        period = re.fullmatch(r"fastnorm_(\w+)", setting.normalization)
        values = [_measured(run.record.get("measured"), "norm_drift") for run in curve.runs]
        known = [each for each in values if each is not None]
        if period and known:
            found.setdefault(setting.precision, {})[period[1]] = max(known)
    periods = sorted({name for each in found.values() for name in each}, key=_period)
    rows = [(name, [each.get(period) for period in periods]) for name, each in found.items()]
    return periods, sorted(rows, key=lambda row: max(x or 0.0 for x in row[1]))


def _period(name: str) -> float:
    return float(name) if name.isdigit() else math.inf


def norm_times(curves: Curves) -> list[tuple[int, float, float]]:
    """Width, seconds for exact norms and for inferring them, from workloads named by a width."""
    found: dict[int, dict[str, float]] = {}
    for (setting, _), curve in curves.items():
        width = re.search(r"_wide_(\d+)$", setting.workload)
        values = [_measured(run.record.get("measured"), "norm_seconds") for run in curve.runs]
        known = [each for each in values if each is not None]
        if width and known:
            found.setdefault(int(width[1]), {})[setting.normalization] = min(known)
    return [
        (width, times["weight"], times["fastnorm"])
        for width, times in sorted(found.items())
        if {"weight", "fastnorm"} <= times.keys()
    ]


def growth(times: list[tuple[int, float, float]]) -> tuple[float, float] | None:
    """The exponents of time over width between the two widest layers, exact and inferred."""
    if len(times) < 2:
        return None
    (first, *small), (second, *large) = times[-2], times[-1]
    ratio = math.log(second / first)
    return math.log(large[0] / small[0]) / ratio, math.log(large[1] / small[1]) / ratio


def _measured(numbers: object, name: str) -> float | None:
    value = numbers.get(name) if isinstance(numbers, dict) else None
    return float(value) if isinstance(value, int | float) else None
