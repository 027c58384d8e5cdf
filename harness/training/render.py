"""A run's training tables on a screen of 80 columns; the text of `stability table`."""

import itertools
from collections import Counter
from typing import TYPE_CHECKING

from harness.store import Run
from harness.training.agreement import Agreement, agreements, longest, summary, thinned
from harness.training.curves import curves_of
from harness.training.precision import PRECISIONS
from harness.training.table import Row, training_rows

if TYPE_CHECKING:
    from rich.console import Console

HEAD = ("steps", "stable", "loss", "sens.", "bad", "first bad step")
_NAME = 24  # columns of a setting
_PLACES = 3  # of a setting, the most frequent
_PAIRS = 3  # shown step by step


def has_training(run: Run) -> bool:
    """Whether a run has training records."""
    return any(record.suite == "training" for record in run.records)


def print_training(console: "Console", run: Run) -> None:
    """The curves of each workload, where they broke, and a naive cost beside torch's."""
    rows = sorted(training_rows(run.records), key=_order)
    for workload, group in itertools.groupby(rows, key=lambda row: row.curve.setting.workload):
        _print_workload(console, workload, list(group))
    console.print(
        "stable: the highest rate at which, and below which, every run stayed finite and ended"
        " no worse than untrained. loss: the lowest.\n"
        "sens.: learning-rate sensitivity (Wortsman et al. 2023); *: the best rate is at the edge"
        " of the grid.\n"
        "bad: share of runs that went bad or ended worse than untrained.\n"
        "first bad step: the slope of its logarithm against that of the rate, ± a 95% interval. -1"
        " is a clock: the same way, sooner or later; cliff: below a rate nothing broke although the"
        " line says so; or the step at the lowest rate that broke.",
        highlight=False,
    )
    pairs = agreements(curves_of(run.records))
    if pairs:
        console.print(f"\nIdentical until the bang: {summary(pairs)}", highlight=False)
        for pair in longest(pairs)[:_PAIRS]:
            _print_steps(console, pair)


def _order(row: Row) -> tuple[str, int, str, int, str, int]:
    """Plain settings first; those that differ in the path alone beside each other."""
    setting = row.curve.setting
    options = " ".join(f"{name} {value}" for name, value in sorted(setting.options.items()))
    precision = list(PRECISIONS).index(setting.precision) if setting.precision in PRECISIONS else -1
    few = len(setting.options)
    return setting.workload, few, options, precision, setting.path, row.curve.steps


def _print_workload(console: "Console", workload: str, rows: list[Row]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column(workload, overflow="fold", max_width=_NAME)
    for name in HEAD:
        last = name == HEAD[-1]
        table.add_column(name, justify="left" if last else "right", no_wrap=True)
    for row in rows:
        if row.curve.runs:
            table.add_row(row.within, *cells(row))
    console.print(table)
    for row in rows:
        if not row.curve.runs:
            console.print(f"{row.within}: {row.curve.unsupported}", highlight=False)
    _print_places(console, rows)
    console.print()


def _print_places(console: "Console", rows: list[Row]) -> None:
    """A line a setting, of all its rates and seeds: how many runs, at which operation, why."""
    from rich.table import Table

    places: dict[str, Counter[str]] = {}
    for row in rows:
        places.setdefault(row.within, Counter()).update(dict(row.places))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("went bad", max_width=_NAME, overflow="fold")
    table.add_column("runs", justify="right")
    table.add_column("where, and why", overflow="fold")
    for name, found in places.items():
        for place, count in found.most_common(_PLACES):
            table.add_row(name, str(count), place)
            name = ""
    if table.row_count:
        console.print(table)


def cells(row: Row) -> tuple[str, ...]:
    """The cells of a row with runs, as HEAD names them."""
    found = row.sensitivity
    stable = row.curve.highest_stable()
    learned = found is not None and found.diverged < 1.0
    return (
        str(row.curve.steps),
        f"{stable:g}" if stable is not None else "none",
        f"{found.best_loss:.3g}" if found and learned else "-",
        sensitivity_words(row),
        f"{found.diverged:.0%}" if found else "-",
        first_bad_words(row),
    )


def sensitivity_words(row: Row) -> str:
    """Of fewer than three rates, or where none went well, it says nothing about rates."""
    found = row.sensitivity
    if found is None or len(row.curve.rates) < 3 or found.diverged == 1.0:
        return "-"
    return f"{found.value:.3g}{'*' if found.best_at_edge else ''}"


def first_bad_words(row: Row) -> str:
    """The fitted slope with its interval and the verdict, or what there is without a fit."""
    if row.clock is not None:
        it = row.clock
        return f"{it.slope:.2f}±{it.high - it.slope:.2f} {it.verdict}"
    if not row.first_bad:
        return "never"
    rate, step = row.first_bad[0]
    return f"{step:g} at {rate:g}"


def _print_steps(console: "Console", pair: Agreement) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("step", "naive", pair.stable_path, "difference"):
        table.add_column(name, justify="right")
    for each in thinned(pair):
        table.add_row(
            str(each.step),
            "not finite" if each.naive is None else f"{each.naive:.6g}",
            f"{each.stable:.6g}",
            "" if each.difference is None else f"{each.difference:.1e}",
        )
    console.print(f"\n{pair.name}: the naive cost broke at step {pair.broke_at}", highlight=False)
    console.print(table)
