"""A run's table for other programs: CSV, JSON and Markdown (text for people is render_text)."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from harness.render_common import blocks, bounds, heading, markdown_title, wrong_at_one_notes
from harness.safe_text import markdown
from harness.search import Frontier
from harness.store import Run
from harness.table import COLUMNS, Row, table_rows
from harness.verdict import Verdict


def rows_for(run: Run, form: str, *, by_regime: bool) -> list[Row]:
    """The rows that a format shows: people get regimes folded together, programs each."""
    return table_rows(
        run.records,
        by_regime=by_regime or form in ("csv", "json"),
        catalog=run.environment.get("catalog"),
    )


def to_markdown(run: Run, rows: Sequence[Row]) -> str:
    """Tables that GitHub draws: the strip of glyphs in a code span, the frontiers as columns."""
    lines = [markdown_title(run), ""]
    for block in blocks(rows):
        lines += [
            f"**{markdown(heading(block[0]))}**",
            "",
            f"| path | dtype | `{COLUMNS[0]} … {COLUMNS[-1]}` (powers of ten) "
            "| finite from | finite to | accurate from | accurate to |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in block:
            # Code spans lose spaces at their ends, so that "no case" is drawn.
            strip = "".join("·" if cell is None else cell.glyph for cell in row.cells)
            name = f"{markdown(row.path)} | {markdown(row.dtype)}"
            lines.append(f"| {name} | `{strip}` | {' | '.join(bounds(row))} |")
        notes = [f"- {note}" for note in wrong_at_one_notes(block, markdown)]
        lines += ["", *notes, *([""] if notes else [])]
    lines += [
        f"Columns begin at 10 to the power of {', '.join(map(str, COLUMNS))}; a cell shows the",
        "worst verdict in its decades, `·` no case. Numbers are the last float that holds, going",
        "outwards from 1; `min`, `max`: holds to that end of the dtype.",
        "",
    ]
    seen = {verdict for row in rows for verdict in row.counts}
    lines += [
        f"- `{verdict.glyph}` **{verdict.word}**: {verdict.meaning} {verdict.next_step}"
        for verdict in sorted(seen, key=lambda each: each.precedence)
    ]
    return "\n".join(lines) + "\n"


def to_csv(rows: Sequence[Row]) -> str:
    """One line a row of the table; an empty field where there is no limit."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_flat(_EMPTY))
    for row in rows:
        writer.writerow(["" if value is None else value for value in _flat(row).values()])
    return out.getvalue()


def to_json(run: Run, rows: Sequence[Row], **more: Any) -> str:
    """One JSON document: the run's environment, the rows with their cells, the verdicts seen; and
    what other suites add to it.
    """
    seen = {verdict for row in rows for verdict in row.counts}
    document = {
        "schema": 1,
        "run": run.environment,
        "complete": run.complete,
        "problems": list(run.problems),
        "columns": list(COLUMNS),
        "rows": [
            _flat(row)
            | {
                "cells": [None if cell is None else cell.word for cell in row.cells],
                "verdicts": {verdict.word: count for verdict, count in row.counts.items()},
            }
            for row in rows
        ],
        "verdicts": {
            verdict.word: {
                "glyph": verdict.glyph,
                "meaning": verdict.meaning,
                "next_step": verdict.next_step,
            }
            for verdict in sorted(seen, key=lambda each: each.precedence)
        },
        **more,
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


_NOWHERE = Frontier(None, None, None, None, Verdict.OK)
_EMPTY = Row("", "forward", "", "", "", (), _NOWHERE, _NOWHERE)  # for the names of the columns


def _flat(row: Row) -> dict[str, Any]:
    return {
        "operation": row.operation,
        "pass": row.pass_,
        "path": row.path,
        "dtype": row.dtype,
        "regime": row.regime,
        **_frontier_fields("high", row.high),
        **_frontier_fields("low", row.low),
        "cases": sum(row.counts.values()),
        "wrong": sum(n for verdict, n in row.counts.items() if not verdict.is_accurate),
    }


def _frontier_fields(side: str, frontier: Frontier) -> dict[str, Any]:
    return {
        f"{side}_finite_until": frontier.finite_until,
        f"{side}_nonfinite_from": frontier.nonfinite_from,
        f"{side}_accurate_until": frontier.accurate_until,
        f"{side}_inaccurate_from": frontier.inaccurate_from,
        f"{side}_verdict": frontier.verdict.word,
    }
