"""Station seven: a run as a table: a row a path and dtype, a column some decades, frontiers."""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache

from harness.case import PASSES, Pass
from harness.formats import FORMATS
from harness.record import Record, judgement_of, pass_of
from harness.search import Frontier, measured_frontier
from harness.verdict import Verdict

# Powers of ten at which a column begins; it reaches to the next one. Chosen so that each format's
# limits start a column (fp16 ends in the one of 4, bf16 and fp32 in the one of 38) and that 80
# characters hold a row.
COLUMNS = (
    *(-324, -300, -100, -45, -38, -20, -10, -8, -6, -5, -4, -3, -2, -1),
    *(0, 1, 2, 3, 4, 5, 8, 10, 20, 38, 100, 300),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row: a path in a dtype, over one regime or over all of them (`regime` is then "all").

    Cells hold, for each of COLUMNS, the worst verdict among the cases there, None for no case.
    Over several regimes the frontiers are the tightest of any regime. A regime that is wrong
    already at magnitude 1 would drown the others: if few are, they stand in `wrong_at_one` and
    show in no cell. Regimes that a path does not take at all are left out of such a row.
    """

    operation: str
    pass_: Pass
    path: str
    dtype: str
    regime: str
    cells: tuple[Verdict | None, ...]
    high: Frontier
    low: Frontier
    counts: dict[Verdict, int] = field(default_factory=dict)
    wrong_at_one: tuple[tuple[str, Verdict, float | None], ...] = ()  # (regime, verdict, max ulp)


def table_rows(records: Iterable[Record], *, by_regime: bool, catalog: object = None) -> list[Row]:
    """The rows of a run, in the order of the catalog that run.json names (else by name)."""
    groups: dict[tuple[str, Pass, str, str], dict[str, list[Record]]] = {}
    for record in records:
        if record.suite != "stability":
            continue
        where = (record.operation, pass_of(record), record.path, record.dtype)
        groups.setdefault(where, {}).setdefault(record["regime"], []).append(record)
    rows = []
    for (operation, pass_, path, dtype), every in groups.items():
        key = (operation, pass_, path, dtype)
        if by_regime:
            rows += [_row(key, name, [group]) for name, group in every.items()]
            continue
        # A regime whose options a path does not take says nothing about the others.
        regimes = {name: group for name, group in every.items() if _is_supported(group)} or every
        wrong = _few_wrong_at_one(regimes)
        whole = _row(key, "all", list(regimes.values()))
        left = [group for name, group in regimes.items() if name not in wrong]
        if wrong:
            part = _row(key, "all", left)
            notes = tuple((name, *found) for name, found in wrong.items())
            whole = replace(part, counts=whole.counts, wrong_at_one=notes)
        rows.append(whole)
    return sorted(rows, key=_order(catalog))


def _is_supported(group: list[Record]) -> bool:
    return any(record.verdict is not Verdict.UNSUPPORTED for record in group)


def _few_wrong_at_one(
    regimes: dict[str, list[Record]],
) -> dict[str, tuple[Verdict, float | None]]:
    """The regimes to tell in a note: those not finite at 1, then those inaccurate there, if few.

    A path that is wrong in more than a third of them is shown as such, not excused in a note.
    """
    wrong = {name: found for name, group in regimes.items() if (found := _wrong_at_one(group))}
    told: dict[str, tuple[Verdict, float | None]] = {}
    for finite in (False, True):
        alike = {n: found for n, found in wrong.items() if found[0].is_finite_enough is finite}
        if 3 * len(alike) <= len(regimes):
            told |= alike
    return told


def _wrong_at_one(group: list[Record]) -> tuple[Verdict, float | None] | None:
    for record in group:
        if record["magnitude"] == 1.0 and not record.verdict.is_accurate:
            fair = record.get("representable", True)
            return (record.verdict, record.get("max_ulp")) if fair else None
    return None


@dataclass(frozen=True, slots=True)
class _Order:
    """Sorts rows for reading: operation, pass, regime, path, dtype, each as the catalog has it."""

    names: dict[str, dict[str, int]]  # "operations", "regimes", "paths" -> name -> place

    def __call__(self, row: Row) -> tuple[int | str, ...]:
        key: list[int | str] = []
        for kind, name in (
            ("operations", row.operation),
            ("pass", row.pass_),
            ("regimes", row.regime),
            ("paths", f"{row.operation}/{row.path}"),
            ("dtype", row.dtype),
        ):
            places = self.names.get(kind, {})
            key += [places.get(name, len(places)), name]  # unknown names last, alphabetically
        return tuple(key)


def _order(catalog: object) -> _Order:
    named = catalog if isinstance(catalog, dict) else {}
    lists = {kind: named.get(kind) for kind in ("operations", "regimes", "paths")}
    lists |= {"pass": list(PASSES), "dtype": list(FORMATS)}
    return _Order(
        {
            kind: {str(name): place for place, name in enumerate(names)}
            for kind, names in lists.items()
            if isinstance(names, list)
        }
    )


def _row(key: tuple[str, Pass, str, str], regime: str, groups: list[list[Record]]) -> Row:
    every = [record for group in groups for record in group]
    counts: dict[Verdict, int] = {}
    for record in every:
        counts[record.verdict] = counts.get(record.verdict, 0) + 1
    operation, pass_, path, dtype = key
    return Row(
        operation,
        pass_,
        path,
        dtype,
        regime,
        cells_of(every),
        _tightest([_frontier(group, "high") for group in groups], "high"),
        _tightest([_frontier(group, "low") for group in groups], "low"),
        dict(sorted(counts.items(), key=lambda item: item[0].precedence)),
    )


def cells_of(records: Iterable[Record]) -> tuple[Verdict | None, ...]:
    """The worst verdict in each column; a magnitude of zero belongs to none."""
    cells: list[Verdict | None] = [None] * len(COLUMNS)
    for record in records:
        place = column_of(record["magnitude"], record.dtype)
        if place is not None and cells[place] is not record.verdict:
            cells[place] = _worse(cells[place], record.verdict)
    return tuple(cells)


def column_of(magnitude: float, dtype: str) -> int | None:
    """The place among COLUMNS of a magnitude; None for zero, and below the first."""
    place = bisect_right(_starts(dtype), magnitude) - 1
    return place if place >= 0 and magnitude > 0 else None


@cache
def _starts(dtype: str) -> list[float]:
    """Where each column begins in a format, ascending: at its power of ten as the format rounds it.

    0.1 is 0.09998 in fp16, and has its place in the column of 0.1 all the same.
    """
    fmt = FORMATS.get(dtype, FORMATS["fp64"])
    powers = (float(f"1e{exponent}") for exponent in COLUMNS)
    return [fmt.round(power) for power in powers if power <= fmt.largest]


def _worse(first: Verdict | None, second: Verdict) -> Verdict:
    """As precedence, except that what is nobody's fault never hides what is somebody's."""
    if first is None:
        return second
    return min(first, second, key=lambda each: (each.is_accurate, each.precedence))


def _frontier(records: list[Record], side: str) -> Frontier:
    points = {record["magnitude"]: judgement_of(record) for record in records}
    points.pop(0.0, None)  # a regime without magnitudes has no frontier
    return measured_frontier(
        list(points), list(points.values()), side="high" if side == "high" else "low"
    )


def _tightest(frontiers: list[Frontier], side: str) -> Frontier:
    """The failures nearest to 1, finiteness and accuracy each with its own neighbours."""
    nearness = 1.0 if side == "high" else -1.0

    def nearest(get: Callable[[Frontier], float | None]) -> Frontier | None:
        failing = [each for each in frontiers if get(each) is not None]
        return min(failing, key=lambda each: nearness * (get(each) or 0.0), default=None)

    finite = nearest(lambda each: each.nonfinite_from)
    accurate = nearest(lambda each: each.inaccurate_from)
    decisive = finite or accurate
    return Frontier(
        finite.finite_until if finite else None,
        finite.nonfinite_from if finite else None,
        accurate.accurate_until if accurate else None,
        accurate.inaccurate_from if accurate else None,
        decisive.verdict if decisive else Verdict.OK,
    )
