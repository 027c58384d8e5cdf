"""The table as text for a terminal: 80 columns, readable without colour, one example a verdict."""

import textwrap
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from harness.catalog import DEFAULT
from harness.failures import reproduction
from harness.record import Record
from harness.render_common import blocks, bounds, heading, title, wrong_at_one_notes
from harness.safe_text import printable
from harness.store import Run
from harness.table import COLUMNS, Row
from harness.verdict import Verdict

_STYLES = {Verdict.OK: "green", Verdict.UNREPRESENTABLE: "cyan", Verdict.UNSUPPORTED: "dim"}
_WRONG, _BROKEN = "yellow", "bold red"  # finite but not right; not even finite
_NUMBER = 8  # characters of a frontier number, as 5.96e-08
_LEAD = 18  # characters before the strip: path (11), dtype (5), a space after each
_WIDTH = 76  # of running text: with its indent it stays below 80


def print_table(console: Console, run: Run, rows: Sequence[Row]) -> None:
    """Print on a console, in colour where it has any; every line fits 80 characters."""
    for line in _lines(run, rows):
        # As Text, a string from a file is neither markup nor terminal control.
        console.print(line, soft_wrap=True, highlight=False)


def print_cases(console: Console, run: Run) -> None:
    """Every case that is not right: id, verdict, error, reason, and the command that repeats it."""
    wrong = [record for record in run.records if not record.verdict.is_accurate]
    for record in wrong:
        error = record.get("max_ulp") if record.verdict.is_finite_enough else None
        told = f"{record.verdict.word}" + (f", {error:.3g} ulp" if error else "")
        head = Text(f"{printable(record.id)}: {told}", style=_style(record.verdict))
        console.print(head, soft_wrap=True, highlight=False)
        if record.get("reason"):
            console.print(Text("   " + printable(str(record["reason"]))), soft_wrap=True)
        for line in command_lines(record, run):
            console.print(Text("   " + line), soft_wrap=True, highlight=False)
    console.print(Text(f"{len(wrong)} of {len(run.records)} cases are not right"))


def command_lines(record: Record, run: Run) -> list[str]:
    """The command that repeats a case, continued over lines of 80 characters."""
    asked = run.environment.get("asked")
    catalog = asked.get("catalog") if isinstance(asked, dict) else None
    command = reproduction(
        record,
        seed=run.environment.get("seed", 0),
        catalog=None if catalog == DEFAULT else catalog,
    )
    if "'" in command:
        return [printable(command)]  # a quoted name: it must not be broken at its spaces
    folded = textwrap.wrap(command, _WIDTH - 8, break_long_words=False, break_on_hyphens=False)
    return [*(f"{line} \\" for line in folded[:-1]), folded[-1]]


def _lines(run: Run, rows: Sequence[Row]) -> Iterator[Text]:
    yield Text(title(run))
    for block in blocks(rows):
        yield Text()
        yield from block_lines(block)
    yield Text()
    yield from _legend(run, rows)
    yield from (Text(f"problem: {printable(problem)}") for problem in run.problems)
    if not run.complete:
        yield Text(f"This run is not complete: stability run --resume --out {run.directory}")


def block_lines(block: Sequence[Row]) -> Iterator[Text]:
    """The rows of one operation and pass under their heading; what is unsupported whole, a
    library that is not installed, shares a line below them.
    """
    absent = [row for row in block if set(row.counts) == {Verdict.UNSUPPORTED}]
    shown = [row for row in block if row not in absent] or block
    yield Text(heading(block[0]), style="bold")
    yield from map(Text, _headers())
    yield from map(_text_row, shown)
    if absent and shown is not block:
        dtypes: dict[str, list[str]] = {}
        for row in absent:
            dtypes.setdefault(row.path, []).append(row.dtype)
        named = (f"{printable(path)} ({', '.join(found)})" for path, found in dtypes.items())
        yield from map(Text, _folded("unsupported here: " + "; ".join(named), "  ", "    "))
    for note in wrong_at_one_notes(block):
        yield from map(Text, _folded(note, "  ", "    "))


def _headers() -> list[str]:
    """The powers of ten written downwards, and the names of the frontier columns."""
    marks = "".join("-" if exponent < 0 else "+" for exponent in COLUMNS)
    digits = [f"{abs(exponent):>3}" for exponent in COLUMNS]
    strips = [marks, *("".join(each[k] for each in digits) for k in range(3))]
    leads = ("", "", "from 10 to the", "path        dtype ")
    pair = 2 * _NUMBER + 1
    names = "".join(f" {name:>{_NUMBER}}" for name in ("from", "to", "from", "to"))
    tails = ("", "", f" {'finite':^{pair}} {'accurate':^{pair}}", names)
    parts = zip(leads, strips, tails, strict=True)
    return [f"{lead:<{_LEAD}}{strip}{tail}".rstrip() for lead, strip, tail in parts]


def _text_row(row: Row) -> Text:
    text = Text(f"{printable(row.path):<11.11} {row.dtype:<5.5} ")
    for cell in row.cells:
        if cell is None:
            text.append(" ")
        else:
            text.append(cell.glyph, style=_style(cell))
    text.append("".join(f" {bound:>{_NUMBER}}" for bound in bounds(row)))
    return text


def _style(verdict: Verdict) -> str:
    return _STYLES.get(verdict, _WRONG if verdict.is_finite_enough else _BROKEN)


def _legend(run: Run, rows: Sequence[Row]) -> Iterator[Text]:
    seen: dict[Verdict, int] = {}
    for row in rows:
        for verdict, count in row.counts.items():
            seen[verdict] = seen.get(verdict, 0) + count
    examples = {record.verdict: record for record in reversed(run.records)}
    yield Text("A cell shows the worst verdict in its decades, blank where nothing was measured;")
    yield Text("min, max: no failure up to that end; none: wrong at 1, or 1 was not measured.")
    if any(row.wrong_at_one for row in rows):
        yield Text("Regimes in a note below a block count in no row of it that the note names.")
    if any(row.regime == "all" for row in rows):
        yield Text("A row folds its regimes: the tightest counts. Each by itself: --by-regime.")
    asked = run.environment.get("asked")
    if isinstance(asked, dict) and asked.get("quick"):
        yield Text(
            "Numbers: the last of the grid that holds, outwards from 1; quick: not bisected."
        )
    else:
        yield Text("Numbers are the last float that holds, going outwards from 1.")
    for verdict in sorted(seen, key=lambda each: each.precedence):
        plural = "" if seen[verdict] == 1 else "s"
        head = f"{verdict.glyph}  {verdict.word} ({seen[verdict]} case{plural})"
        yield Text(head, _style(verdict))
        yield from map(Text, _folded(verdict.meaning, "   ", "   "))
        if verdict is Verdict.OK:
            continue
        yield from map(Text, _folded("Next: " + verdict.next_step, "   ", "   "))
        if verdict in examples:
            first, *more = command_lines(examples[verdict], run)
            yield Text(f"   One: {first}")
            yield from (Text(f"        {line}") for line in more)
    if any(not verdict.is_accurate for verdict in seen):
        yield Text("Each of them, with its command:")
        yield Text(f"   stability table {run.directory} --cases")


def _folded(sentence: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(sentence, _WIDTH + 2, initial_indent=first, subsequent_indent=later)
