"""Verdict by verdict: which case lost a claim, got worse or better, or merely fails otherwise."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.compare.frontiers import Move
from harness.compare.matching import claims
from harness.record import Record
from harness.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Change:
    """A case in both runs whose verdict differs, or whose claim broke."""

    id: str
    suite: str
    base: Verdict
    new: Verdict
    claimed: bool
    broken: tuple[str, ...] = ()  # claims broken in the new run and not in the base


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A path that claimed and does not any more, or whose claimed cases are gone."""

    path: str  # operation/path
    cases: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stability:
    """What changed in verdicts and frontiers. Regressions, lost claims and moves inwards fail."""

    regressions: tuple[Change, ...]
    improvements: tuple[Change, ...]
    changes: tuple[Change, ...]  # neither better nor worse, such as nan to inf
    withdrawn: tuple[Withdrawn, ...]
    moves: tuple[Move, ...]
    same: int

    @property
    def failures(self) -> int:
        """How many findings are regressions."""
        inwards = sum(move.regression for move in self.moves)
        return len(self.regressions) + len(self.withdrawn) + inwards


def verdict_changes(
    pairs: Iterable[tuple[Record, Record]],
) -> tuple[tuple[Change, ...], tuple[Change, ...], tuple[Change, ...], int]:
    """(worse, better, neither, how many the same), but for training, which is judged by curve."""
    worse: list[Change] = []
    better: list[Change] = []
    other: list[Change] = []
    same = 0
    for old, now in pairs:
        if now.suite == "training":
            continue
        rank = _badness(now.verdict) - _badness(old.verdict)
        broken = _newly_broken(old, now)
        if now.verdict is old.verdict and not broken:
            same += 1
            continue
        claimed = claims(old) or claims(now)
        change = Change(now.id, now.suite, old.verdict, now.verdict, claimed, broken)
        if broken or (rank > 0 and not _left_to_frontier(old, now)):
            worse.append(change)
        elif rank < 0:
            better.append(change)
        else:
            other.append(change)
    return tuple(worse), tuple(better), tuple(other), same


def withdrawn_claims(
    pairs: Iterable[tuple[Record, Record]],
    missing: Iterable[Record],
    *,
    asked_alike: bool,  # both runs were asked for the same cases
) -> tuple[Withdrawn, ...]:
    """Claims that nobody broke because nobody makes or tests them any more.

    Cases that a narrower run did not measure are only missing; where both runs were asked for the
    same, a claimed case that is gone is a claim that is gone.
    """
    dropped: dict[str, int] = {}
    gone: dict[str, int] = {}
    for old, now in pairs:
        if claims(old) and not claims(now):
            where = f"{now.operation}/{now.path}"
            dropped[where] = dropped.get(where, 0) + 1
    for record in missing:
        if asked_alike and claims(record):
            where = f"{record.operation}/{record.path}"
            gone[where] = gone.get(where, 0) + 1
    return (
        *(Withdrawn(path, count, "claims nothing now") for path, count in dropped.items()),
        *(Withdrawn(path, count, "claimed cases are gone") for path, count in gone.items()),
    )


def _left_to_frontier(old: Record, now: Record) -> bool:
    """Near an accuracy frontier a float more or less is an unlucky rounding, not news.

    Only for what the bisection visited, on paths that claim nothing; the frontier tells the rest.
    """
    refined = bool(old.get("refined") and now.get("refined"))
    finite = old.verdict.is_finite_enough and now.verdict.is_finite_enough
    return refined and finite and not (claims(old) or claims(now))


def _newly_broken(old: Record, now: Record) -> tuple[str, ...]:
    before = old.get("broken")
    known = [str(each) for each in before] if isinstance(before, list) else []
    after = now.get("broken")
    return tuple(str(e) for e in after if str(e) not in known) if isinstance(after, list) else ()


def _badness(verdict: Verdict) -> int:
    """0 right, 1 finite but wrong, 2 not finite, 3 did not run: what a user would call worse."""
    if verdict.is_accurate:
        return 0
    if verdict is Verdict.UNSUPPORTED or verdict.is_fault:
        return 3
    return 1 if verdict.is_finite_enough else 2
