"""Heat maps: for each operation and pass the paths by dtype, a cell some decades of magnitude.

A line folds all layouts of the input into their worst verdict; what each layout says stands in the
page's data (details.py), from where it is shown when asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.case import PASSES
from harness.render_common import bounds
from harness.report.runs import Shown, Where, in_order, where_of
from harness.report.words import kind
from harness.table import Row
from harness.unmeasured import dtype_order
from harness.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a heat map: a path in a dtype, of one run."""

    key: str  # names it in the page's data
    where: Where
    letter: str
    cells: tuple[tuple[str, str], ...]  # (class, glyph), one for each of COLUMNS
    limits: tuple[str, ...]  # finite from, finite to, accurate from, accurate to
    wrong: int  # cases, of all layouts: those that a note tells as well
    cases: int  # measured ones
    kinds: str  # classes among its cells, as a filter asks for them
    differs: bool  # from the same row of another run

    @property
    def path(self) -> str:
        return self.where[2]

    @property
    def dtype(self) -> str:
        return self.where[3]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """An operation and pass: its lines by dtype, and what has no line."""

    operation: str
    pass_: str
    blocks: tuple[tuple[str, tuple[Line, ...]], ...]  # (dtype, lines)
    absent: tuple[str, ...]  # what no run could measure: a library that is not installed
    notes: tuple[tuple[str, tuple[str, ...]], ...]  # (layout, who is wrong in it at 1 already)

    @property
    def lines(self) -> list[Line]:
        return [line for _, lines in self.blocks for line in lines]


def heat_maps(runs: Sequence[Shown]) -> list[HeatMap]:
    """The heat maps of all runs, the same row of each run below the other."""
    rows: dict[Where, list[tuple[Shown, Row]]] = {}
    for shown in runs:
        for row in shown.folded:
            rows.setdefault(where_of(row), []).append((shown, row))
    maps: list[HeatMap] = []
    for operation in in_order(where[0] for where in rows):
        for pass_ in PASSES:
            mine = {where: rows[where] for where in rows if where[:2] == (operation, pass_)}
            if mine:
                maps.append(_map(operation, pass_, mine, len(maps), len(runs)))
    return maps


def _map(
    operation: str,
    pass_: str,
    rows: dict[Where, list[tuple[Shown, Row]]],
    place: int,  # of the map on the page
    many: int,  # runs
) -> HeatMap:
    blocks: dict[str, list[Line]] = {}
    absent: dict[str, list[str]] = {}
    for number, (where, versions) in enumerate(rows.items()):
        path, dtype = where[2:]
        if all(set(row.counts) == {Verdict.UNSUPPORTED} for _, row in versions):
            absent.setdefault(path, []).append(dtype)
            continue
        told = {(row.cells, tuple(bounds(row))) for _, row in versions}
        differs = len(told) > 1 or len(versions) < many
        blocks.setdefault(dtype, []).extend(
            _line(f"{place}.{number}{shown.letter}", shown, row, differs=differs)
            for shown, row in versions
        )
    return HeatMap(
        operation,
        pass_,
        tuple((dtype, tuple(blocks[dtype])) for dtype in sorted(blocks, key=dtype_order)),
        tuple(f"{path} ({', '.join(dtypes)})" for path, dtypes in absent.items()),
        _notes(rows),
    )


def _line(key: str, shown: Shown, row: Row, *, differs: bool) -> Line:
    cells = tuple((kind(cell), "" if cell is None else cell.glyph) for cell in row.cells)
    kinds = "".join(sorted({kind(verdict) for verdict in row.counts}))
    limits = tuple(bounds(row))
    where = where_of(row)
    counts = shown.counts.get(where, {}).values()
    wrong, cases = (sum(each[k] for each in counts) for k in (0, 1))
    return Line(key, where, shown.letter, cells, limits, wrong, cases, kinds, differs)


def _notes(
    rows: dict[Where, list[tuple[Shown, Row]]],
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Of the rows' notes: each layout, and who is wrong in it at magnitude 1 already."""
    found: dict[str, list[str]] = {}
    for where, versions in rows.items():
        for shown, row in versions:
            of = f" {shown.letter}" if len(versions) > 1 else ""
            for regime, verdict, error in row.wrong_at_one:
                by = f" by {error:.2g} ulp" if verdict is Verdict.INACCURATE and error else ""
                told = f"{where[2]} {where[3]}{of} {verdict.word}{by}"
                found.setdefault(regime, []).append(told)
    return tuple((regime, tuple(told)) for regime, told in found.items())
