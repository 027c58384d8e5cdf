"""What the text and Markdown forms of a table share: title, blocks, words for limits."""

from collections.abc import Callable, Sequence

from harness.safe_text import markdown, printable
from harness.store import Run
from harness.table import Row
from harness.verdict import Verdict


def title(run: Run) -> str:
    """Device, versions, seed and size of a run in one line."""
    return " | ".join(printable(part) for part in _title_parts(run))


def markdown_title(run: Run) -> str:
    """The same, with whatever is no plain text in code."""
    return " | ".join(markdown(part) for part in _title_parts(run))


def _title_parts(run: Run) -> list[str]:
    environment = run.environment
    device, versions = environment.get("device"), environment.get("versions")
    name = device.get("name", "") if isinstance(device, dict) else ""
    parts = [str(name or "unknown device")]
    if isinstance(versions, dict):
        parts.append(" ".join(f"{k} {versions[k]}" for k in ("torch", "triton") if k in versions))
    parts += [f"seed {environment.get('seed', '?')}", f"{len(run.records)} cases"]
    return parts


def heading(row: Row) -> str:
    """What the rows of one block have in common."""
    regime = "" if row.regime == "all" else f", regime {row.regime}"
    return printable(f"{row.operation}, {row.pass_}{regime}")


def blocks(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of one operation, pass and regime together, in order."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.operation, row.pass_, row.regime), []).append(row)
    return list(found.values())


def bounds(row: Row) -> list[str]:
    """Finite from, finite to, accurate from, accurate to: the last float that holds, or a word.

    `min` and `max` say that it holds to that end of the dtype, `none` that it fails at magnitude 1.
    """
    return [
        _bound(row.low.finite_until, row.low.nonfinite_from, "min"),
        _bound(row.high.finite_until, row.high.nonfinite_from, "max"),
        _bound(row.low.accurate_until, row.low.inaccurate_from, "min"),
        _bound(row.high.accurate_until, row.high.inaccurate_from, "max"),
    ]


def _bound(until: float | None, beyond: float | None, end: str) -> str:
    if beyond is None:
        return end
    if until is None:
        return "none"
    short = f"{until:.3g}"
    return short if len(short) <= 8 else f"{until:.2g}"  # 1.6e-162: a column is 8 wide


def wrong_at_one_notes(block: Sequence[Row], shown: Callable[[str], str] = printable) -> list[str]:
    """One note a regime: the paths that are wrong there already at magnitude 1, and how.

    `shown` makes of a name what the table's form can hold.
    """
    found: dict[str, list[str]] = {}
    for row in block:
        for regime, verdict, error in row.wrong_at_one:
            by = f" by {error:.2g} ulp" if verdict is Verdict.INACCURATE and error else ""
            name = f"{shown(row.path)} {shown(row.dtype)}"
            found.setdefault(regime, []).append(f"{name} {verdict.word}{by}")
    return [
        f"wrong at 1 already in regime {shown(regime)}: {', '.join(told)}"
        for regime, told in found.items()
    ]
