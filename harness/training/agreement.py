"""Identical until the bang: a naive and a stable cost from the same seed, step by step."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean, median

from harness.training.curves import Curve, RunOf
from harness.training.setting import Setting

_WITHIN = 0.01  # losses this close, relative, count as the same
WINDOW = 20  # steps over which a stable run's batch losses are averaged


@dataclass(frozen=True, slots=True)
class Both:
    """One step of a pair. The naive loss is None from the break on."""

    step: int
    naive: float | None
    stable: float
    difference: float | None  # relative to the stable one


@dataclass(frozen=True, slots=True)
class Agreement:
    """A pair of runs of one rate and seed. Losses are those of the training batches."""

    naive: RunOf
    stable: RunOf
    setting: Setting  # of the naive run
    stable_path: str
    steps: tuple[Both, ...]  # those that both recorded, and the stable run's after them
    largest_difference: float  # relative, before the break
    same_until: int  # the last step up to which all differences are within 1%; -1: none
    broke_at: int
    loss_before: float  # the stable run's, the mean of the steps before the break
    loss_after: float  # and of its last steps

    @property
    def compared(self) -> int:
        """How many steps have both losses."""
        return sum(each.difference is not None for each in self.steps)

    @property
    def to_the_end(self) -> bool:
        """Whether they agree within 1% at every recorded step before the break."""
        return all(each.difference is None or each.step <= self.same_until for each in self.steps)

    @property
    def name(self) -> str:
        """Workload, precision, rate and seed."""
        head = f"{self.setting.workload} {self.setting.precision}"
        return f"{head} at {self.naive.rate:g}, seed {self.naive.seed}"


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


def longest(pairs: Iterable[Agreement]) -> list[Agreement]:
    """Of each workload and precision the pair that went furthest together, of many steps first."""
    best: dict[tuple[str, str], Agreement] = {}
    for pair in pairs:
        key = (pair.setting.workload, pair.setting.precision)
        if key not in best or _reach(pair) > _reach(best[key]):
            best[key] = pair
    return sorted(best.values(), key=_reach, reverse=True)


def _reach(pair: Agreement) -> tuple[int, int]:
    return pair.compared, pair.broke_at


def thinned(pair: Agreement) -> list[Both]:
    """Of many steps those that tell: one a doubling, the last before the break, the end."""
    before = [each for each in pair.steps if each.difference is not None]
    after = [each for each in pair.steps if each.difference is None]
    wanted = {2**power for power in range(20)} | {0}
    chosen = [each for each in before[:-3] if each.step in wanted]
    ends = [each for each in after if each.step in wanted] + after[-1:]
    return chosen + before[-3:] + list(dict.fromkeys(after[:1] + ends))


def summary(pairs: list[Agreement]) -> str:
    """What all pairs together say."""
    same = sum(each.to_the_end for each in pairs)
    shares = [(each.same_until + 1) / each.broke_at for each in pairs]
    goes_on = sum(each.loss_after < each.loss_before for each in pairs)
    return (
        f"{len(pairs)} runs of a naive cost that broke, beside torch's of"
        f" the same seed. In {same} of them the losses agree within 1% at every recorded step"
        f" before the break; half of the pairs do so for at least {median(shares):.0%} of the way."
        f" In {goes_on} torch's loss is lower at the end than just before the break of the other."
    )


def _compared(naive: RunOf, stable: RunOf, setting: Setting, path: str) -> Agreement | None:
    assert naive.bad_step is not None
    first, second = _losses(naive), _losses(stable)
    steps = [
        Both(step, None, loss, None)
        if step >= naive.bad_step
        else Both(step, first[step], loss, abs(first[step] - loss) / max(abs(loss), 1e-12))
        for step, loss in sorted(second.items())
        if step >= naive.bad_step or step in first
    ]
    differences = {each.step: each.difference for each in steps if each.difference is not None}
    if not differences:
        return None
    same_until = -1
    for step, difference in differences.items():
        if difference > _WITHIN:
            break
        same_until = step
    last = max(differences)
    return Agreement(
        naive,
        stable,
        setting,
        path,
        tuple(steps),
        max(differences.values()),
        same_until,
        naive.bad_step,
        fmean(second[step] for step in differences if step > last - WINDOW),
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
