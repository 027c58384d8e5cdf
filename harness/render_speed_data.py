"""A run's speed table for other programs: Markdown, CSV and JSON (text is render_speed)."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from harness.render_common import markdown_title
from harness.render_speed import (
    HEADS,
    NO_GPU,
    cells_of,
    heading_of,
    is_cpu,
    legend_of,
    price_lines,
    quotients_of,
)
from harness.safe_text import markdown
from harness.speed_table import NAIVE, SpeedRow, items, reference_of, speed_rows
from harness.store import Run


def speed_markdown(run: Run) -> str:
    """Tables that GitHub draws, one an item, and the price of safety."""
    rows = speed_rows(run.records)
    lines = [markdown_title(run), "", *([NO_GPU, ""] if is_cpu(rows) else [])]
    for item in items(rows):
        ours = reference_of(item)
        heads = ["path", "median", "±", *HEADS[2:], f"× {NAIVE}", f"× {ours or '-'}", "verdict"]
        lines += [
            f"**{markdown(heading_of(item[0]))}**",
            "",
            f"| {' | '.join(map(markdown, heads))} |",
        ]
        lines.append("|---" + "|---:" * 7 + "|---|")
        for row in item:
            if row.median is None:
                cells = ["-"] * 7
            else:
                cells = [*cells_of(row), *quotients_of(row, ours)]
            told = row.verdict.word + (f": {row.reason}" if row.reason else "")
            texts = [row.path, *(each or "-" for each in cells), told]
            lines.append("| " + " | ".join(markdown(each) for each in texts) + " |")
        lines.append("")
    lines += [
        *(f"- {markdown(line.strip())}" if line else "" for line in _joined(price_lines(rows))),
        "",
    ]
    lines += [" ".join(legend_of(rows)), ""]
    return "\n".join(lines)


def _joined(lines: Iterator[str]) -> Iterator[str]:
    """Folded lines put together again."""
    whole = ""
    for line in lines:
        if line.startswith("      "):
            whole += " " + line.strip()
            continue
        if whole:
            yield whole
        whole = line
    if whole:
        yield whole


def speed_csv(run: Run) -> str:
    """One line a path of an item; an empty field where a number is absent."""
    out = io.StringIO()
    rows = [
        flat(row, reference_of(item)) for item in items(speed_rows(run.records)) for row in item
    ]
    writer = csv.DictWriter(out, list(_FIELDS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: "" if value is None else value for key, value in row.items()} for row in rows
    )
    return out.getvalue()


_FIELDS = (
    *("id", "operation", "path", "dtype", "regime", "shape", "pass", "timer", "verdict"),
    *("reason", "median_seconds", "low_seconds", "high_seconds", "gigabytes_per_second"),
    *("share_of_copy", "peak_bytes", "price_of_safety", "ours", "over_ours", "sm_mhz"),
    *("repeated_rounds", "waits_for_host"),
)


def flat(row: SpeedRow, ours: str) -> dict[str, Any]:
    """A row as plain data, for CSV and JSON."""
    values = (
        *(row.id, row.operation, row.path, row.dtype, row.regime, row.shape, row.pass_, row.timer),
        *(row.verdict.word, row.reason, row.median, row.low, row.high, row.rate),
        *(row.share_of_copy, row.peak_bytes, row.price, ours, row.over(ours) if ours else None),
        *(row.sm_mhz, row.repeated_rounds, row.waits_for_host),
    )
    return dict(zip(_FIELDS, values, strict=True))


def speed_json(run: Run) -> list[dict[str, Any]]:
    """The rows for a JSON document, each with its quotient to every path of its item."""
    found = []
    for item in items(speed_rows(run.records)):
        ours = reference_of(item)
        found += [{**flat(row, ours), "ratios": dict(row.ratios)} for row in item]
    return found
