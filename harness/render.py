"""A run's table in words: text for 80 columns, Markdown, CSV and JSON."""

import csv
import io
import json
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from harness.search import Frontier
from harness.store import Run
from harness.table import COLUMNS, Row, table_rows
from harness.verdict import Verdict

FORMATS = ("text", "markdown", "csv", "json")

_NO_CASE = " "
_STYLES = {Verdict.OK: "green", Verdict.UNREPRESENTABLE: "cyan", Verdict.UNSUPPORTED: "dim"}
_WRONG, _BROKEN = "yellow", "bold red"  # finite but not right; not even finite
_NUMBER = 8  # characters of a frontier number, as 5.96e-08
_LEAD = 18  # characters before the strip: path (11), dtype (5), a space after each


def render(run: Run, rows: Sequence[Row], form: str) -> str:
    """The table in one of FORMATS, without colour."""
    if form == "json":
        return to_json(run, rows)
    if form == "csv":
        return to_csv(rows)
    if form == "markdown":
        return to_markdown(run, rows)
    out = io.StringIO()
    print_table(Console(file=out, width=200, color_system=None), run, rows)
    return out.getvalue()


def print_table(console: Console, run: Run, rows: Sequence[Row]) -> None:
    """The text form on a console, in colour where it has any; every line fits 80 characters."""

    def line(text: Text | str = "") -> None:
        # As Text a string from a file is neither markup nor terminal control.
        plain = text if isinstance(text, Text) else Text(text)
        console.print(plain, soft_wrap=True, highlight=False)

    line(_title(run))
    for block in _blocks(rows):
        first = block[0]
        regime = "" if first.regime == "all" else f", regime {first.regime}"
        line()
        line(Text(f"{first.operation}, {first.pass_}{regime}", style="bold"))
        for header in _headers():
            line(header)
        for row in block:
            line(_text_row(row))
        for note in _wrong_at_one(block):
            for part in textwrap.wrap(note, 78, initial_indent="  ", subsequent_indent="    "):
                line(part)
    line()
    for legend in _legend(rows):
        line(legend)
    for problem in run.problems:
        line(f"problem: {problem}")
    if not run.complete:
        line("This run is not complete: stability run --resume --out " + str(run.directory))


def _title(run: Run) -> str:
    environment = run.environment
    device = environment.get("device", {})
    versions = environment.get("versions", {})
    named = " ".join(f"{k} {versions[k]}" for k in ("torch", "triton") if k in versions)
    name = device.get("name", "unknown device") if isinstance(device, dict) else "unknown device"
    return f"{name} | {named} | seed {environment.get('seed', '?')} | {len(run.records)} cases"


def _blocks(rows: Sequence[Row]) -> list[list[Row]]:
    blocks: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        blocks.setdefault((row.operation, row.pass_, row.regime), []).append(row)
    return list(blocks.values())


def _headers() -> list[str]:
    """The powers of ten written downwards, and the names of the frontier columns."""
    marks = ["-" if exponent < 0 else "+" for exponent in COLUMNS]
    digits = [f"{abs(exponent):>3}" for exponent in COLUMNS]
    strips = ["".join(marks), *("".join(each[k] for each in digits) for k in range(3))]
    leads = ("", "", "from 10 to the", "path        dtype ")
    pair = 2 * _NUMBER + 1
    tails = ("", "", f" {'finite':^{pair}} {'accurate':^{pair}}", _bounds_header())
    parts = zip(leads, strips, tails, strict=True)
    return [f"{lead:<{_LEAD}}{strip}{tail}".rstrip() for lead, strip, tail in parts]


def _bounds_header() -> str:
    return "".join(f" {name:>{_NUMBER}}" for name in ("from", "to", "from", "to"))


def _text_row(row: Row) -> Text:
    text = Text(f"{row.path:<11.11} {row.dtype:<5} ")
    for cell in row.cells:
        if cell is None:
            text.append(_NO_CASE)
        else:
            text.append(cell.glyph, style=_style(cell))
    for value, end in _bounds(row):
        text.append(f" {value if value is not None else end:>{_NUMBER}}")
    return text


