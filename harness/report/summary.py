"""The page's first screen: what broke, what holds, what it costs, and how runs differ."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log10
from statistics import median

from harness.atlas import Break, Entry, Kind, Origin, Place, reproduce
from harness.case import decimal
from harness.record import Record
from harness.report.runs import Shown, in_order
from harness.report.words import kind, many, short
from harness.unmeasured import dtype_order
from harness.verdict import Verdict

MOST_BROKEN = 12  # cases of broken claims told one by one
MOST_PRICES = 400  # rows of the price of safety
_ORIGINS = {
    Origin.CLAIMED: "with claims",
    Origin.SHIPPED: "from libraries",
    Origin.FORMULA: "formulas",
}


@dataclass(frozen=True, slots=True)
class Tally:
    """The cases of one origin of paths in one run."""

    letter: str
    origin: str
    paths: int
    worst: tuple[int, ...]  # how many paths break worst in each Kind
    holding: tuple[str, ...]  # operation/path without a single wrong case
    partly: tuple[str, ...]  # of the others, with a dtype in which they have none
    wrong: int
    cases: int


@dataclass(frozen=True, slots=True)
class Mark:
    """What became of a path in one dtype: a glyph, where it begins, and how to see it again."""

    kind: str  # class of its cell
    glyph: str
    text: str
    told: str  # in a sentence
    command: str
    order: float  # to sort by: what breaks nearest to 1 first


@dataclass(frozen=True, slots=True)
class Fate:
    """A line of the overview: a path of a run, and a mark a dtype."""

    operation: str
    path: str
    package: str
    origin: str
    letter: str
    marks: tuple[Mark | None, ...]  # one for each dtype of the overview; None: not measured
    wrong: int
    cases: int
    kinds: str


@dataclass(frozen=True, slots=True)
class BrokenClaim:
    """A case that a path promised to get right."""

    letter: str
    id: str
    verdict: Verdict
    claims: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A later run against the first: cases that both have."""

    letter: str
    common: int
    worse: tuple[str, ...]  # ids right in the first and not in the later, the first few
    worse_count: int
    better_count: int
    only_here: int
    missing: int


def tallies(runs: Sequence[Shown]) -> list[Tally]:
    """For each run and origin how many paths break, and how many cases."""
    return [
        _tally(shown, words, shown.atlas.entries[origin])
        for shown in runs
        for origin, words in _ORIGINS.items()
        if shown.atlas.entries[origin]
    ]


def _tally(shown: Shown, origin: str, entries: Sequence[Entry]) -> Tally:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(f"{entry.operation}/{entry.path}", []).append(entry)
    worst = dict.fromkeys(Kind, 0)
    holding, partly = [], []
    for name, mine in groups.items():
        sound = [entry.dtype for entry in mine if not entry.wrong]
        if len(sound) == len(mine):
            holding.append(name)
            continue
        partly += [f"{name} ({', '.join(sound)})"] if sound else []
        # Wrong cases without a break lie between ones that hold: an unlucky rounding.
        kinds = [each.kind for entry in mine for each in entry.breaks] or [Kind.INACCURATE]
        worst[min(kinds, key=list(Kind).index)] += 1
    return Tally(
        shown.letter,
        origin,
        len(groups),
        tuple(worst.values()),
        tuple(holding),
        tuple(partly),
        sum(entry.wrong for entry in entries),
        sum(entry.cases for entry in entries),
    )


def broken_claims(runs: Sequence[Shown]) -> tuple[list[BrokenClaim], int]:
    """The first cases that break a claim, and how many do."""
    every = [
        BrokenClaim(shown.letter, record.id, record.verdict, ", ".join(map(str, claims)))
        for shown in runs
        for record in shown.run.records
        if isinstance(claims := record.get("broken"), list) and claims
    ]
    return every[:MOST_BROKEN], len(every)


def dtypes_of(runs: Sequence[Shown]) -> list[str]:
    """The dtypes of the overview's columns."""
    names = {e.dtype for shown in runs for every in shown.atlas.entries.values() for e in every}
    return sorted(names, key=dtype_order)


def fates(runs: Sequence[Shown], dtypes: Sequence[str]) -> list[Fate]:
    """A line for each operation, path and run, in the order of the tables."""
    found: dict[tuple[str, str], list[Fate]] = {}
    for shown in runs:
        for origin, words in _ORIGINS.items():
            groups: dict[tuple[str, str], list[Entry]] = {}
            for entry in shown.atlas.entries[origin]:
                groups.setdefault((entry.operation, entry.path), []).append(entry)
            for key, entries in groups.items():
                found.setdefault(key, []).append(_fate(shown, words, entries, dtypes))
    operations = in_order(row.operation for shown in runs for row in shown.folded)
    order = in_order(f"{r.operation}/{r.path}" for shown in runs for r in shown.folded)
    every = sorted(
        found, key=lambda key: (operations.index(key[0]), order.index(f"{key[0]}/{key[1]}"))
    )
    return [fate for key in every for fate in found[key]]


