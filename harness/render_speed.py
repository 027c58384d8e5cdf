"""A run's speed table as text: times, the price of safety, other inputs; and what forms share."""

import textwrap
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from harness.render_common import title
from harness.safe_text import printable
from harness.speed_table import (
    NAIVE,
    SpeedRow,
    against_normal,
    items,
    reference_of,
    speed_rows,
)
from harness.store import Run
from harness.verdict import Verdict

_WIDTH = 78
_TIMERS = {"cuda": "GPU time (CUDA events)", "cpu": "CPU time (perf_counter), not a GPU's"}
NO_GPU = (
    "Measured without a GPU: these are CPU times of PyTorch's paths and say nothing of a GPU."
    " Kernels written in Triton are not measured here; `stability inspect` stands in for them:"
    " registers, spills, load widths and bytes moved, from compiling and counting."
)


def has_speed(run: Run) -> bool:
    """Whether a run has records of the speed suite."""
    return any(record.suite == "speed" for record in run.records)


def print_speed(console: Console, run: Run) -> None:
    """Print on a console; every line fits 80 characters."""
    for line in text_lines(run):
        console.print(Text(line), soft_wrap=True, highlight=False)


def text_lines(run: Run) -> Iterator[str]:
    """The table for people, line by line."""
    rows = speed_rows(run.records)
    yield title(run)
    yield from _folded(NO_GPU, "") if is_cpu(rows) else ()
    for item in items(rows):
        yield ""
        yield from _item_lines(item)
    yield from price_lines(rows)
    yield from _regime_lines(rows)
    yield ""
    yield from legend_of(rows)
    yield from (f"problem: {printable(problem)}" for problem in run.problems)
    if not run.complete:
        yield f"This run is not complete: stability run --resume --out {run.directory}"


def is_cpu(rows: Sequence[SpeedRow]) -> bool:
    """Whether any of it was timed on a CPU."""
    return any(row.timer == "cpu" for row in rows)


def heading_of(row: SpeedRow) -> str:
    """What the rows of one item have in common."""
    what = f"{row.operation}, {row.pass_}, {row.dtype}, {row.regime}, {row.shape}"
    return printable(f"{what}: {_TIMERS.get(row.timer, row.timer)}")


HEADS = ("median", "+-", "GB/s", "of copy", "peak GB")


def _item_lines(item: Sequence[SpeedRow]) -> Iterator[str]:
    yield from _folded(heading_of(item[0]), "  ")
    measured = [row for row in item if row.median is not None]
    ours = reference_of(item)
    if measured:
        cells = [*HEADS, f"x {NAIVE}", f"x {ours}"[:9] if ours else ""]
        yield _line("path", cells, "")
    for row in measured:
        yield _line(row.path, [*cells_of(row), *quotients_of(row, ours)], row.verdict.glyph)
    yield from _unmeasured(item)


def _line(name: str, cells: Sequence[str], mark: str) -> str:
    widths = (10, 8, 7, 8, 8, 9, 11)
    told = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{printable(name):<12.12}{told} {mark}".rstrip()


def cells_of(row: SpeedRow) -> list[str]:
    """The cells under HEADS of a row that was measured."""
    assert row.median is not None
    spread = ""
    if row.low is not None and row.high is not None:
        spread = f"{50 * (row.high - row.low) / row.median:.1f}%"
    return [
        duration(row.median),
        spread,
        _figure(row.rate, ".0f" if (row.rate or 0) >= 10 else ".2g"),
        _figure(None if row.share_of_copy is None else 100 * row.share_of_copy, ".0f", "%"),
        _figure(None if row.peak_bytes is None else row.peak_bytes / 1e9, ".2f"),
    ]


def quotients_of(row: SpeedRow, ours: str) -> list[str]:
    """Time over the naive path's, and over that of the path that makes claims."""
    return [_figure(row.over(NAIVE), ".2f"), _figure(row.over(ours), ".2f") if ours else ""]


