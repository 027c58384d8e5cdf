"""Which case of one run is which case of the other: pairs, missing, new, renamed."""

from dataclasses import dataclass

from harness.record import Record
from harness.store import Run
from harness.verdict import Verdict

# A handful of equal verdicts is no proof that two names mean the same.
_LEAST_RENAMED = 4


@dataclass(frozen=True, slots=True)
class Rename:
    """An operation, path or regime that is there under another name, case by case the same."""

    axis: str  # "operation", "path" or "regime"
    base: str
    new: str
    cases: int


@dataclass(frozen=True, slots=True)
class Matching:
    """Records of both runs, put together."""

    pairs: tuple[tuple[Record, Record], ...]  # (base, new) of one id
    missing: tuple[Record, ...]  # in base alone; on the grid
    new: tuple[Record, ...]
    renamed: tuple[Rename, ...]


def match(base: Run, new: Run) -> Matching:
    """Match by id.

    A frontier's own neighbours move with it, so what only a bisection visited is neither missing
    nor new: the frontier says it. A path without claims that one run could not measure (a library
    that is not installed) is missing there, not worse.
    """
    before = {record.id: record for record in base.records}
    after = {record.id: record for record in new.records}
    pairs: list[tuple[Record, Record]] = []
    missing = [record for id_, record in before.items() if id_ not in after]
    added = [record for id_, record in after.items() if id_ not in before]
    for id_, old in before.items():
        now = after.get(id_)
        if now is None:
            continue
        absent = [each.verdict is Verdict.UNSUPPORTED for each in (old, now)]
        if absent[0] is absent[1] or claims(old) or claims(now):
            pairs.append((old, now))
        else:
            (missing if absent[1] else added).append(old if absent[1] else now)
    renamed, gone, come = _renames(missing, added, base.records, new.records)
    return Matching(
        tuple(pairs),
        tuple(each for each in missing if on_grid(each) and each.id not in gone),
        tuple(each for each in added if on_grid(each) and each.id not in come),
        tuple(renamed),
    )


def on_grid(record: Record) -> bool:
    """Whether it was asked for, as against visited by the bisection of a frontier."""
    return not record.get("refined")


def claims(record: Record) -> bool:
    """Whether its path promised anything."""
    return record.get("claimed") is True


_AXES = ("operation", "path", "regime")


def _renames(
    missing: list[Record],
    added: list[Record],
    before: tuple[Record, ...],
    after: tuple[Record, ...],
) -> tuple[list[Rename], set[str], set[str]]:
    """Names that vanished altogether while another appeared, with the same cases and verdicts.

    Conservative: every case on the grid must agree in its verdict and, where only a path was
    renamed and the inputs are therefore the same, in its numbers; several cases must have run; and
    one name must fit one other. All else stays missing and new.
    """
    renamed: list[Rename] = []
    gone: set[str] = set()
    come: set[str] = set()
    for axis in _AXES:
        old_names = _vanished(axis, missing, after)
        new_names = _vanished(axis, added, before)
        fits = [
            (first, second)
            for first, old in old_names.items()
            for second, now in new_names.items()
            if first[0] == second[0] and _alike(axis, old, now)
        ]
        for first, second in fits:
            rivals = [each for each in fits if (each[0] == first) != (each[1] == second)]
            if rivals:
                continue
            renamed.append(Rename(axis, first[1], second[1], len(old_names[first])))
            gone |= {each.id for each in old_names[first]}
            come |= {each.id for each in new_names[second]}
    return renamed, gone, come


def _vanished(
    axis: str, candidates: list[Record], other: tuple[Record, ...]
) -> dict[tuple[str, str], list[Record]]:
    """(scope, name) -> its cases on the grid, for names that the other run lacks altogether."""
    if not candidates:
        return {}
    present = {_name(axis, record) for record in other}
    found: dict[tuple[str, str], list[Record]] = {}
    for record in candidates:
        name = _name(axis, record)
        if record.suite in ("stability", "speed") and name not in present and on_grid(record):
            found.setdefault(name, []).append(record)
    return found


def _name(axis: str, record: Record) -> tuple[str, str]:
    """A path and a regime belong to an operation; an operation stands for itself."""
    if axis == "operation":
        return "", record.operation
    return record.operation, record.path if axis == "path" else str(record.get("regime"))


def _alike(axis: str, old: list[Record], now: list[Record]) -> bool:
    first = {_key(axis, each): each for each in old}
    second = {_key(axis, each): each for each in now}
    if first.keys() != second.keys() or len(first) < _LEAST_RENAMED:
        return False
    numbers = ("max_ulp", "bad", "first_bad") if axis == "path" else ()
    same = all(
        first[key].verdict is second[key].verdict
        and all(first[key].get(name) == second[key].get(name) for name in numbers)
        for key in first
    )
    return same and any(not each.verdict.is_fault for each in old)


def _key(axis: str, record: Record) -> tuple[str, ...]:
    """All that makes the case this one, but for the name in question."""
    names = {
        "operation": record.operation,
        "path": record.path,
        "regime": str(record.get("regime")),
    }
    del names[axis]
    rest = (record.get(name) for name in ("magnitude", "shape", "pass", "options"))
    return (record.suite, record.dtype, *names.values(), *map(repr, rest))