def _style(verdict: Verdict) -> str:
    return _STYLES.get(verdict, _WRONG if verdict.is_finite_enough else _BROKEN)


def _bounds(row: Row) -> list[tuple[str | None, str]]:
    """finite from, finite to, accurate from, accurate to: a number, or the word for no limit."""
    pairs = (
        (row.low.finite_until, row.low.nonfinite_from),
        (row.high.finite_until, row.high.nonfinite_from),
        (row.low.accurate_until, row.low.inaccurate_from),
        (row.high.accurate_until, row.high.inaccurate_from),
    )
    told: list[tuple[str | None, str]] = []
    for place, (until, beyond) in enumerate(pairs):
        if beyond is None:
            told.append((None, "min" if place % 2 == 0 else "max"))
        else:
            told.append((f"{until:.3g}" if until is not None else "none", ""))
    return told


def _legend(rows: Sequence[Row]) -> Iterable[Text]:
    seen: dict[Verdict, int] = {}
    for row in rows:
        for verdict, count in row.counts.items():
            seen[verdict] = seen.get(verdict, 0) + count
    yield Text("A cell shows the worst verdict in its decades; min, max: holds to that end.")
    yield Text("Numbers are the last float that holds, going outwards from 1.")
    for verdict in sorted(seen, key=lambda each: each.precedence):
        head = f"{verdict.glyph}  {verdict.word} ({seen[verdict]} cases)"
        yield Text(head, style=_style(verdict))
        yield from (Text("   " + part) for part in textwrap.wrap(verdict.meaning, 76))
        if verdict is not Verdict.OK:
            yield from (
                Text("   " + part) for part in textwrap.wrap("Next: " + verdict.next_step, 76)
            )


def _wrong_at_one(block: Sequence[Row]) -> list[str]:
    """One note a regime: the paths that are wrong there already at magnitude 1, and how."""
    found: dict[str, dict[tuple[str, str], list[str]]] = {}
    for row in block:
        for regime, verdict in row.wrong_at_one:
            paths = found.setdefault(regime, {})
            paths.setdefault((row.path, verdict.word), []).append(row.dtype)
    notes = []
    for regime, paths in found.items():
        told = [f"{path} {'/'.join(dtypes)} {word}" for (path, word), dtypes in paths.items()]
        notes.append(f"wrong at 1 already in regime {regime}: {', '.join(told)}")
    return notes


def to_markdown(run: Run, rows: Sequence[Row]) -> str:
    """Tables that GitHub draws: the strip of glyphs in a code span, the frontiers as columns."""
    lines = [_title(run), ""]
    for block in _blocks(rows):
        first = block[0]
        regime = "" if first.regime == "all" else f", regime {first.regime}"
        lines += [
            f"**{first.operation}, {first.pass_}{regime}**",
            "",
            f"| path | dtype | `{COLUMNS[0]} … {COLUMNS[-1]}` (powers of ten) "
            "| finite from | finite to | accurate from | accurate to |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in block:
            strip = "".join(_NO_CASE if cell is None else cell.glyph for cell in row.cells)
            bounds = " | ".join(value if value is not None else end for value, end in _bounds(row))
            # Code spans lose spaces at their ends, so that "no case" is drawn.
            lines.append(f"| {row.path} | {row.dtype} | `{strip.replace(' ', '·')}` | {bounds} |")
        lines += ["", *(f"- {note}" for note in _wrong_at_one(block)), ""]
    lines.append("Columns begin at 10 to the power of " + ", ".join(map(str, COLUMNS)) + ".")
    lines.append("`min`, `max`: holds to that end of the dtype. Verdicts:")
    lines.append("")
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
    names = list(_flat(rows[0])) if rows else []
    writer.writerow(names)
    for row in rows:
        writer.writerow(["" if value is None else value for value in _flat(row).values()])
    return out.getvalue()


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


def to_json(run: Run, rows: Sequence[Row]) -> str:
    """One JSON document: the run's environment, the rows with their cells, the verdicts seen."""
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
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def rows_for(run: Run, form: str, *, by_regime: bool) -> list[Row]:
    """The rows that a format shows: people get regimes folded together, programs each."""
    return table_rows(run.records, by_regime=by_regime or form in ("csv", "json"))
