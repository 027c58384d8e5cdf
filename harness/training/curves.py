"""Recorded runs put together as curves: all rates and seeds of a setting."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.record import Record
from harness.training.setting import Setting
from harness.verdict import Verdict


@dataclass(frozen=True, slots=True)
class RunOf:
    """One recorded run, as the analyses need it."""

    rate: float
    seed: int
    bad_step: int | None
    diverged: bool
    initial_loss: float | None
    final_loss: float | None
    metric: float | None
    cause: str
    record: Record

    @property
    def well(self) -> bool:
        """It stayed finite and ended no worse than untrained."""
        return self.bad_step is None and not self.diverged and self.final_loss is not None


@dataclass(frozen=True, slots=True)
class Curve:
    """All runs of a setting with the same number of steps."""

    setting: Setting
    operation: str
    steps: int
    runs: tuple[RunOf, ...]
    unsupported: str = ""  # why there are none

    @property
    def rates(self) -> list[float]:
        return sorted({run.rate for run in self.runs})

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})

    def at(self, rate: float, seed: int) -> RunOf | None:
        """The run of a rate and seed, None where there is none."""
        return next((run for run in self.runs if run.rate == rate and run.seed == seed), None)

    def highest_stable(self, seed: int | None = None) -> float | None:
        """The last rate, going up, before the first at which a run (of that seed) went badly."""
        stable = None
        for rate in self.rates:
            runs = [r for r in self.runs if r.rate == rate and seed in (None, r.seed)]
            if not all(run.well for run in runs):
                break
            stable = rate if runs else stable
        return stable


def curves_of(records: Iterable[Record]) -> dict[tuple[Setting, int], Curve]:
    """The curves of a run's training records, in the order in which they were recorded."""
    groups: dict[tuple[Setting, int], list[Record]] = {}
    for record in records:
        if record.suite == "training":
            groups.setdefault((_setting(record), int(record.get("steps", 0))), []).append(record)
    return {key: _curve(key, group) for key, group in groups.items()}


def _setting(record: Record) -> Setting:
    return Setting(
        record["workload"],
        record.path,
        record.get("precision") or record.dtype,
        record.get("normalization") or "none",
        record.get("initialization") or "default",
        record.get("optimizer") or "sgd",
        record.get("schedule") or "constant",
        record.get("clip"),
    )


def _curve(key: tuple[Setting, int], group: list[Record]) -> Curve:
    faulty = [each for each in group if each.verdict.is_fault]
    runs = tuple(_run(each) for each in group if not each.verdict.is_fault)
    reason = str(faulty[0].get("reason", faulty[0].verdict.word)) if faulty and not runs else ""
    return Curve(key[0], group[0].operation, key[1], runs, reason)


def _run(record: Record) -> RunOf:
    bad = record.get("first_bad_step")
    if bad is None and record.verdict is not Verdict.OK:
        bad = 0  # of a stranger's run that does not say when
    return RunOf(
        float(record["learning_rate"]),
        int(record["seed"]),
        bad,
        bool(record.get("diverged", False)),
        record.get("initial_loss"),
        record.get("final_loss"),
        record.get("final_metric"),
        str(record.get("cause") or ""),
        record,
    )
