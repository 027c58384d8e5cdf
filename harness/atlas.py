"""Where every path of a run breaks, as facts: what `stability atlas` writes down in Markdown.

For each operation, path and dtype the failures nearest to magnitude 1, upwards and downwards, and
those at 1 and at 0 themselves: where the path stops being finite, where it loses the answer (a zero
for a number, a number for a NaN), and where it stops being accurate.
"""

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from harness.case import Pass
from harness.catalog import DEFAULT
from harness.failures import reproduction
from harness.formats import FORMATS
from harness.judgement import Judgement
from harness.record import Record, judgement_of, pass_of
from harness.search import bracket, is_accurate, is_finite, outward
from harness.store import Run
from harness.table import Row, table_rows
from harness.unmeasured import Unmeasured, dtype_order, is_measured, unmeasured
from harness.verdict import Verdict

_Key = tuple[str, str, str]  # operation, path, dtype


class Kind(Enum):
    """How something breaks, the worst first; where two begin at one magnitude, that one is told."""

    NOT_FINITE = "not finite"  # or no answer at all
    LOST = "lost"
    INACCURATE = "inaccurate"


_LOST = (Verdict.UNDERFLOW, Verdict.MASKED_NONFINITE)
# What holds until a break of each kind.
_HOLDS: dict[Kind, Callable[[Judgement], bool]] = {
    Kind.NOT_FINITE: is_finite,
    Kind.LOST: lambda judgement: judgement.verdict not in _LOST,
    Kind.INACCURATE: is_accurate,
}


class Place(Enum):
    """Where on the magnitude axis something breaks; members stand in the order of the tables."""

    AT_ZERO = "at 0"  # regimes that a magnitude cannot change
    AT_ONE = "at 1"  # where the search starts: the layout itself is too much
    UP = "up"
    DOWN = "down"


class Origin(Enum):
    """Who wrote a path."""

    SHIPPED = "shipped"  # torch's own, a library's
    FORMULA = "formula"  # what people write themselves
    CLAIMED = "claimed"  # a path with claims: ours


@dataclass(frozen=True, slots=True)
class Break:
    """One way in which a path breaks in a dtype: the nearest case, and where else it does so."""

    kind: Kind
    place: Place
    until: float | None  # the last magnitude that holds, None where the first one fails
    record: Record  # the first case that does not hold
    also: tuple[str, ...] = ()  # other regimes (and passes) with a break of this kind and place


@dataclass(frozen=True, slots=True)
class Entry:
    """A path in one dtype."""

    operation: str
    path: str
    dtype: str
    cases: int  # measured ones
    wrong: int
    worst_ulp: float | None  # largest finite error of a case that is inaccurate
    breaks: tuple[Break, ...]


@dataclass(frozen=True, slots=True)
class Atlas:
    """Everything the tables show, in their order."""

    entries: dict[Origin, tuple[Entry, ...]]
    unmeasured: tuple[Unmeasured, ...]
    packages: dict[tuple[str, str], str] = field(default_factory=dict)  # (operation, path) -> name


def survey(run: Run) -> Atlas:
    """Read the breaks off a run's records; nothing is measured."""
    records = [record for record in run.records if record.suite == "stability"]
    rows = table_rows(records, by_regime=True, catalog=run.environment.get("catalog"))
    found = _candidates(rows, records)
    by_path: dict[tuple[str, str], list[Record]] = {(r.operation, r.path): [] for r in rows}
    for record in records:
        by_path[record.operation, record.path].append(record)
    entries: dict[Origin, list[Entry]] = {origin: [] for origin in Origin}
    packages: dict[tuple[str, str], str] = {}
    for (operation, path), mine in by_path.items():
        origin = Origin.CLAIMED if any(r.get("claimed") is True for r in mine) else Origin.FORMULA
        package = _package(run, operation, path)
        if package and origin is Origin.FORMULA:
            origin, packages[operation, path] = Origin.SHIPPED, package
        groups: dict[str, list[Record]] = {}
        for record in mine:
            if is_measured(record):
                groups.setdefault(record.dtype, []).append(record)
        entries[origin] += [
            Entry(
                operation,
                path,
                dtype,
                cases=len(groups[dtype]),
                wrong=sum(not record.verdict.is_accurate for record in groups[dtype]),
                worst_ulp=_worst(groups[dtype]),
                breaks=_nearest(found.get((operation, path, dtype), [])),
            )
            for dtype in sorted(groups, key=dtype_order)
        ]
    told = {origin: tuple(each) for origin, each in entries.items()}
    return Atlas(told, tuple(unmeasured(by_path)), packages)


