"""What came of one run, before it is a record."""

from dataclasses import dataclass, field
from typing import Any

from harness.record import Record
from harness.training.precision import PRECISIONS
from harness.training.setting import Lane, Setting, run_id
from harness.training.watch import Notes
from harness.verdict import Verdict, verdict_named

_COLLAPSED = 20  # skipped steps in a row at the end, with which loss scaling has given up


@dataclass(frozen=True, slots=True)
class Outcome:
    """One lane's result; losses and metric are the evaluator's, None where not finite."""

    lane: Lane
    notes: Notes
    initial_loss: float | None
    final_loss: float | None
    final_metric: float | None
    measured: dict[str, float] = field(default_factory=dict)  # what the workload adds


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a group of runs was computed."""

    engine: str  # "lanes" or "alone"
    lanes: int  # beside each other
    seconds: float  # of all of them, with their evaluation
    training: float  # of these, for their steps alone
    steps: int  # of all of them, as far as they went
    steps_per_epoch: int
    peak_bytes: int | None = None  # of memory taken by all of them together


def training_record(
    setting: Setting,
    operation: str,
    steps: int,
    outcome: Outcome,
    conditions: Conditions,
    *,
    roles: tuple[str, ...],
    refined: bool,
) -> Record:
    """The record of one run. `roles` are the slices that asked for it."""
    notes, bad = outcome.notes, outcome.notes.first_bad
    place = bad.place if bad else None
    collapsed = notes.skipped_in_a_row >= _COLLAPSED
    learned = (
        outcome.final_loss is not None
        and outcome.initial_loss is not None
        and outcome.final_loss <= outcome.initial_loss
    )
    verdict = verdict_named(bad.word) if bad else Verdict.OK
    cause = bad.cause if bad else None
    if collapsed:
        cause = "loss_scale_collapse"
    elif cause is None and not learned:
        cause = "divergence"
    data: dict[str, Any] = {
        "workload": setting.workload,
        "precision": setting.precision,
        "learning_rate": outcome.lane.rate,
        "seed": outcome.lane.seed,
        "normalization": setting.normalization,
        "initialization": setting.initialization,
        "optimizer": setting.optimizer,
        "schedule": setting.schedule,
        "clip": setting.clip,
        "steps": steps,
        "slices": list(roles) or None,
        "first_bad_step": bad.step if bad else None,
        "first_bad_epoch": bad.step // conditions.steps_per_epoch if bad else None,
        "phase": bad.phase if bad else None,
        "first_bad": bad.quantity if bad else None,
        "module": place.module if place else None,
        "op": place.op if place else None,
        "location": place.location if place else None,
        "cause": cause,
        "diverged": not learned,
        "initial_loss": outcome.initial_loss,
        "final_loss": outcome.final_loss,
        "final_metric": outcome.final_metric,
        "skipped_steps": notes.skipped or None,
        "measured": outcome.measured or None,
        "history": notes.history,
        "engine": conditions.engine,
        "lanes": conditions.lanes,
        "steps_per_second": round(conditions.steps / max(conditions.training, 1e-9), 3),
        "peak_bytes": conditions.peak_bytes,
        "refined": True if refined else None,
        "seconds": round(conditions.seconds, 6),
    }
    return Record(
        run_id(setting, operation, steps, outcome.lane),
        "training",
        operation,
        setting.path,
        PRECISIONS[setting.precision].dtype,
        verdict,
        data,
    )


def fault_record(
    setting: Setting, operation: str, steps: int, lane: Lane, reason: str, verdict: Verdict
) -> Record:
    """The record of a run that cannot be had here, or of somebody's own model that raised."""
    data = {
        "workload": setting.workload,
        "precision": setting.precision,
        "learning_rate": lane.rate,
        "seed": lane.seed,
        "normalization": setting.normalization,
        "initialization": setting.initialization,
        "optimizer": setting.optimizer,
        "schedule": setting.schedule,
        "clip": setting.clip,
        "steps": steps,
        "reason": reason,
    }
    return Record(
        run_id(setting, operation, steps, lane),
        "training",
        operation,
        setting.path,
        PRECISIONS[setting.precision].dtype,
        verdict,
        data,
    )
