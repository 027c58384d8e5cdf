"""First bad step against the learning rate: where the rate only sets the clock, where a cliff is.

A power law step = c * rate**slope is a line on logarithmic axes. A slope of -1 says that the runs
go the same way and break at the same place, sooner or later. At a cliff the steps below it, where
the line would have them break, are none.
"""

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from harness.training.curves import Curve

# Steps this early are the first update's doing: they say nothing about how long the way was.
_EARLIEST = 4
_ALIKE = 0.25  # a slope this near to -1 is a clock's
_UNCLEAR = 0.5  # half-width of the interval
_MARGIN = 3.0  # a break is missed where the line puts it in less than the run's steps over this


@dataclass(frozen=True, slots=True)
class Clock:
    """The fitted line. `low` and `high` are the slope's 95% interval (Student's t)."""

    slope: float
    low: float
    high: float
    runs: int  # that went bad late enough to be fitted
    rates: int
    verdict: str  # "cliff"; else "unclear" (a wide interval), "clock" (about -1) or "mixed"
    cliff_at: float | None  # the highest rate at which none broke although the line says so


def clock(curve: Curve) -> Clock | None:
    """Fit a curve; None with fewer than two rates that broke late enough to tell a line."""
    from scipy import stats

    points = [
        (math.log10(run.rate), math.log10(run.bad_step))
        for run in curve.runs
        if run.bad_step is not None and run.bad_step >= _EARLIEST
    ]
    rates = {x for x, _ in points}
    if len(rates) < 2 or len(points) < 3:
        return None
    fit = stats.linregress([x for x, _ in points], [y for _, y in points])
    t = float(stats.t.ppf(0.975, len(points) - 2))
    wide = t * float(fit.stderr)
    slope = float(fit.slope)
    middle = fmean(x for x, _ in points)

    def overdue(x: float) -> bool:
        """Whether the line puts the break well within the run, its 95% limit at least within."""
        line = float(fit.intercept) + slope * x
        limit = line + math.hypot(wide * (x - middle), t * float(_noise(points, fit)))
        return line < math.log10(curve.steps / _MARGIN) and limit < math.log10(curve.steps)

    missed = [
        rate
        for rate in curve.rates
        if all(run.bad_step is None for run in curve.runs if run.rate == rate)
        and overdue(math.log10(rate))
    ]
    if missed:
        verdict = "cliff"
    elif wide > _UNCLEAR:
        verdict = "unclear"
    else:
        verdict = "clock" if abs(slope + 1.0) <= _ALIKE else "mixed"
    return Clock(
        slope, slope - wide, slope + wide, len(points), len(rates), verdict,
        max(missed, default=None),
    )  # fmt: skip


def _noise(points: list[tuple[float, float]], fit: Any) -> float:
    """The standard error of the line's height at the points' middle."""
    squares = sum((y - fit.intercept - fit.slope * x) ** 2 for x, y in points)
    return math.sqrt(squares / (len(points) - 2) / len(points))
