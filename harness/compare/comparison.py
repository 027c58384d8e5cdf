"""The whole comparison of two runs: every station's findings, and what stands above them."""

from dataclasses import dataclass
from pathlib import Path

from harness.compare.environment import (
    Difference,
    asked_alike,
    check_comparable,
    environment_differences,
    versions,
)
from harness.compare.frontiers import frontier_moves
from harness.compare.matching import Rename, match
from harness.compare.speed import LEAST_CHANGE, Speed, compare_speed
from harness.compare.stability import Stability, verdict_changes, withdrawn_claims
from harness.compare.training import Training, compare_training
from harness.errors import InputError
from harness.store import Run


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed from the base to the new run."""

    base: Path
    new: Path
    environment: tuple[Difference, ...]
    stability: Stability
    speed: Speed
    training: Training
    missing: tuple[str, ...]  # ids on the grid, in base alone
    added: tuple[str, ...]  # ids on the grid, in the new run alone
    renamed: tuple[Rename, ...]
    unfinished: tuple[str, ...]  # why either run is not all there; empty: both are whole


def compare_runs(
    base: Run, new: Run, *, any_device: bool = False, least_change: float = LEAST_CHANGE
) -> Comparison:
    """Compare case by case, frontier by frontier, timing by timing, curve by curve.

    `least_change` is the smallest change of speed that counts, as a share: 0.03 is 3%.

    Raises:
        InputError: if the runs come from different devices or seeds and this was not allowed, have
            no case in common, or `least_change` is no share between 0 and 1.
    """
    if not 0.0 < least_change < 1.0:
        raise InputError(
            f"the least change of speed is a share between 0 and 1, as in 0.03, not {least_change}"
        )
    differences = environment_differences(base, new)
    found = match(base, new)
    if not any_device:
        timed = any(old.get("samples") and now.get("samples") for old, now in found.pairs)
        device = new.environment.get("device")
        kind = device.get("kind") if isinstance(device, dict) else None
        check_comparable(differences, timed=timed, kind=kind)
    if not found.pairs:
        raise InputError(
            f"{base.directory} and {new.directory} have no case in common; nothing can be compared"
        )
    worse, better, other, same = verdict_changes(found.pairs)
    stability = Stability(
        worse,
        better,
        other,
        withdrawn_claims(found.pairs, found.missing, asked_alike=asked_alike(base, new)),
        frontier_moves(base.records, new.records),
        same,
    )
    alike = versions(base) == versions(new)
    return Comparison(
        base.directory,
        new.directory,
        differences,
        stability,
        compare_speed(found.pairs, least_change=least_change, same_versions=alike),
        compare_training(found.pairs),
        tuple(record.id for record in found.missing),
        tuple(record.id for record in found.new),
        found.renamed,
        (*_unfinished(base), *_unfinished(new)),
    )


def _unfinished(run: Run) -> tuple[str, ...]:
    """A regression could hide in what was not measured, or cannot be read."""
    missing = () if run.complete else (f"{run.directory} is not complete",)
    damaged = tuple(f"{run.directory}: {problem}" for problem in run.problems)
    return (*missing, *damaged)
