"""The comparison for a terminal: what decides first, 80 columns where names allow it."""

from collections.abc import Sequence
from textwrap import wrap

from harness.compare import wording
from harness.compare.comparison import Comparison
from harness.compare.speed import Answer
from harness.compare.stability import Change
from harness.compare.training import Curve
from harness.safe_text import printable

_WIDTH = 80
_SHOWN = 100  # entries of a section; the rest are counted, and the JSON form has them


def to_text(comparison: Comparison) -> str:
    """Lines that end in a newline; names from files cannot steer a terminal."""
    lines = [printable(f"{comparison.base} -> {comparison.new}: {wording.headline(comparison)}")]
    lines += [f"  {name:<10} {said}" for name, said in wording.counts(comparison)]
    for title, entries in _sections(comparison):
        if not entries:
            continue
        lines += ["", f"{title}:"]
        for entry in entries[:_SHOWN]:
            lines += _folded([printable(part) for part in entry])
        if len(entries) > _SHOWN:
            lines.append(f"  ... and {len(entries) - _SHOWN} more (--format json has all)")
    return "\n".join(lines) + "\n"


Entry = tuple[str, ...]  # a name, and what is said of it


def _sections(comparison: Comparison) -> list[tuple[str, Sequence[Entry]]]:
    stability, speed, training = comparison.stability, comparison.speed, comparison.training
    moves = [(move.where, wording.move_words(move), move) for move in stability.moves]
    speed_rows = {
        answer: [
            (row.id, " | ".join([*wording.row_cells(row), *filter(None, [row.reason])]))
            for row in speed.rows
            if row.answer is answer
        ]
        for answer in Answer
    }
    return [
        ("not all is there", [(each,) for each in comparison.unfinished]),
        (
            "environment",
            [(each.name, f"{each.base} -> {each.new}") for each in comparison.environment],
        ),
        (
            "claims lost",
            [
                (each.path, f"{each.reason}: {wording.counted(each.cases, 'case')}")
                for each in stability.withdrawn
            ],
        ),
        ("verdicts that got worse", _changes(stability.regressions)),
        ("frontiers that moved inwards", [(a, b) for a, b, move in moves if move.regression]),
        ("SLOWER", speed_rows[Answer.SLOWER]),
        ("training that got worse", _curves(training.curves, regression=True)),
        ("UNCLEAR", speed_rows[Answer.UNCLEAR]),
        ("speed in general", [(wording.common_factor(speed),)] if speed.rows else []),
        ("FASTER", speed_rows[Answer.FASTER]),
        ("verdicts that got better", _changes(stability.improvements)),
        (
            "frontiers that moved outwards, or by less than counts",
            [(a, b) for a, b, move in moves if not move.regression],
        ),
        ("verdicts that changed", _changes(stability.changes)),
        ("training that changed", _curves(training.curves, regression=False)),
        (
            "renamed",
            [
                (f"{each.axis} {each.base} -> {each.new}", wording.counted(each.cases, "case"))
                for each in comparison.renamed
            ],
        ),
        ("missing", _grouped(comparison.missing)),
        ("new", _grouped(comparison.added)),
    ]


def _changes(changes: Sequence[Change]) -> list[Entry]:
    return [(change.id, wording.change_words(change)) for change in changes]


def _curves(curves: Sequence[Curve], *, regression: bool) -> list[Entry]:
    chosen = [each for each in curves if each.changed and each.regression is regression]
    entries: list[Entry] = []
    for curve in chosen:
        entries.append((curve.name, wording.curve_words(curve)))
        entries += [("", f"lost: {each}") for each in curve.lost]
    return entries


def _grouped(ids: Sequence[str]) -> list[Entry]:
    return [(where, wording.counted(count, "grid case")) for where, count in wording.grouped(ids)]


def _folded(parts: list[str]) -> list[str]:
    """On one line if it fits, else what is said of a name below it."""
    whole = "  " + ": ".join(filter(None, parts))
    if len(whole) <= _WIDTH:
        return [whole]
    name, *rest = parts
    lines = wrap(name, _WIDTH - 2, initial_indent="  ", subsequent_indent="  ")
    for each in rest:
        lines += wrap(each, _WIDTH - 4, initial_indent="    ", subsequent_indent="    ")
    return lines
