"""What the speed suite would time: filters applied to the catalog's workloads, as cases."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from harness.catalog import DEFAULT
from harness.errors import InputError, unknown
from harness.formats import FORMATS
from harness.operation import Operation
from harness.plan import Filters
from harness.timing.speed_case import (
    SPEED_PASSES,
    SpeedCase,
    SpeedGroup,
    SpeedPass,
    group_of,
    has_point,
)
from harness.timing.workload import Level, Size, Workload, workload_of

# What a level times where no --dtype says otherwise: of its first sizes, and of the others. People
# train in bf16; the others are for the ratio, at one size.
_DTYPES: Mapping[str, Mapping[Level, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "cuda": {
        "quick": (("bf16",), ()),
        "default": (("bf16", "fp32"), ("bf16",)),
        "full": (("bf16", "fp16", "fp32", "fp64"), ("bf16", "fp16", "fp32")),
    },
    "cpu": {
        "quick": (("fp32",), ()),
        "default": (("fp32", "bf16"), ("fp32",)),
        "full": (("fp32", "bf16", "fp16", "fp64"), ("fp32", "bf16")),
    },
}
_SLICE_DTYPE = {"cuda": "bf16", "cpu": "fp32"}
_SLICE_PASS: SpeedPass = "both"


def declared_workloads(catalog: str | None) -> object:
    """What the catalog module, imported before, declares as `speed_workloads`; else None."""
    return getattr(sys.modules.get(catalog or DEFAULT), "speed_workloads", None)


def level_of(filters: Filters) -> Level:
    """How much is asked for; raises InputError for --quick and --full at once."""
    if filters.quick and filters.full:
        raise InputError("--quick and --full exclude each other; give one of them")
    return "quick" if filters.quick else "full" if filters.full else "default"


def speed_plan(
    catalog: Mapping[str, Operation], declared: object, filters: Filters, *, device: str
) -> list[SpeedCase]:
    """The cases that the filters select, the paths of a group next to each other.

    The first sizes of all operations come first, then their slices of regimes, then the other
    sizes: where time runs out the least important is left.

    Raises:
        InputError: if a filter matches nothing in the catalog, or all together leave nothing.
    """
    level = level_of(filters)
    _check_names(catalog, filters)
    operations = [each for each in catalog.values() if _matches(filters.operation, each.name)]
    groups: dict[str, SpeedGroup] = {}
    for stage in (_first_sizes, _slices, _other_sizes):
        for operation in operations:
            workload = workload_of(operation.name, declared)
            for group in stage(operation, workload, filters, device, level):
                groups.setdefault(group.id, group)
    within = filters.magnitude
    kept = [
        group
        for group in groups.values()
        if _matches(filters.regime, group.regime.name)
        and (within is None or within.low <= group.magnitude <= within.high)
    ]
    first, count = filters.shard
    cases = _cases(kept[first - 1 :: count], filters)
    if not cases:
        raise InputError(
            "the filters together select nothing of the speed suite: it times the regime normal at"
            " 1 and a few others at one size; see stability list speed"
        )
    return cases


def _cases(groups: Sequence[SpeedGroup], filters: Filters) -> list[SpeedCase]:
    """The paths of each group; one that is absent here says so once an operation and dtype."""
    told = set[tuple[str, str, str]]()
    cases = []
    for group in groups:
        for path in group.operation.paths:
            if not _matches(filters.path, path.name):
                continue
            key = (group.operation.name, group.fmt.name, path.name)
            if key not in told or not path.absent():
                told.add(key)
                cases.append(SpeedCase(group, path))
    return cases


def _first_sizes(
    operation: Operation, workload: Workload, filters: Filters, device: str, level: Level
) -> Iterator[SpeedGroup]:
    sizes = [each for each in workload.sizes(device, level) if each.level == "quick"]
    dtypes = _dtypes(filters, _DTYPES[device][level][0])
    yield from _plain(operation, workload, sizes, dtypes, filters, device, level)


def _other_sizes(
    operation: Operation, workload: Workload, filters: Filters, device: str, level: Level
) -> Iterator[SpeedGroup]:
    sizes = [each for each in workload.sizes(device, level) if each.level != "quick"]
    dtypes = _dtypes(filters, _DTYPES[device][level][1])
    yield from _plain(operation, workload, sizes, dtypes, filters, device, level)


def _plain(
    operation: Operation,
    workload: Workload,
    sizes: Sequence[Size],
    dtypes: Sequence[str],
    filters: Filters,
    device: str,
    level: Level,
) -> Iterator[SpeedGroup]:
    for size in sizes:
        sized = workload.adapted(operation, size)
        for dtype in dtypes:
            for pass_ in _passes(filters, level):
                yield group_of(
                    sized, FORMATS[dtype], "normal", 1.0, size, pass_, device=device, level=level
                )


def _slices(
    operation: Operation, workload: Workload, filters: Filters, device: str, level: Level
) -> Iterator[SpeedGroup]:
    """Other layouts and magnitudes at the first size; the regimes asked for by name, at 1."""
    if level == "quick" and not filters.regime:
        return
    points = list(workload.slice)
    points += [(name, 1.0) for name in _named(filters, operation)]
    passes = [each for each in SPEED_PASSES if filters.pass_ and _matches(filters.pass_, each)]
    for size in workload.sizes(device, "quick")[:1]:
        sized = workload.adapted(operation, size)
        for dtype in _dtypes(filters, (_SLICE_DTYPE[device],)):
            for regime, magnitude in dict.fromkeys(points):
                if has_point(sized, FORMATS[dtype], regime, magnitude):
                    for pass_ in passes or [_SLICE_PASS]:
                        yield group_of(
                            sized,
                            FORMATS[dtype],
                            regime,
                            magnitude,
                            size,
                            pass_,
                            device=device,
                            level=level,
                        )


def _named(filters: Filters, operation: Operation) -> list[str]:
    """The operation's regimes that a filter names; none where nothing is asked for."""
    if not filters.regime:
        return []
    return [each.name for each in operation.regimes if _matches(filters.regime, each.name)]


def _dtypes(filters: Filters, usual: Sequence[str]) -> list[str]:
    if not filters.dtype:
        return list(usual)
    return [name for name in FORMATS if usual and _matches(filters.dtype, name)]


def _passes(filters: Filters, level: Level) -> list[SpeedPass]:
    if not filters.pass_ and level == "quick":
        return ["both"]
    return [each for each in SPEED_PASSES if _matches(filters.pass_, each)]


def _check_names(catalog: Mapping[str, Operation], filters: Filters) -> None:
    within = [each for each in catalog.values() if _matches(filters.operation, each.name)]
    for kind, patterns, names in (
        ("operation", filters.operation, list(catalog)),
        ("dtype", filters.dtype, list(FORMATS)),
        ("pass", filters.pass_, list(SPEED_PASSES)),
        ("path", filters.path, [path.name for each in within for path in each.paths]),
        ("regime", filters.regime, [regime.name for each in within for regime in each.regimes]),
    ):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise unknown(kind, pattern, dict.fromkeys(names))


def _matches(patterns: Sequence[str], name: str) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
