"""Speed as recorded: device time by CUDA events; a CPU's time apart, and marked as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.record import Record
from harness.report.runs import Shown
from harness.report.words import seconds, size
from harness.verdict import Verdict

MOST_ROWS = 1_500  # of a table
TIMERS = {
    "cuda": "Device time by CUDA events",
    "cpu": "CPU time of PyTorch's own kernels; not a GPU's",
}


@dataclass(frozen=True, slots=True)
class Timing:
    """A row: a path on one shape, in one pass, regime and magnitude."""

    letter: str
    operation: str
    path: str
    dtype: str
    pass_: str
    shape: str
    elements: int  # to sort by
    inputs: str  # regime@magnitude
    median_seconds: float
    median: str
    interval: str
    gigabytes_per_second: float | None
    share_of_copy: float | None
    peak: str
    peak_bytes: float
    price: float | None  # ratio to the naive path
    ratios: tuple[tuple[str, float], ...]  # to each peer, by name
    verdict: Verdict  # what the judge says of the outputs that were timed
    clocks: str  # of the multiprocessors, in MHz, while it ran


@dataclass(frozen=True, slots=True)
class Table:
    """The timings of one timer."""

    timer: str
    title: str
    rows: tuple[Timing, ...]
    shapes_left_out: int


@dataclass(frozen=True, slots=True)
class Speed:
    """Everything the section shows of speed records."""

    tables: tuple[Table, ...]
    untimed: tuple[tuple[str, int], ...]  # reasons, and how many rows they explain


def speed(runs: Sequence[Shown]) -> Speed | None:
    """None where no run has speed records."""
    found: dict[str, list[tuple[Timing, Record]]] = {}
    untimed: dict[str, int] = {}
    for shown in runs:
        for record in shown.of_suite("speed"):
            timer = str(record.get("timer"))
            if timer in TIMERS and _number(record, "median_seconds"):
                found.setdefault(timer, []).append((_timing(shown.letter, record), record))
            else:
                reason = str(record.get("reason") or record.verdict.meaning)
                untimed[reason] = untimed.get(reason, 0) + 1
    if not found and not untimed:
        return None
    tables = [_table(timer, found[timer]) for timer in TIMERS if timer in found]
    return Speed(tuple(tables), tuple(sorted(untimed.items(), key=lambda each: -each[1])[:20]))


def _table(timer: str, rows: list[tuple[Timing, Record]]) -> Table:
    every = [timing for timing, _ in rows]
    kept = every
    if len(every) > MOST_ROWS:
        # The largest shape of each: what a training step is made of.
        largest: dict[tuple[str, ...], Timing] = {}
        for each in every:
            key = (each.letter, each.operation, each.path, each.dtype, each.pass_)
            if key not in largest or each.elements > largest[key].elements:
                largest[key] = each
        kept = list(largest.values())[:MOST_ROWS]
    return Table(timer, TIMERS[timer], tuple(kept), len(every) - len(kept))


def _timing(letter: str, record: Record) -> Timing:
    shape = [each for each in record.get("shape") or [] if isinstance(each, int)]
    elements = 1
    for extent in shape:
        elements *= extent
    low, high = _number(record, "low_seconds"), _number(record, "high_seconds")
    peak = _number(record, "peak_bytes")
    middle = float(record["median_seconds"])
    return Timing(
        letter,
        record.operation,
        record.path,
        record.dtype,
        str(record.get("pass", "")),
        "×".join(map(str, shape)),
        elements,
        _inputs(record),
        middle,
        seconds(middle),
        f"{seconds(low)} – {seconds(high)}" if low and high else "",
        _number(record, "gigabytes_per_second"),
        _number(record, "share_of_copy"),
        "" if peak is None else size(peak),
        peak or 0.0,
        _number(record, "price_of_safety"),
        _ratios(record.get("ratios")),
        record.verdict,
        _clocks(record.get("rounds")),
    )


def _inputs(record: Record) -> str:
    magnitude = _number(record, "magnitude")
    at = "" if magnitude is None else f"@{magnitude:g}"
    return f"{record.get('regime', '')}{at}"


def _ratios(found: object) -> tuple[tuple[str, float], ...]:
    if not isinstance(found, dict):
        return ()
    return tuple(
        (str(path), float(ratio))
        for path, ratio in found.items()
        if isinstance(ratio, (int, float)) and ratio > 0
    )


def _clocks(rounds: object) -> str:
    mhz = rounds.get("sm_mhz") if isinstance(rounds, dict) else None
    known = (
        [each for each in mhz if isinstance(each, (int, float))] if isinstance(mhz, list) else []
    )
    if not known:
        return ""
    return f"{min(known):.0f}–{max(known):.0f}" if min(known) != max(known) else f"{known[0]:.0f}"


def _number(record: Record, name: str) -> float | None:
    value: Any = record.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
