"""Timing by timing: SAME, FASTER, SLOWER or UNCLEAR, and why.

A row is SLOWER (or FASTER) when three things hold together: the ranks of its rounds differ, the
estimated change is at least the minimum effect, and it is significant among all rows of the
comparison. It is SAME when its 95% interval excludes a change of five thirds of the minimum effect
(5% by default). All else is UNCLEAR: a change large enough to matter that noise may explain, or
noise so wide that such a change could hide in it.

The minimum effect is 3%: timings of the same code in two processes differ by a percent or two from
where memory happens to lie and which clock the device settles at, however many rounds one takes.

Two runs on one device also differ as wholes: it was warmer, so all is slower. That common factor is
taken from paths that claim nothing (PyTorch's, other libraries', the naive ones), which nobody
changes between two runs as long as their versions agree; their scatter says how far rows differ
from run to run when nothing has changed, and widens every interval.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING

from harness.compare.matching import claims
from harness.record import Record

if TYPE_CHECKING:
    from harness.compare.statistics import Shift

LEAST_CHANGE = 0.03  # smaller changes are never told
_RULED_OUT = 5 / 3  # SAME excludes changes of this many minimum effects
_RATE = 0.01  # of the changes told, the share that may be chance; also the level of each rank test
_LEAST_ROUNDS = 5  # with fewer no rank test reaches any level worth the name
_LEAST_CONTROLS = 8  # rows from which a common factor and a scatter can be had
_FLOOR = 0.005  # the scatter between runs where there are too few controls to know it


class Answer(StrEnum):
    """What became of a timing."""

    SLOWER = "SLOWER"
    UNCLEAR = "UNCLEAR"
    FASTER = "FASTER"
    SAME = "SAME"


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """A case timed in both runs."""

    id: str
    answer: Answer
    reason: str  # why UNCLEAR; else empty
    base_seconds: float  # medians as measured
    new_seconds: float
    change: float | None  # 0.05: 5% slower, the common factor taken off; None: too few rounds
    low: float | None  # 95% interval of the change
    high: float | None
    p: float | None
    timer: str
    claimed: bool


@dataclass(frozen=True, slots=True)
class Speed:
    """All timings of a comparison."""

    rows: tuple[SpeedRow, ...]
    common: float  # 0.02: the new run as a whole is 2% slower; taken off every row
    scatter: float  # standard deviation between runs of the same code, as a share
    controls: int  # rows that the two come from; 0: too few, or versions differ
    least_change: float

    def count(self, answer: Answer) -> int:
        """How many rows got this answer."""
        return sum(row.answer is answer for row in self.rows)


def compare_speed(
    pairs: Iterable[tuple[Record, Record]],
    *,
    least_change: float = LEAST_CHANGE,
    same_versions: bool,  # of everything that is not this project's code
) -> Speed:
    """Judge every case of the speed suite that has samples in both runs; SLOWER ones first."""
    timed = [pair for pair in pairs if pair[0].suite == "speed" and _both_timed(*pair)]
    if not timed:
        return Speed((), 0.0, 0.0, 0, least_change)
    from harness.compare.statistics import adjusted, discoveries, rank_p, shift_between

    measured = {
        place: shift_between(old["samples"], now["samples"])
        for place, (old, now) in enumerate(timed)
        if min(len(old["samples"]), len(now["samples"])) >= _LEAST_ROUNDS
    }
    control = [shift for place, shift in measured.items() if not any(map(claims, timed[place]))]
    usable = same_versions and len(control) >= _LEAST_CONTROLS
    common, scatter = _common_and_scatter(control) if usable else (0.0, _FLOOR)
    shifts = {
        place: adjusted(shift, offset=common, width=scatter) for place, shift in measured.items()
    }
    chosen = discoveries([shift.p for shift in shifts.values()], _RATE)
    significant = dict(zip(shifts, chosen, strict=True))
    rows = []
    for place, (old, now) in enumerate(timed):
        shift = shifts.get(place)
        sure = significant.get(place, False) and (
            rank_p(old["samples"], now["samples"], offset=common) <= _RATE
        )
        rows.append(_row(old, now, shift, sure, least_change))
    order = list(Answer)
    rows.sort(key=lambda row: (order.index(row.answer), -abs(row.change or 0.0), row.id))
    return Speed(tuple(rows), math.expm1(common), scatter, len(control) * usable, least_change)


def _both_timed(old: Record, now: Record) -> bool:
    return all(each.get("samples") and not each.verdict.is_fault for each in (old, now))


def _common_and_scatter(shifts: Sequence["Shift"]) -> tuple[float, float]:
    """The median of unchanged rows, and how far they lie about it beyond their own errors."""
    from harness.compare.statistics import spread_of

    centre, width = spread_of([shift.estimate for shift in shifts])
    within = median(shift.error for shift in shifts)
    return centre, max(_FLOOR, math.sqrt(max(0.0, width**2 - within**2)))


def _row(old: Record, now: Record, shift: "Shift | None", sure: bool, least: float) -> SpeedRow:
    answer, reason = _answer(shift, sure, least)
    return SpeedRow(
        id=now.id,
        answer=answer,
        reason=reason,
        base_seconds=median(old["samples"]),
        new_seconds=median(now["samples"]),
        change=math.expm1(shift.estimate) if shift else None,
        low=math.expm1(shift.low) if shift else None,
        high=math.expm1(shift.high) if shift else None,
        p=shift.p if shift else None,
        timer=str(now.get("timer", "-")),
        claimed=claims(old) or claims(now),
    )


def _answer(shift: "Shift | None", sure: bool, least: float) -> tuple[Answer, str]:
    if shift is None:
        return Answer.UNCLEAR, f"fewer than {_LEAST_ROUNDS} rounds"
    # In logarithms, so that a change and its inverse are equally large.
    large = abs(shift.estimate) >= math.log1p(least)
    if large and sure:
        return (Answer.SLOWER if shift.estimate > 0 else Answer.FASTER), ""
    if large:
        return Answer.UNCLEAR, "the change may be chance"
    if max(shift.high, -shift.low) >= math.log1p(_RULED_OUT * least):
        return Answer.UNCLEAR, f"noise could hide a change of {100 * _RULED_OUT * least:.2g}%"
    return Answer.SAME, ""
