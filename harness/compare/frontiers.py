"""Frontier by frontier: which moved, which way, and whether that is a regression.

The rules. A frontier is known as a bracket: the last magnitude that passes and the first that does
not. It has moved inwards when the new run fails at or before the last magnitude that passed in the
base, outwards when it passes at or beyond the first that failed there. A bracket that merely is
wider, as of a run without bisection, has not moved. Runs over other grids meet other magnitudes,
so their frontiers are not compared; the magnitudes that they share are, as verdicts.

Finiteness moved inwards is a regression, by however little. So is accuracy, for a path with claims.
For one without, a new version of a library that rounds one exponential otherwise moves the float
where the bound is first missed; there the move must exceed a factor of two to count.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.compare.matching import claims, on_grid
from harness.record import Record, judgement_of
from harness.search import SIDES, Frontier, Side, measured_frontier
from harness.verdict import Verdict

_JITTER = 2.0  # the factor by which an unclaimed accuracy frontier may move without being news


@dataclass(frozen=True, slots=True)
class Move:
    """A frontier that is elsewhere in the new run."""

    where: str  # operation/path/dtype/regime/shape/pass[/options]
    property: str  # "finite" or "accurate"
    side: Side
    base_until: float | None  # None: failed already at magnitude 1
    base_from: float | None  # None: held to the end
    new_until: float | None
    new_from: float | None
    inwards: bool
    claimed: bool
    regression: bool


def frontier_moves(base: Iterable[Record], new: Iterable[Record]) -> tuple[Move, ...]:
    """All frontiers that both runs know and that moved, in the order of the base."""
    first, second = _groups(base), _groups(new)
    moves: list[Move] = []
    for where, old in first.items():
        now = second.get(where)
        if now is None or _grid(old) != _grid(now):
            continue
        claimed = any(claims(each) for each in (*old, *now))
        for side in SIDES:
            moves += _moved(where, old, now, side, claimed)
    return tuple(moves)


def _moved(
    where: str, old: list[Record], now: list[Record], side: Side, claimed: bool
) -> Iterable[Move]:
    before, after = (_frontier(each, side) for each in (old, now))
    brackets = {
        "finite": (
            (before.finite_until, before.nonfinite_from),
            (after.finite_until, after.nonfinite_from),
        ),
        "accurate": (
            (before.accurate_until, before.inaccurate_from),
            (after.accurate_until, after.inaccurate_from),
        ),
    }
    if brackets["finite"] == brackets["accurate"]:
        del brackets["accurate"]  # accurate as far as finite: one thing moved, not two
    for name, (was, is_) in brackets.items():
        if _reaches(was[0], is_[1], side):
            far = name == "finite" or claimed or _factor(was[0], is_[0]) > _JITTER
            yield Move(where, name, side, *was, *is_, True, claimed, far)
        elif _reaches(is_[0], was[1], side):
            yield Move(where, name, side, *was, *is_, False, claimed, False)


def _reaches(until: float | None, beyond: float | None, side: Side) -> bool:
    """Whether what passes to here lies at or beyond where the other one fails."""
    if until is None or beyond is None:
        return False
    return until >= beyond if side == "high" else until <= beyond


def _factor(first: float | None, second: float | None) -> float:
    """How far apart two magnitudes are; infinitely, if one fails already at 1."""
    if not first or not second:
        return float("inf")
    return max(first / second, second / first)


def _groups(records: Iterable[Record]) -> dict[str, list[Record]]:
    # By parts first: a name is put together once a group and not once a record.
    by_parts: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        if record.suite != "stability" or record["magnitude"] == 0.0:
            continue  # a regime without magnitudes has no frontier
        if record.verdict is Verdict.UNSUPPORTED and not claims(record):
            continue  # not measured, as of a library that is not installed
        shape, options = record.get("shape"), record.get("options")
        parts = (
            *(record.operation, record.path, record.dtype, record["regime"], record["pass"]),
            "x".join(map(str, shape)) if isinstance(shape, list) else "-",
            "/".join(f"{k}={options[k]}" for k in sorted(options))
            if isinstance(options, dict)
            else "",
        )
        by_parts.setdefault(parts, []).append(record)
    found: dict[str, list[Record]] = {}
    for (*names, pass_, size, chosen), group in by_parts.items():
        where = "/".join([*map(str, names), str(size), str(pass_), *([str(chosen)] * bool(chosen))])
        found.setdefault(where, []).extend(group)
    return found


def _grid(records: list[Record]) -> set[float]:
    return {record["magnitude"] for record in records if on_grid(record)}


def _frontier(records: list[Record], side: Side) -> Frontier:
    judged = {record["magnitude"]: judgement_of(record) for record in records}
    return measured_frontier(list(judged), list(judged.values()), side=side)
