"""Identical until the bang: a naive and a stable cost from the same seed, step by step."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from harness.training.curves import Curve, RunOf
from harness.training.setting import Setting

_WITHIN = 0.01  # losses this close, relative, count as the same
WINDOW = 20  # steps over which a stable run's batch losses are averaged


@dataclass(frozen=True, slots=True)
class Agreement:
    """A pair of runs of one rate and seed. Losses are those of the training batches."""

    naive: RunOf
    stable: RunOf
    setting: Setting  # of the naive run
    stable_path: str
    compared: int  # steps at which both losses are known
    largest_difference: float  # relative, before the break
    same_until: int  # the last step up to which all differences are within 1%
    broke_at: int
    loss_before: float  # the stable run's, the mean of the steps before the break
    loss_after: float  # and of its last steps


def agreements(
    curves: Mapping[tuple[Setting, int], Curve], *, naive: str = "naive", stable: str = "torch"
) -> list[Agreement]:
    """Every run of the naive path that broke, beside the stable path's run of the same seed."""
    found = []
    for (setting, steps), curve in curves.items():
        other = curves.get((replace(setting, path=stable), steps))
        if setting.path != naive or other is None:
            continue
        for run in curve.runs:
            beside = other.at(run.rate, run.seed)
            if run.bad_step and beside is not None and beside.well:
                pair = _compared(run, beside, setting, stable)
                found += [pair] if pair else []
    return found


def _compared(naive: RunOf, stable: RunOf, setting: Setting, path: str) -> Agreement | None:
    assert naive.bad_step is not None
    first, second = _losses(naive), _losses(stable)
    common = [step for step in sorted(first) if step in second and step < naive.bad_step]
    if not common:
        return None
    differences = {
        step: abs(first[step] - second[step]) / max(abs(second[step]), 1e-12) for step in common
    }
    same_until = -1
    for step in common:
        if differences[step] > _WITHIN:
            break
        same_until = step
    return Agreement(
        naive,
        stable,
        setting,
        path,
        len(common),
        max(differences.values()),
        same_until,
        naive.bad_step,
        fmean(second[step] for step in common if step > common[-1] - WINDOW),
        fmean(second[step] for step in second if step > max(second) - WINDOW),
    )


def _losses(run: RunOf) -> dict[int, float]:
    history = run.record.get("history") or {}
    steps, losses = history.get("step", []), history.get("loss", [])
    return {
        int(step): float(loss)
        for step, loss in zip(steps, losses, strict=False)
        if loss is not None and step is not None
    }
