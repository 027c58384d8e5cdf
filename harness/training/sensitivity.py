"""Learning-rate sensitivity (Wortsman et al. 2023, arXiv 2309.14322).

The mean over the grid of min(final loss, untrained loss) minus the best final loss. A run that went
to NaN, or to anything not finite, counts as infinitely bad before the min, so as untrained.
"""

from dataclasses import dataclass
from statistics import fmean, median

from harness.training.curves import Curve


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Of one curve; losses are the evaluator's, the median over seeds at each rate."""

    value: float
    best_loss: float
    best_rate: float
    best_at_edge: bool  # the grid should have been wider
    diverged: float  # fraction of runs that went bad or ended worse than untrained
    highest_stable: float | None
    best_metric: float | None  # median of the seeds at the best rate


def sensitivity(curve: Curve) -> Sensitivity | None:
    """None where no run knows its untrained loss, or none ended finite."""
    before = [run.initial_loss for run in curve.runs if run.initial_loss is not None]
    if not before:
        return None
    untrained = median(before)
    # Refined rates crowd around the edge of stability: the mean is over the logarithmic grid.
    runs = [run for run in curve.runs if not run.record.get("refined")] or list(curve.runs)
    rates = sorted({run.rate for run in runs})
    capped = {}
    for rate in rates:
        losses = [
            min(run.final_loss if run.final_loss is not None else float("inf"), untrained)
            for run in runs
            if run.rate == rate
        ]
        capped[rate] = median(losses)
    best_rate = min(capped, key=capped.__getitem__)
    metrics = [run.metric for run in runs if run.rate == best_rate and run.metric is not None]
    return Sensitivity(
        fmean(capped.values()) - capped[best_rate],
        capped[best_rate],
        best_rate,
        best_rate in (rates[0], rates[-1]),
        sum(not run.well for run in runs) / len(runs),
        curve.highest_stable(),
        median(metrics) if metrics else None,
    )