def reproduce(found: Break, run: Run) -> str:
    """The line that shows a break again: the search if it found neighbours, else the one case."""
    record, environment = found.record, run.environment
    asked = environment.get("asked")
    named = asked.get("catalog") if isinstance(asked, dict) else None
    catalog = None if named in (None, DEFAULT) else str(named)
    seed = environment.get("seed", 0)
    names = [record.operation, record.path, record.dtype]
    searched = found.kind is not Kind.LOST and found.place in (Place.UP, Place.DOWN)
    if not (searched and _adjacent(found)) or any(name.startswith("-") for name in names):
        return reproduction(record, seed=seed, catalog=catalog)
    words = ["stability", "frontier", *names, "--regime", str(record["regime"])]
    words += ["--pass", pass_of(record)] if pass_of(record) != "forward" else []
    words += ["--side", "low"] if found.place is Place.DOWN else []
    words += ["--seed", str(seed)] if seed != 0 else []
    words += ["--catalog", catalog] if catalog is not None else []
    return shlex.join(words)


def _adjacent(found: Break) -> bool:
    """Whether the two are neighbours, as the search finds them; a quick run's are not."""
    fmt = FORMATS.get(found.record.dtype)
    if fmt is None or found.until is None:
        return False
    return abs(fmt.ordinal(found.until) - fmt.ordinal(found.record["magnitude"])) == 1


def _candidates(rows: Iterable[Row], records: Iterable[Record]) -> dict[_Key, list[Break]]:
    """Every break of every regime and pass, in the table's order."""
    axes: dict[tuple[_Key, str, Pass], dict[float, Record]] = {}
    for record in records:
        if is_measured(record):
            axis = (_key(record), str(record["regime"]), pass_of(record))
            axes.setdefault(axis, {})[record["magnitude"]] = record
    found: dict[_Key, list[Break]] = {}
    for row in rows:
        key = (row.operation, row.path, row.dtype)
        along = axes.get((key, row.regime, row.pass_), {})
        found.setdefault(key, []).extend(_breaks(along))
    return found


def _breaks(along: dict[float, Record]) -> list[Break]:
    """The breaks of one regime and pass, given its cases by magnitude."""
    told: dict[tuple[float, Place], Break] = {}
    chosen = set()
    for kind, holds in _HOLDS.items():
        for place, points in (
            (Place.AT_ZERO, [each for each in along if each == 0.0]),
            (Place.UP, outward(list(along), "high")),
            (Place.DOWN, [each for each in outward(list(along), "low") if each > 0.0]),
        ):
            judgements = [judgement_of(along[each]) for each in points]
            until, beyond = bracket(points, judgements, holds)
            if beyond is None:
                continue
            at = Place.AT_ONE if beyond == 1.0 else place
            if (kind, at) not in chosen:
                chosen.add((kind, at))
                told.setdefault((beyond, at), Break(kind, at, until, along[beyond]))
    return list(told.values())


def _nearest(candidates: Sequence[Break]) -> tuple[Break, ...]:
    """Of each kind and place the break nearest to 1; the others are named in its `also`."""
    chosen = []
    for kind in Kind:
        for place in Place:
            alike = [each for each in candidates if each.kind is kind and each.place is place]
            if alike:
                down = place is Place.DOWN
                alike.sort(key=lambda each: float(each.record["magnitude"]), reverse=down)
                first = alike[0]
                others = [_regime(each.record) for each in alike if each is not first]
                chosen.append(replace(first, also=tuple(dict.fromkeys(others))))
    return tuple(chosen)


def _regime(record: Record) -> str:
    suffix = " backward" if pass_of(record) == "backward" else ""
    return f"{record['regime']}{suffix}"


def _key(record: Record) -> _Key:
    return record.operation, record.path, record.dtype


def _worst(records: Iterable[Record]) -> float | None:
    errors = [r.get("max_ulp") for r in records if r.verdict is Verdict.INACCURATE]
    return max((each for each in errors if each is not None), default=None)


def _package(run: Run, operation: str, path: str) -> str:
    """The distribution that ships a path: as the run says, else the one it is named after.

    Runs that do not say it: `torch`, `torch_bce` are torch's and `liger` is liger-kernel's. Empty
    if there is none.
    """
    told, versions = run.environment.get("packages"), run.environment.get("versions")
    said = told.get(f"{operation}/{path}") if isinstance(told, dict) else None
    if isinstance(said, str):
        return said
    plain = path.replace("_", "-")
    for name in sorted(map(str, versions), key=len) if isinstance(versions, dict) else ():
        if plain == name or name.startswith(f"{plain}-") or plain.startswith(f"{name}-"):
            return name
    return ""
