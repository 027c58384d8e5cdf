"""Where a path stops being finite, and where it stops being accurate, as adjacent floats."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.formats import Format
from harness.judgement import Judgement
from harness.verdict import Verdict

Side = Literal["high", "low"]
SIDES: tuple[Side, ...] = ("high", "low")

Evaluate = Callable[[Sequence[float]], Sequence[Judgement]]


@dataclass(frozen=True, slots=True)
class Frontier:
    """Adjacent floats of the dtype, going outwards from magnitude 1.

    `finite_until` is the last magnitude at which the path is finite and `nonfinite_from` its
    neighbour, where it is not (None where it stays finite to the end: then `finite_until` is the
    last float whose truth is representable); likewise for accuracy. The search starts from a grid:
    see `find_boundary` for what that means. `verdict` is the one at `nonfinite_from`, else at
    `inaccurate_from`, else ok.
    """

    finite_until: float | None
    nonfinite_from: float | None
    accurate_until: float | None
    inaccurate_from: float | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Boundary:
    """Two adjacent floats: `until` still passes, `beyond` does not; None where there is no such."""

    until: float | None
    beyond: float | None


def outward(points: Sequence[float], side: Side) -> list[float]:
    """The points from 1 towards the side's end, 1 first if it is among them."""
    if side == "high":
        return sorted(each for each in points if each >= 1.0)
    return sorted((each for each in points if each <= 1.0), reverse=True)


def search_frontier(
    evaluate: Evaluate,
    fmt: Format,
    points: Sequence[float],  # the grid, in any order; floats of the format
    *,
    side: Side,
    width: int,  # magnitudes evaluated in one launch of the bisection
) -> Frontier:
    """Bracket on the grid, since finiteness need not be monotone, then bisect to neighbours."""
    finite = find_boundary(evaluate, fmt, points, is_finite, side=side, width=width)
    accurate = find_boundary(evaluate, fmt, points, is_accurate, side=side, width=width)
    decisive = finite.beyond if finite.beyond is not None else accurate.beyond
    verdict = Verdict.OK if decisive is None else evaluate([decisive])[0].verdict
    return Frontier(finite.until, finite.beyond, accurate.until, accurate.beyond, verdict)


def find_boundary(
    evaluate: Evaluate,
    fmt: Format,
    points: Sequence[float],
    passes: Callable[[Judgement], bool],
    *,
    side: Side,
    width: int,
) -> Boundary:
    """Neighbours of which one passes and the next, outwards, does not.

    The bracket is the first failing point and the last passing one before it; within it the search
    bisects. Finiteness is usually monotone there, accuracy is not: a float nearer to 1 may fail by
    an unlucky rounding, and no search short of trying them all would know. Without a failure,
    `until` is the last float whose truth the dtype can hold.
    """
    path = outward(points, side)
    judgements = evaluate(path)
    good, bad = bracket(path, judgements, passes)
    if good is None:
        return Boundary(good, bad)
    if bad is None:
        unfit = [p for p, j in zip(path, judgements, strict=True) if not j.representable]
        outer = [each for each in unfit if (each > good) == (side == "high")]
        if not outer:
            return Boundary(good, None)
        good, bad = _last_representable(evaluate, fmt, good, outer[0], passes, width)
        if bad is None:
            return Boundary(good, None)
    inside, outside = fmt.ordinal(good), fmt.ordinal(bad)
    blank: list[int] = []  # met between the two, outwards: their truths are not representable
    while abs(outside - inside) > 1:
        if blank:  # narrow it from both its ends
            between = _spread(inside, blank[0], width // 2 or 1)
            between += _spread(blank[-1], outside, width // 2 or 1)
        else:
            between = _spread(inside, outside, width)
        if not between:
            break  # nothing between can be judged: these are neighbours as far as truth goes
        judged = evaluate([fmt.from_ordinal(each) for each in between])
        for ordinal, judgement in zip(between, judged, strict=True):
            if not judgement.representable:
                blank.append(ordinal)
            elif passes(judgement):
                inside = ordinal
            else:
                outside = ordinal
                break
        nearest, furthest = sorted((inside, outside))
        blank = [each for each in blank if nearest < each < furthest]
        blank.sort(reverse=outside < inside)
    return Boundary(fmt.from_ordinal(inside), fmt.from_ordinal(outside))


def _last_representable(
    evaluate: Evaluate,
    fmt: Format,
    good: float,
    blank: float,  # further out: its truth does not fit the dtype
    passes: Callable[[Judgement], bool],
    width: int,
) -> tuple[float, float | None]:
    """The last passing float before truths stop fitting, and a failing one, if any comes first."""
    inside, outside = fmt.ordinal(good), fmt.ordinal(blank)
    while abs(outside - inside) > 1:
        between = _spread(inside, outside, width)
        judged = evaluate([fmt.from_ordinal(each) for each in between])
        for ordinal, judgement in zip(between, judged, strict=True):
            if not judgement.representable:
                outside = ordinal
                break
            if not passes(judgement):
                return fmt.from_ordinal(inside), fmt.from_ordinal(ordinal)
            inside = ordinal
    return fmt.from_ordinal(inside), None


def bracket(
    path: Sequence[float],  # outwards
    judgements: Sequence[Judgement],
    passes: Callable[[Judgement], bool],
) -> tuple[float | None, float | None]:
    """The last magnitude that passes before the first that does not, and that one."""
    good: float | None = None
    for magnitude, judgement in zip(path, judgements, strict=True):
        if not judgement.representable:
            continue  # nobody's fault: it neither passes nor fails
        if not passes(judgement):
            return good, magnitude
        good = magnitude
    return good, None


def measured_frontier(
    points: Sequence[float], judgements: Sequence[Judgement], *, side: Side
) -> Frontier:
    """The frontier that recorded magnitudes show, without measuring anything."""
    judged = dict(zip(points, judgements, strict=True))
    path = outward(points, side)
    along = [judged[each] for each in path]
    finite, nonfinite = bracket(path, along, is_finite)
    accurate, inaccurate = bracket(path, along, is_accurate)
    decisive = nonfinite if nonfinite is not None else inaccurate
    verdict = Verdict.OK if decisive is None else judged[decisive].verdict
    return Frontier(finite, nonfinite, accurate, inaccurate, verdict)


def _spread(inside: int, outside: int, width: int) -> list[int]:
    """Up to `width` ordinals strictly between, evenly spaced, from inside to outside."""
    gap = abs(outside - inside)
    step = 1 if outside > inside else -1
    count = min(width, gap - 1)
    return [inside + step * (gap * k // (count + 1)) for k in range(1, count + 1)]


def is_finite(judgement: Judgement) -> bool:
    """Counts as finite for a frontier."""
    return judgement.verdict.is_finite_enough


def is_accurate(judgement: Judgement) -> bool:
    """Counts as accurate for a frontier."""
    return judgement.verdict.is_accurate
