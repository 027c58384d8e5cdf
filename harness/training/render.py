"""A run's training table as text, Markdown, CSV and JSON; the parts of `stability table`."""

import csv
import io
from typing import TYPE_CHECKING, Any

from harness.store import Run
from harness.training.agreement import WINDOW, Agreement, agreements
from harness.training.curves import curves_of
from harness.training.table import Row, training_rows

if TYPE_CHECKING:
    from rich.console import Console

HEAD = ("training", "steps", "stable to", "best loss", "sensitivity", "bad", "first bad", "cause")


def has_training(run: Run) -> bool:
    """Whether a run has training records."""
    return any(record.suite == "training" for record in run.records)


def print_training(console: "Console", run: Run) -> None:
    """A table of curves, then how a naive and torch's cost compare until the naive one breaks."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(HEAD):
        last = len(HEAD) - 1
        table.add_column(name, justify="left" if place in (0, last) else "right", overflow="fold")
    for row in training_rows(run.records):
        table.add_row(*cells(row))
    console.print(table)
    console.print(
        "stable to: the highest rate at which, and below which, every run stayed finite and ended"
        " no worse than untrained. *: the best rate is at the edge of the grid.\n"
        "sensitivity: Wortsman et al. 2023. bad: share of runs that did not stay so. first bad:"
        " slope of log first bad step against log rate; -1: the rate only sets the clock.",
        highlight=False,
    )
    pairs = agreements(curves_of(run.records))
    if pairs:
        console.print(f"\n{summary(pairs)}", highlight=False)


def cells(row: Row) -> tuple[str, ...]:
    """The cells of a row, as HEAD names them."""
    curve, found = row.curve, row.sensitivity
    if not curve.runs:
        return (row.name, str(curve.steps), "-", "-", "-", "-", "-", f"({curve.unsupported})")
    stable = curve.highest_stable()
    return (
        row.name,
        str(curve.steps),
        f"{stable:g}" if stable is not None else "none",
        f"{found.best_loss:.3g}" if found else "-",
        _sensitivity(row),
        f"{found.diverged:.0%}" if found else "-",
        first_bad_words(row),
        ", ".join(name for name, _ in row.causes[:2]) or "-",
    )


def _sensitivity(row: Row) -> str:
    """Of fewer than three rates, or where none went well, it says nothing about rates."""
    found = row.sensitivity
    if found is None or len(row.curve.rates) < 3 or found.diverged == 1.0:
        return "-"
    return f"{found.value:.3g}{'*' if found.best_at_edge else ''}"


def first_bad_words(row: Row) -> str:
    """The fitted slope with its interval, or the steps where there are too few to fit."""
    if row.clock is not None:
        it = row.clock
        return f"slope {it.slope:.2f} [{it.low:.2f}, {it.high:.2f}] {it.verdict}"
    if not row.first_bad:
        return "never"
    rate, step = row.first_bad[0]
    return f"step {step:g} at {rate:g}"


def summary(pairs: list[Agreement]) -> str:
    """One sentence on all pairs, and the one that went furthest together."""
    same = [each for each in pairs if each.same_until == _last_common(each)]
    longest = max(pairs, key=lambda each: each.broke_at)
    return (
        f"Identical until the bang: in {len(same)} of {len(pairs)} pairs of a naive and torch's"
        " cost of the same seed the losses agree within 1% at every recorded step before the naive"
        f" one breaks, and torch's goes on. {longest.setting.workload} {longest.setting.precision}"
        f" at {longest.naive.rate:g}: largest difference {longest.largest_difference:.1e} until"
        f" step {longest.broke_at}; torch's loss over the {WINDOW} steps before it is"
        f" {longest.loss_before:.3g}, over its last {WINDOW} {longest.loss_after:.3g}."
    )


def _last_common(pair: Agreement) -> int:
    history = pair.naive.record.get("history") or {}
    steps = [
        step
        for step, loss in zip(history.get("step", []), history.get("loss", []), strict=False)
        if loss is not None and step < pair.broke_at
    ]
    return max(steps, default=-1)


def training_markdown(run: Run) -> str:
    """The table in Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    lines += [f"| {' | '.join(cells(row))} |" for row in training_rows(run.records)]
    return "\n".join(lines) + "\n"


def training_csv(run: Run) -> str:
    """The table's numbers, a line a curve."""
    rows = training_json(run)
    stream = io.StringIO()
    fields = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(stream, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def training_json(run: Run) -> list[dict[str, Any]]:
    """The table as plain data; what does not exist is left out."""
    found = []
    for row in training_rows(run.records):
        setting, value, fit = row.curve.setting, row.sensitivity, row.clock
        entry: dict[str, Any] = {
            "id": row.id,
            "workload": setting.workload,
            "operation": row.curve.operation,
            "path": setting.path,
            "precision": setting.precision,
            "normalization": setting.normalization,
            "initialization": setting.initialization,
            "optimizer": setting.optimizer,
            "schedule": setting.schedule,
            "clip": setting.clip,
            "steps": row.curve.steps,
            "runs": len(row.curve.runs),
            "highest_stable": row.curve.highest_stable(),
            "lowest_unstable": row.lowest_unstable,
            "sensitivity": value.value if value else None,
            "best_loss": value.best_loss if value else None,
            "best_rate": value.best_rate if value else None,
            "best_metric": value.best_metric if value else None,
            "diverged": value.diverged if value else None,
            "slope": fit.slope if fit else None,
            "slope_low": fit.low if fit else None,
            "slope_high": fit.high if fit else None,
            "slope_verdict": fit.verdict if fit else None,
            "skipped_share": row.skipped_share or None,
            "cause": row.causes[0][0] if row.causes else None,
            "unsupported": row.curve.unsupported or None,
        }
        found.append({name: each for name, each in entry.items() if each is not None})
    return found
