"""What the page's script knows: each row's layouts of the input, and how a case is run again.

It is compact, since a full run has thousands of layouts; and only what is not right has magnitudes,
since only that is worth running again.
"""

import json
import shlex
from collections.abc import Iterable, Sequence
from math import log10
from typing import Any

from harness.case import decimal
from harness.record import Record, pass_of
from harness.render_common import bounds
from harness.report.heatmap import HeatMap
from harness.report.runs import Counts, Shown, Where, in_order, where_of
from harness.report.words import kind, limits
from harness.safe_text import printable
from harness.table import COLUMNS, Row, column_of
from harness.verdict import Verdict

# A layout takes about 130 bytes; these are 1.2 MB, so that the whole stays below 3. A full run has
# about 4,000.
MOST_LAYOUTS = 9_000

_Cell = tuple[Where, str, int]  # where, regime, column


def page_data(runs: Sequence[Shown], maps: Sequence[HeatMap]) -> dict[str, Any]:
    """The object that script.js reads; it describes the fields beside their use.

    `layouts` has for the key of each line of a heat map a list of `[regime, cells, magnitudes,
    errors, limits, wrong, cases, noted]`: magnitudes as text and errors in ULP are those of the
    cells that are not right, in order; `noted` says that the folded row leaves this layout to a
    note. `left_out` counts layouts that the page has no room for.
    """
    regimes = in_order(row.regime for shown in runs for row in shown.by_regime)
    lines = {(line.where, line.letter): line.key for each in maps for line in each.lines}
    layouts: dict[str, list[list[Any]]] = {}
    told = left_out = 0
    for shown in runs:
        noted = {(where_of(r), regime) for r in shown.folded for regime, *_ in r.wrong_at_one}
        worst = _worst(shown.of_suite("stability"))
        for row in shown.by_regime:
            key = lines.get((where_of(row), shown.letter))
            if key is None or set(row.counts) == {Verdict.UNSUPPORTED}:
                continue
            if told >= MOST_LAYOUTS:
                left_out += 1
                continue
            told += 1
            aside = (where_of(row), row.regime) in noted
            found = [regimes.index(row.regime), *_layout(row, worst, shown.counts), int(aside)]
            layouts.setdefault(key, []).append(found)
    return {
        "columns": list(COLUMNS),
        "limits": {dtype: limits(dtype) for dtype in ("fp16", "bf16", "fp32", "fp64")},
        "verdicts": {v.glyph: [v.word, v.meaning, v.next_step, kind(v)] for v in Verdict},
        "regimes": [printable(regime) for regime in regimes],
        "runs": {shown.letter: _ending(shown) for shown in runs},
        "layouts": layouts,
        "left_out": left_out,
        # Quoted here, so that the script only joins words: a name is one argument of a shell.
        "words": {
            "regimes": [shlex.quote(regime) for regime in regimes],
            "lines": {key: _beginning(where) for (where, _), key in lines.items()},
        },
    }


def as_script(data: dict[str, Any]) -> str:
    """JSON that may stand in a script element: no text in it can end the element or begin a tag."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _beginning(where: Where) -> list[str]:
    """The words of `stability run` for a line: those before the regime, those after it."""
    operation, pass_, path, dtype = where
    words = ["stability", "run", "--operation", operation, "--path", path, "--dtype", dtype]
    return [shlex.join(words), f"--pass {pass_}"]


def _ending(shown: Shown) -> list[str]:
    """A run's label, and the words that its commands end with."""
    words = ["--seed", str(shown.seed)]
    words += [] if shown.catalog is None else ["--catalog", shown.catalog]
    return [printable(shown.label), shlex.join(words)]


def _layout(row: Row, worst: dict[_Cell, Record], counts: Counts) -> list[Any]:
    """Cells, magnitudes, errors, limits, wrong, cases of one layout."""
    where = where_of(row)
    told = [
        worst[where, row.regime, place]
        for place, cell in enumerate(row.cells)
        if cell is not None and not cell.is_accurate
    ]
    return [
        "".join(" " if cell is None else cell.glyph for cell in row.cells).rstrip(),
        [decimal(record["magnitude"]) for record in told],
        [_error(record) for record in told],
        "|".join(bounds(row)),
        *counts.get(where, {}).get(row.regime, (0, 0)),
    ]


def _error(record: Record) -> str | int:
    error = record.get("max_ulp") if record.verdict is Verdict.INACCURATE else None
    return f"{error:.2g}" if error else 0


def _worst(records: Iterable[Record]) -> dict[_Cell, Record]:
    """Of each cell the case to run again: the worst verdict, of these the magnitude nearest 1."""
    found: dict[_Cell, Record] = {}
    for record in records:
        if record.verdict.is_accurate:
            continue
        place = column_of(record["magnitude"], record.dtype)
        if place is None:
            continue
        where = (record.operation, pass_of(record), record.path, record.dtype)
        cell = (where, str(record["regime"]), place)
        known = found.get(cell)
        if known is None or _order(record) < _order(known):
            found[cell] = record
    return found


def _order(record: Record) -> tuple[int, float]:
    return record.verdict.precedence, abs(log10(record["magnitude"]))
