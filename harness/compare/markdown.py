"""The comparison for a pull request or a job's summary: the answer first, details folded.

Whatever comes from a run file stands in code.
"""

from collections.abc import Iterable, Sequence

from harness.cli_options import Exit
from harness.compare import wording
from harness.compare.comparison import Comparison
from harness.compare.frontiers import Move
from harness.compare.gate import DEFAULT_KINDS, exit_code
from harness.compare.speed import Answer
from harness.compare.stability import Change
from harness.safe_text import code

# GitHub takes a mebibyte a summary and 65,536 characters a comment; the JSON form has all.
_SHOWN = 50

# title, unfolded, heads, rows
Section = tuple[str, bool, tuple[str, ...], Sequence[tuple[str, ...]]]


def to_markdown(comparison: Comparison, kinds: frozenset[str] = DEFAULT_KINDS) -> str:
    """GitHub's Markdown; the mark is that of the exit code when failing on `kinds`."""
    mark = {Exit.OK: "✅", Exit.BROKEN: "❌"}.get(exit_code(comparison, kinds), "⚠️")
    lines = [f"### {mark} Stability: {wording.headline(comparison)}", ""]
    lines += [f"{code(str(comparison.base))} → {code(str(comparison.new))}", ""]
    lines += ["| | what changed |", "|---|---|"]
    lines += [f"| {name} | {said} |" for name, said in wording.counts(comparison)]
    if comparison.speed.rows:
        said = wording.common_factor(comparison.speed)
        lines += ["", f"{said[0].upper()}{said[1:]}."]
    for title, unfolded, heads, rows in _sections(comparison):
        if rows:
            lines += ["", f"<details{' open' if unfolded else ''}>"]
            lines += [f"<summary>{title} ({len(rows)})</summary>", ""]
            lines += _table(heads, rows[:_SHOWN])
            if len(rows) > _SHOWN:
                lines += ["", f"… and {len(rows) - _SHOWN} more; `--format json` has all."]
            lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def _sections(comparison: Comparison) -> list[Section]:
    stability, speed, training = comparison.stability, comparison.speed, comparison.training
    verdicts, frontiers = ("case", "verdict"), ("case", "frontier")
    timings = ("case", "change", "95% interval", "median", "")
    curves = ("curve", "what changed")
    inwards = [move for move in stability.moves if move.regression]
    others = [move for move in stability.moves if not move.regression]
    rows = {
        answer: [
            (row.id, *wording.row_cells(row), row.reason)
            for row in speed.rows
            if row.answer is answer
        ]
        for answer in Answer
    }
    lost = [
        (each.path, f"{each.reason}: {wording.counted(each.cases, 'case')}")
        for each in stability.withdrawn
    ]
    worse = [(each.name, wording.curve_words(each)) for each in training.curves if each.regression]
    changed = [each for each in training.curves if each.changed and not each.regression]
    environment = [(each.name, each.base, each.new) for each in comparison.environment]
    renamed = [(each.axis, each.base, each.new, str(each.cases)) for each in comparison.renamed]
    return [
        ("Not all is there", True, ("what",), [(each,) for each in comparison.unfinished]),
        ("Claims lost", True, ("path", "what"), lost),
        ("Verdicts that got worse", True, verdicts, _changes(stability.regressions)),
        ("Frontiers that moved inwards", True, frontiers, _moves(inwards)),
        ("SLOWER", True, timings, rows[Answer.SLOWER]),
        ("Training that got worse", True, curves, worse),
        ("Environment that differs", False, ("what", "base", "new"), environment),
        ("UNCLEAR", False, timings, rows[Answer.UNCLEAR]),
        ("FASTER", False, timings, rows[Answer.FASTER]),
        ("Verdicts that got better", False, verdicts, _changes(stability.improvements)),
        ("Frontiers otherwise moved", False, frontiers, _moves(others)),
        ("Verdicts that changed", False, verdicts, _changes(stability.changes)),
        (
            "Training that changed",
            False,
            curves,
            [(each.name, wording.curve_words(each)) for each in changed],
        ),
        ("Renamed", False, ("axis", "base", "new", "cases"), renamed),
        ("Missing", False, ("cases of", "how many"), _grouped(comparison.missing)),
        ("New", False, ("cases of", "how many"), _grouped(comparison.added)),
    ]


def _changes(changes: Iterable[Change]) -> list[tuple[str, ...]]:
    return [(change.id, wording.change_words(change)) for change in changes]


def _moves(moves: Iterable[Move]) -> list[tuple[str, ...]]:
    return [(move.where, wording.move_words(move)) for move in moves]


def _grouped(ids: Iterable[str]) -> list[tuple[str, ...]]:
    return [(where, str(count)) for where, count in wording.grouped(ids)]


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return lines + [f"| {' | '.join(map(code, row))} |" for row in rows]
