"""A run's training table as Markdown, CSV and JSON."""

import csv
import io
from dataclasses import asdict
from typing import Any

from harness.store import Run
from harness.training.agreement import agreements
from harness.training.curves import curves_of
from harness.training.render import HEAD, cells
from harness.training.table import Row, training_rows


def training_markdown(run: Run) -> str:
    """The table in Markdown."""
    names = ["training", *HEAD, "where and why"]
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(_line(row))} |" for row in training_rows(run.records)]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> tuple[str, ...]:
    if not row.curve.runs:
        return (row.name, str(row.curve.steps), *("-",) * (len(HEAD) - 1), row.curve.unsupported)
    where = "; ".join(f"{count}: {place}" for place, count in row.places[:2])
    return (row.name, *cells(row), where or "-")


def training_csv(run: Run) -> str:
    """The table's numbers, a line a curve."""
    rows = training_json(run)["curves"]
    stream = io.StringIO()
    fields = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(stream, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def training_json(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Curves, and the pairs of a naive and torch's cost step by step, as plain data."""
    return {
        "curves": [_plain(row) for row in training_rows(run.records)],
        "agreements": [
            {
                "naive": pair.naive.record.id,
                "stable": pair.stable.record.id,
                "broke_at": pair.broke_at,
                "same_until": pair.same_until,
                "largest_difference": pair.largest_difference,
                "loss_before": pair.loss_before,
                "loss_after": pair.loss_after,
                "steps": [asdict(each) for each in pair.steps],
            }
            for pair in agreements(curves_of(run.records))
        ],
    }


def _plain(row: Row) -> dict[str, Any]:
    """What does not exist is left out."""
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
        "where": row.places[0][0] if row.places else None,
        "steps_per_second": max(_numbers(row, "steps_per_second"), default=None),
        "peak_bytes": max(_numbers(row, "peak_bytes"), default=None),
        "unsupported": row.curve.unsupported or None,
    }
    return {name: each for name, each in entry.items() if each is not None}


def _numbers(row: Row, name: str) -> list[float]:
    found = [run.record.get(name) for run in row.curve.runs]
    return [each for each in found if isinstance(each, int | float)]
