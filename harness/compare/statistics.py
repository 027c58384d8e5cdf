"""How far two series of timings lie apart, how surely, and what counts among very many series.

Timings are skewed, have outliers, and neighbouring rounds resemble each other. So nothing here
looks at means: ranks and the median of pairwise differences of logarithms do, and both are widened
by the number of rounds that count as one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Array = NDArray[np.float64]

# Pairwise differences grow with the square. Beyond this many rounds neighbours are put together in
# medians, which keeps what a slow drift does and loses nothing that ranks could use.
_MOST_ROUNDS = 400
_Z95 = 1.959963984540054  # the normal distribution's 97.5% point: a two-sided 95% interval


@dataclass(frozen=True, slots=True)
class Shift:
    """The difference of two series in logarithms: new less base, so 0.05 is about 5% slower."""

    estimate: float  # Hodges-Lehmann: the median of all pairwise differences
    low: float  # 95% interval, by inversion of the rank test (Moses)
    high: float
    error: float  # the standard error of the estimate, as the interval has it
    freedom: float  # degrees of freedom: independent rounds, less the two centres

    @property
    def p(self) -> float:
        """Two-sided, of the estimate against its error.

        Ranks cannot tell 5% from 50% once the series do not overlap, so that with twenty rounds
        their own p never gets small enough to stand among thousands of rows. The estimate's can.
        """
        if self.error == 0.0:
            return 0.0 if self.estimate else 1.0
        return 2.0 * float(special.stdtr(self.freedom, -abs(self.estimate) / self.error))


def shift_between(base: Sequence[float], new: Sequence[float]) -> Shift:
    """Compare two series of positive numbers, each in the order in which it was measured.

    The estimate and its interval invert the rank test (Hollander, Wolfe & Chicken, Nonparametric
    Statistical Methods, section 4.3); its variance is multiplied by the rounds that count as one.
    """
    x, y = _shortened(base), _shortened(new)
    together = rounds_that_count_as_one(x, y)
    differences = np.sort(np.subtract.outer(y, x), axis=None)
    pairs = differences.size
    spread = math.sqrt(pairs * (x.size + y.size + 1) / 12.0 * together)
    place = max(0, math.floor(pairs / 2.0 - _Z95 * spread))
    low, high = float(differences[place]), float(differences[pairs - 1 - place])
    freedom = max(1.0, (x.size + y.size) / together - 2.0)
    return Shift(float(np.median(differences)), low, high, (high - low) / (2.0 * _Z95), freedom)


def rank_p(base: Sequence[float], new: Sequence[float], *, offset: float = 0.0) -> float:
    """Mann & Whitney's two-sided p, its variance multiplied by the rounds that count as one.

    `offset` is taken off the new series' logarithms first.
    """
    x, y = _shortened(base), _shortened(new) - offset
    p = float(stats.mannwhitneyu(y, x, alternative="two-sided").pvalue)
    scaled = special.ndtri(p / 2.0) / math.sqrt(rounds_that_count_as_one(x, y))
    return min(1.0, 2.0 * float(special.ndtr(scaled)))


def rounds_that_count_as_one(*series: Array) -> float:
    """How many neighbouring rounds tell as much as one independent one would; at least 1.

    (1 + r) / (1 - r) for a correlation r of neighbours, as in a first-order autoregression. r is
    that of the ranks, so that an outlier counts once, over all series together, and freed of the
    bias that short series have (Marriott & Pope 1954: -(1 + 4 r) / n).
    """
    along = total = 0.0
    rounds = 0
    for each in series:
        ranks = stats.rankdata(each)
        centred = ranks - ranks.mean()
        along += float((centred[1:] * centred[:-1]).sum())
        total += float((centred**2).sum())
        rounds += each.size
    if total == 0.0:
        return 1.0
    raw = along / total
    unbiased = raw + (1.0 + 4.0 * raw) / (rounds / len(series))
    bounded = min(max(unbiased, 0.0), 0.9)
    return (1.0 + bounded) / (1.0 - bounded)


def spread_of(values: Sequence[float]) -> tuple[float, float]:
    """Centre and width that a few odd values do not move: the median, and 1.4826 MAD."""
    found = np.asarray(values, dtype=np.float64)
    centre = float(np.median(found))
    return centre, 1.4826 * float(np.median(np.abs(found - centre)))


def adjusted(shift: Shift, *, offset: float, width: float) -> Shift:
    """Without what all rows have in common, and wide enough for what runs differ by anyway.

    The rounds of a run know nothing of `width`, a standard deviation: they all share what placed
    the run's memory where it lies. What it may explain is not significant.
    """
    return Shift(
        shift.estimate - offset,
        shift.estimate - offset - math.hypot(shift.estimate - shift.low, _Z95 * width),
        shift.estimate - offset + math.hypot(shift.high - shift.estimate, _Z95 * width),
        math.hypot(shift.error, width),
        shift.freedom,
    )


def discoveries(p_values: Sequence[float], rate: float) -> list[bool]:
    """Which are significant when at most `rate` of those so called may be so by chance.

    Benjamini & Hochberg 1995. Where nothing differs at all, the chance that anything is called
    significant is `rate` as well, which is what a gate needs; where something does, it finds more
    than a bound on any single mistake (Holm) would. Timings of one machine are positively
    dependent, which the procedure admits (Benjamini & Yekutieli 2001).
    """
    if not p_values:
        return []
    adjusted = stats.false_discovery_control(np.asarray(p_values), method="bh")
    return [bool(each <= rate) for each in adjusted]


def _shortened(series: Sequence[float]) -> Array:
    logarithms = np.log(np.asarray(series, dtype=np.float64))
    if logarithms.size <= _MOST_ROUNDS:
        return logarithms
    return np.array([np.median(part) for part in np.array_split(logarithms, _MOST_ROUNDS)])