def duration(seconds: float) -> str:
    """With three digits and the unit that suits it.

    >>> duration(0.0123456), duration(4.2e-06)
    ('12.3 ms', '4.20 us')
    """
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= unit:
            return f"{_three(seconds / unit)} {name}"
    return f"{_three(seconds / 1e-6)} us"


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _figure(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


def _unmeasured(item: Sequence[SpeedRow]) -> Iterator[str]:
    """The paths without samples, those with the same reason together."""
    reasons: dict[str, list[str]] = {}
    for row in item:
        if row.median is None:
            reasons.setdefault(row.reason or row.verdict.meaning, []).append(
                f"{row.path} ({row.verdict.word})"
            )
    for reason, paths in reasons.items():
        told = reason.removeprefix("not measured: ")
        yield from _folded(printable(f"not measured: {', '.join(paths)}: {told}"), "    ", "  ")


def price_lines(rows: Sequence[SpeedRow]) -> Iterator[str]:
    """One line an item on normal input: ours, and every peer, over the naive path."""
    told = []
    for item in items(row for row in rows if row.regime == "normal@1"):
        priced = [row for row in item if row.price is not None]
        if priced:
            first = item[0]
            name = f"{first.operation} {first.pass_} {first.dtype} {first.shape}"
            parts = (f"{row.path} {row.price:.2f}{_wrong(row)}" for row in priced)
            told += _folded(printable(f"{name}: {', '.join(parts)}"), "      ", "  ")
    if told:
        yield ""
        yield "The price of safety: time over that of the naive path; below 1, safe is faster"
        yield from told


def _wrong(row: SpeedRow) -> str:
    return "" if row.verdict.is_accurate else f" ({row.verdict.word})"


def _regime_lines(rows: Sequence[SpeedRow]) -> Iterator[str]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for row, ratio in against_normal(rows):
        clock = f" ({row.sm_mhz:.0f} MHz)" if row.sm_mhz is not None else ""
        groups.setdefault(row.item, []).append(f"{row.path} {ratio:.2f}{clock}")
    if groups:
        yield ""
        yield "Other inputs: time over that on normal@1 of the same path (median SM clock)"
    for (operation, dtype, regime, shape, pass_, _), parts in groups.items():
        name = f"{operation} {pass_} {dtype} {shape} {regime}"
        yield from _folded(printable(f"{name}: {', '.join(parts)}"), "      ", "  ")


def legend_of(rows: Sequence[SpeedRow]) -> Iterator[str]:
    """What the columns mean, which verdicts occur, and what disturbed the rounds."""
    yield from _folded(
        "median of rounds in which all paths of an item take turns; +-: half of its 95% interval;"
        " GB/s: the least bytes that the pass can move, over the median; of copy: over the rate"
        " of a copy in the same rounds; x: the median over rounds of this path's time over the"
        " other's.",
        "",
    )
    for verdict in sorted({r.verdict for r in rows if r.median is not None}, key=_precedence):
        yield from _folded(f"{verdict.glyph}  {verdict.word}: {verdict.meaning}", "   ")
    waiting = sorted({f"{row.operation} {row.path}" for row in rows if row.waits_for_host})
    if waiting:
        told = f"These wait for the device, and their times hold the waiting: {', '.join(waiting)}."
        yield from _folded(printable(told), "   ")
    throttled = sorted({reason for row in rows for reason in row.throttled})
    # A round is repeated for all paths of an item: it counts once.
    repeated = sum(max(row.repeated_rounds for row in item) for item in items(rows))
    if throttled or repeated:
        told = f"Clocks held back in some rounds by: {', '.join(throttled) or 'nothing'};"
        yield from _folded(printable(f"{told} {repeated} throttled rounds were repeated."), "   ")


def _precedence(verdict: Verdict) -> int:
    return verdict.precedence


def _folded(sentence: str, later: str, first: str = "") -> list[str]:
    return textwrap.wrap(sentence, _WIDTH, initial_indent=first, subsequent_indent=later)
