"""What the training suite would run: the declared slices, filtered, as one item a curve."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from harness.errors import InputError, unknown
from harness.formats import FORMATS
from harness.magnitudes import MagnitudeRange
from harness.plan import Filters
from harness.training.declare import Declared, Slice
from harness.training.own import OwnWorkload, is_own, own_slices, own_workload
from harness.training.precision import PRECISIONS
from harness.training.setting import Lane, Setting, curve_id, run_id
from harness.training.workload import Workload

_QUICK_SEEDS = 2


@dataclass(frozen=True, slots=True)
class TrainingItem:
    """One pytest item: a curve, all its rates and seeds."""

    workload: Workload | OwnWorkload
    setting: Setting
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    steps: int
    slices: tuple[str, ...]
    dense: bool = False
    refine: int = 0
    widen: bool = False
    gpu: bool = False  # too long for a CPU

    @property
    def id(self) -> str:
        return curve_id(self.setting, self.workload.operation, self.steps)

    def lanes(self, rates: Iterable[float] | None = None) -> list[Lane]:
        """The runs of these rates, or of the grid."""
        chosen = self.rates if rates is None else tuple(rates)
        return [Lane(rate, seed) for rate in chosen for seed in self.seeds]

    def ids(self) -> list[str]:
        """The ids of the grid's runs; refining adds others."""
        operation = self.workload.operation
        return [run_id(self.setting, operation, self.steps, lane) for lane in self.lanes()]


def training_plan(declared: Declared, filters: Filters, *, seed: int) -> list[TrainingItem]:
    """The curves that the filters select.

    Without --full the slices of level quick and default, with --quick those of level quick alone at
    two seeds. --lr replaces every grid. A --workload with a colon is somebody's own.

    Raises:
        InputError: if a filter names nothing that is declared, or all together leave nothing.
    """
    if filters.quick and filters.full:
        raise InputError("--quick and --full exclude each other; give one of them")
    mine = [own_workload(each) for each in filters.workload if is_own(each)]
    named = tuple(each for each in filters.workload if not is_own(each))
    slices = [
        *(each for own in mine for each in own_slices(own, filters.precision)),
        *(_declared_slices(declared, filters) if named or not mine else ()),
    ]
    workloads: dict[str, Workload | OwnWorkload] = {**declared.workloads}
    workloads |= {each.name: each for each in mine}
    _check_names(workloads, slices, filters, named)
    items: dict[tuple[Setting, int], TrainingItem] = {}
    for one in slices:
        for setting in one.settings:
            if _selected(setting, workloads[setting.workload], filters, named):
                item = _item(one, setting, workloads[setting.workload], filters, seed)
                key = (item.setting, item.steps)
                items[key] = _merged(items[key], item) if key in items else item
    if not items:
        raise InputError(
            "the filters together select nothing of the training suite; see stability list training"
        )
    first, count = filters.shard
    return list(items.values())[first - 1 :: count]


def _declared_slices(declared: Declared, filters: Filters) -> list[Slice]:
    levels = {"quick"} if filters.quick else {"quick", "default"}
    if filters.full:
        levels |= {"full", "gpu"}
    found = list(declared.slices)
    found += [s for each in declared.advice for trial in each.trials for s in trial.slices()]
    return [each for each in found if each.level in levels]


def _item(
    one: Slice, setting: Setting, workload: Workload | OwnWorkload, filters: Filters, seed: int
) -> TrainingItem:
    seeds = min(one.seeds, _QUICK_SEEDS) if filters.quick else one.seeds
    rates = one.rates if filters.rate is None else tuple(rate_grid(filters.rate))
    return TrainingItem(
        workload,
        setting,
        tuple(sorted(rates)),
        tuple(range(seed, seed + seeds)),
        one.steps or workload.steps,
        (one.name,),
        one.dense,
        0 if filters.quick or filters.rate is not None else one.refine,
        one.widen and not filters.quick and filters.rate is None,
        one.level == "gpu",
    )


def _merged(first: TrainingItem, second: TrainingItem) -> TrainingItem:
    """Both asked for this curve: all rates and seeds of either."""
    return replace(
        first,
        rates=tuple(sorted({*first.rates, *second.rates})),
        seeds=max(first.seeds, second.seeds, key=len),
        slices=tuple(dict.fromkeys((*first.slices, *second.slices))),
        dense=first.dense or second.dense,
        refine=max(first.refine, second.refine),
        widen=first.widen or second.widen,
        gpu=first.gpu and second.gpu,
    )


def rate_grid(within: MagnitudeRange) -> list[float]:
    """Learning rates of a range, to three digits, both ends among them."""
    if within.low <= 0:
        raise InputError("a learning rate must be positive; --lr takes A:B[:PER_DECADE]")
    if within.single:
        return [within.low]
    count = max(1, round(math.log10(within.high / within.low) * within.per_decade))
    ratio = (within.high / within.low) ** (1 / count)
    return [float(f"{within.low * ratio**place:.3g}") for place in range(count + 1)]


def _selected(
    setting: Setting, workload: Workload | OwnWorkload, filters: Filters, named: tuple[str, ...]
) -> bool:
    own = isinstance(workload, OwnWorkload)
    return (
        (own or _matches(named, setting.workload))
        and _matches(filters.operation, workload.operation)
        and _matches(filters.path, setting.path)
        and _matches(filters.precision, setting.precision)
        and _matches(filters.dtype, PRECISIONS[setting.precision].dtype)
    )


def _check_names(
    workloads: dict[str, Workload | OwnWorkload],
    slices: list[Slice],
    filters: Filters,
    named: tuple[str, ...],
) -> None:
    settings = [setting for each in slices for setting in each.settings]
    for kind, patterns, names in (
        ("workload", named, list(workloads)),
        ("operation", filters.operation, [each.operation for each in workloads.values()]),
        ("path", filters.path, [each.path for each in settings]),
        ("precision", filters.precision, list(PRECISIONS)),
        ("dtype", filters.dtype, list(FORMATS)),
    ):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise unknown(kind, pattern, dict.fromkeys(names))


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