def _fate(shown: Shown, origin: str, entries: Sequence[Entry], dtypes: Sequence[str]) -> Fate:
    by_dtype = {entry.dtype: entry for entry in entries}
    marks = tuple(_mark(by_dtype[dtype], shown) if dtype in by_dtype else None for dtype in dtypes)
    first = entries[0]
    kinds = "".join(sorted({mark.kind for mark in marks if mark}))
    package = shown.atlas.packages.get((first.operation, first.path), "")
    wrong, cases = sum(e.wrong for e in entries), sum(e.cases for e in entries)
    where = (first.operation, first.path, package, origin, shown.letter)
    return Fate(*where, marks, wrong, cases, kinds)


def _mark(entry: Entry, shown: Shown) -> Mark:
    if not entry.breaks:
        if not entry.wrong:
            text = f"right in all {many(entry.cases, 'case')}"
            return Mark("k", Verdict.OK.glyph, "holds", text, "", 1e9)
        text = f"{entry.wrong} of {many(entry.cases, 'case')} wrong, between ones that hold"
        return Mark("a", Verdict.INACCURATE.glyph, "strays", text, "", 1e8)
    # At 1 and on zeros some odd layout is to blame; where else a path breaks says more of it.
    severity = min(map(_severity, entry.breaks))
    gravest = [each for each in entry.breaks if _severity(each) == severity]
    inside = [each for each in gravest if each.place in (Place.AT_ONE, Place.AT_ZERO)]
    worst = min([each for each in gravest if each not in inside] or inside, key=_distance)
    record = worst.record
    told = f"{record.verdict.word} {_place(worst, decimal)} in layout {record['regime']}"
    if worst.until is not None:
        told += f"; the last that holds is {decimal(worst.until)}"
    also = [each for each in inside if each is not worst]
    told += "".join(f"; also {_place(e, decimal)} in layout {e.record['regime']}" for e in also)
    return Mark(
        kind(record.verdict),
        record.verdict.glyph,
        _place(worst, short) + (" *" if also else ""),
        told,
        reproduce(worst, shown.run),
        severity * 1e4 + _distance(worst),
    )


def _severity(found: Break) -> int:
    return list(Kind).index(found.kind)


def _distance(found: Break) -> float:
    """Decades from magnitude 1."""
    value = found.record["magnitude"]
    return abs(log10(value)) if value > 0 else 0.0


def _place(found: Break, write: Callable[[float], str]) -> str:
    value = write(found.record["magnitude"])
    words = {
        Place.UP: f"from {value} up",
        Place.DOWN: f"from {value} down",
        Place.AT_ONE: "at 1 already",
        Place.AT_ZERO: "on zeros",
    }
    return words[found.place]


def differences(runs: Sequence[Shown]) -> list[Difference]:
    """Each later run against the first, case by case of the stability suite."""
    first = _by_id(runs[0])
    found = []
    for shown in runs[1:]:
        now = _by_id(shown)
        common = [name for name in first if name in now]
        worse = [n for n in common if _holds(first[n]) and not _holds(now[n])]
        better = sum(_holds(now[name]) and not _holds(first[name]) for name in common)
        found.append(
            Difference(
                shown.letter,
                len(common),
                tuple(f"{name}: {now[name].verdict.word}" for name in worse[:MOST_BROKEN]),
                len(worse),
                better,
                len(now) - len(common),
                len(first) - len(common),
            )
        )
    return found


def _by_id(shown: Shown) -> dict[str, Record]:
    return {record.id: record for record in shown.of_suite("stability")}


def _holds(record: Record) -> bool:
    return record.verdict.is_accurate


@dataclass(frozen=True, slots=True)
class Price:
    """The price of safety: the time of a path with claims over the naive path's, same inputs."""

    letter: str
    operation: str
    path: str
    dtype: str
    middle: float  # median over shapes, passes and magnitudes
    least: float
    most: float
    rows: int


def prices(runs: Sequence[Shown]) -> list[Price]:
    """From CUDA timings alone, of the paths with claims."""
    return list(_prices(runs))


def _prices(runs: Sequence[Shown]) -> Iterator[Price]:
    for shown in runs:
        groups: dict[tuple[str, str, str], list[float]] = {}
        for record in shown.of_suite("speed"):
            price = record.get("price_of_safety")
            ours = record.get("claimed") is True and record.get("timer") == "cuda"
            if ours and isinstance(price, (int, float)) and price > 0:
                key = (record.operation, record.path, record.dtype)
                groups.setdefault(key, []).append(float(price))
        for (operation, path, dtype), every in groups.items():
            middle = median(every)
            where = (shown.letter, operation, path, dtype)
            yield Price(*where, middle, min(every), max(every), len(every))
