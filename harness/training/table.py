"""The rows of a training table: one a curve, with what its rates and seeds add up to."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from harness.record import Record
from harness.training.clock import Clock, clock
from harness.training.curves import Curve, RunOf, curves_of
from harness.training.sensitivity import Sensitivity, sensitivity
from harness.training.setting import curve_id


@dataclass(frozen=True, slots=True)
class Row:
    """A curve in a line. Rates and losses are None where no run says."""

    id: str
    curve: Curve
    sensitivity: Sensitivity | None
    clock: Clock | None
    lowest_unstable: float | None
    first_bad: tuple[tuple[float, float], ...]  # (rate, median first bad step) where any run broke
    causes: tuple[tuple[str, int], ...]  # most frequent first
    places: tuple[tuple[str, int], ...]  # "forward, aten.exp in cost: overflow", likewise
    skipped_share: float  # of all steps, left out by loss scaling

    @property
    def name(self) -> str:
        """The setting, without what every row has."""
        return f"{self.curve.setting.workload} {self.within}"

    @property
    def within(self) -> str:
        """The setting within its workload."""
        setting = self.curve.setting
        parts = [setting.path, setting.precision]
        parts += [
            value if name != "clip" else f"clip {value}"
            for name, value in setting.options.items()
            if (name, value) != ("optimizer", "sgd")
        ]
        return " ".join(parts)


def training_rows(records: Iterable[Record]) -> list[Row]:
    """The rows of a run, in the order of its records."""
    return [_row(curve) for curve in curves_of(records).values()]


def _row(curve: Curve) -> Row:
    stable = curve.highest_stable()
    above = [rate for rate in curve.rates if stable is None or rate > stable]
    broke = {
        rate: [r.bad_step for r in curve.runs if r.rate == rate and r.bad_step is not None]
        for rate in curve.rates
    }
    causes = Counter(run.cause for run in curve.runs if run.cause)
    skipped = sum(int(run.record.get("skipped_steps") or 0) for run in curve.runs)
    return Row(
        curve_id(curve.setting, curve.operation, curve.steps),
        curve,
        sensitivity(curve),
        clock(curve),
        above[0] if above else None,
        tuple((rate, float(median(steps))) for rate, steps in broke.items() if steps),
        tuple(causes.most_common()),
        tuple(Counter(_place(r) for r in curve.runs if r.bad_step is not None).most_common()),
        skipped / max(1, curve.steps * len(curve.runs)),
    )


def _place(run: RunOf) -> str:
    """Where a run went bad, and why, in words."""
    record = run.record
    if record.get("op"):
        where = f"{record['op']} in {record.get('module')}"
    else:  # a stranger's record, or a step that was finite when run again alone
        where = str(record.get("first_bad") or "somewhere")
    return f"{record.get('phase') or 'unknown phase'}, {where}: {run.cause or 'unknown'}"
