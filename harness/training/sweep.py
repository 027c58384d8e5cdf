"""The runs of one curve: the engine is chosen by measurement, the grid widened and refined."""

import itertools
from collections.abc import Callable, Sequence
from statistics import median

from harness.errors import InputError
from harness.record import Record
from harness.training.lanes import run_lanes
from harness.training.outcome import Conditions, Outcome, fault_record, training_record
from harness.training.own import OwnWorkload, run_own
from harness.training.plan import TrainingItem
from harness.training.precision import PRECISIONS
from harness.training.sequential import run_sequential
from harness.training.setting import Lane
from harness.training.stopwatch import Clock
from harness.verdict import Verdict

_PROBE_STEPS = 8
_WIDENED = 2  # times, each by a decade

# (workload, precision, storage of the cost) -> whether lanes were faster; of this process.
_CHOSEN: dict[tuple[str, ...], bool] = {}


def sweep_curve(item: TrainingItem, *, device: str) -> list[Record]:
    """Train all runs of an item and return their records, the grid's last.

    The grid's ids are what --resume looks for: where a write was cut off, some of them are missing.
    """
    reason = _unsupported(item, device)
    if reason is not None:
        lane = item.lanes()[0]
        operation = item.workload.operation
        missing = Verdict.UNSUPPORTED
        return [fault_record(item.setting, operation, item.steps, lane, reason, missing)]
    grid = _run(item, item.lanes(), device, refined=False)
    if any(each.verdict is Verdict.ERROR for each in grid):
        return grid
    wide: list[Record] = []
    for _ in range(_WIDENED if item.widen else 0):
        more = _beyond(grid + wide)
        if not more:
            break
        wide += _run(item, item.lanes(more), device, refined=False)
    between = _between(grid + wide, item.refine)
    refined = _run(item, item.lanes(between), device, refined=True) if between else []
    return refined + wide + grid


def _unsupported(item: TrainingItem, device: str) -> str | None:
    if item.gpu and device != "cuda":
        return "declared for a GPU"
    found = PRECISIONS[item.setting.precision].unsupported(device)
    if found is not None or isinstance(item.workload, OwnWorkload):
        return found
    return item.workload.absent(item.setting.path, device)


def _run(item: TrainingItem, lanes: Sequence[Lane], device: str, *, refined: bool) -> list[Record]:
    records = []
    try:
        trained = _trained(item, lanes, device)
    except InputError as error:  # somebody's own model raised in the middle of a run
        operation, broken = item.workload.operation, Verdict.ERROR
        return [
            fault_record(item.setting, operation, item.steps, lane, str(error), broken)
            for lane in lanes
        ]
    for outcomes, conditions in trained:
        records += [
            training_record(
                item.setting,
                item.workload.operation,
                item.steps,
                outcome,
                conditions,
                roles=item.slices,
                refined=refined,
            )
            for outcome in outcomes
        ]
    return records


def _trained(
    item: TrainingItem, lanes: Sequence[Lane], device: str
) -> list[tuple[list[Outcome], Conditions]]:
    workload, setting = item.workload, item.setting
    if isinstance(workload, OwnWorkload):
        return [run_own(workload, setting, lanes, item.steps, device=device)]
    with workload.context(setting):
        if setting.normalization in workload.modules or not _lanes_faster(item, lanes, device):
            return [
                run_sequential(
                    workload, setting, lanes, item.steps, device=device, dense=item.dense
                )
            ]
        most = workload.most_lanes
        groups = [lanes[first : first + most] for first in range(0, len(lanes), most)]
        return [
            run_lanes(workload, setting, group, item.steps, device=device, dense=item.dense)
            for group in groups
        ]


def _lanes_faster(item: TrainingItem, lanes: Sequence[Lane], device: str) -> bool:
    """Measured once a process for a workload, precision and kind of cost, on a few steps."""
    workload, setting = item.workload, item.setting
    assert not isinstance(workload, OwnWorkload)
    count = min(len(lanes), workload.most_lanes)
    if count < 2:
        return False
    key = (workload.name, setting.precision, str(setting.path == "triton"), setting.normalization)
    if key not in _CHOSEN:
        together, alone = (
            _seconds(
                lambda steps: run_lanes(workload, setting, lanes[:count], steps, device=device),
                device,
            ),
            _seconds(
                lambda steps: run_sequential(workload, setting, lanes[:1], steps, device=device),
                device,
            ),
        )
        _CHOSEN[key] = together <= count * alone
    return _CHOSEN[key]


def _seconds(engine: Callable[[int], object], device: str) -> float:
    """What a few steps of an engine take, without what every run takes besides; the least of two.

    Before them come steps that are not counted: the first call of anything takes longer.
    """
    engine(1)
    found = []
    for _ in range(2):
        short, long = (_of(engine, steps, device) for steps in (1, 1 + _PROBE_STEPS))
        found.append(long - short)
    return min(found)


def _of(engine: Callable[[int], object], steps: int, device: str) -> float:
    clock = Clock(device, busy=True)
    engine(steps)
    return clock.seconds()


def _losses(records: Sequence[Record]) -> dict[float, float]:
    """The median final loss of each rate at which every run ended with one."""
    by_rate: dict[float, list[float | None]] = {}
    for record in records:
        by_rate.setdefault(record["learning_rate"], []).append(record.get("final_loss"))
    return {
        rate: median(each for each in losses if each is not None)
        for rate, losses in by_rate.items()
        if None not in losses
    }


def _beyond(records: Sequence[Record]) -> list[float]:
    """Two rates beyond the grid where its edge has the best loss, none where that lies inside."""
    losses = _losses(records)
    if not losses:
        return []
    best = min(losses, key=losses.__getitem__)
    rates = sorted({record["learning_rate"] for record in records})
    if best not in (rates[0], rates[-1]):
        return []
    way = 1 if best == rates[-1] else -1
    return [float(f"{best * 10 ** (way * step):.3g}") for step in (0.5, 1.0)]


def _between(records: Sequence[Record], halvings: int) -> list[float]:
    """Rates that cut the gap between the highest stable and the lowest unstable one.

    As fine as that many halvings, but all at once: beside each other they cost little more than one
    by one, and show whether stability is monotone there.
    """
    by_rate: dict[float, bool] = {}
    for record in records:
        rate = record["learning_rate"]
        by_rate[rate] = (
            by_rate.get(rate, True) and not record["diverged"] and record.verdict.is_accurate
        )
    rates = sorted(by_rate)
    for low, high in itertools.pairwise(rates):
        if by_rate[low] and not by_rate[high]:
            parts = 2**halvings
            cuts = [low * (high / low) ** (place / parts) for place in range(1, parts)]
            return [rate for cut in cuts if low < (rate := float(f"{cut:.3g}")) < high]
    return []
