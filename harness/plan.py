"""What would run: filters applied to a catalog, as items of (operation, path, dtype, regime)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from harness.case import PASSES, Case, Pass, decimal
from harness.errors import InputError, unknown
from harness.formats import FORMATS, Format
from harness.magnitudes import MagnitudeRange, grid

if TYPE_CHECKING:  # torch, which a merge of runs does not need
    from harness.operation import Operation, Path, Regime


@dataclass(frozen=True, slots=True)
class Item:
    """One pytest item: its whole magnitude axis is evaluated as rows of one launch."""

    operation: "Operation"
    path: "Path"
    fmt: Format
    regime: "Regime"
    magnitudes: tuple[float, ...]
    passes: tuple[Pass, ...]
    alone: bool = False  # one magnitude and pass, apart from others that may bring it down
    refined: bool = False  # a magnitude that the bisection of a frontier visited

    @property
    def id(self) -> str:
        name = "/".join(self.key)
        return f"{name}@{decimal(self.magnitudes[0])}/{self.passes[0]}" if self.alone else name

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.operation.name, self.path.name, self.fmt.name, self.regime.name

    def case(self, magnitude: float, pass_: Pass) -> Case:
        """The case of one magnitude and pass."""
        operation, path, dtype, regime = self.key
        shape = self.operation.shape_in(self.regime)
        options = tuple(
            (key, decimal(value) if isinstance(value, float) else str(value))
            for key, value in sorted(self.regime.options.items())
        )
        return Case(operation, path, dtype, regime, magnitude, shape, pass_, options)

    def cases(self) -> list[Case]:
        """The cases of the grid; refining a frontier adds those that it visits."""
        return [self.case(each, pass_) for each in self.magnitudes for pass_ in self.passes]


@dataclass(frozen=True, slots=True)
class Filters:
    """What was asked for: exact names or globs, empty for everything."""

    operation: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    dtype: tuple[str, ...] = ()
    regime: tuple[str, ...] = ()
    pass_: tuple[str, ...] = ()
    magnitude: MagnitudeRange | None = None
    quick: bool = False
    shard: tuple[int, int] = field(default=(1, 1))  # I of N, counted from 1
    full: bool = False  # all of the speed and training suites
    workload: tuple[str, ...] = ()  # of the training suite, as are the next two
    precision: tuple[str, ...] = ()
    rate: MagnitudeRange | None = None


def parse_shard(text: str) -> tuple[int, int]:
    """Read `I/N`, 1 <= I <= N; raises InputError for anything else."""
    first, slash, second = text.partition("/")
    if slash and all(re.fullmatch("[0-9]{1,9}", each) for each in (first, second)):
        place, count = int(first), int(second)
        if 1 <= place <= count:
            return place, count
    raise InputError(f"malformed shard {text[:40]!r}; expected I/N with 1 <= I <= N, as in 2/8")


def plan(catalog: Mapping[str, "Operation"], filters: Filters) -> list[Item]:
    """The items that the filters select, paths of one truth next to each other; of a path that is
    absent here one case a dtype.

    Raises:
        InputError: if a filter matches nothing in the catalog, or all filters together leave
            nothing.
    """
    operations = _chosen("operation", filters.operation, catalog)
    formats = _chosen("dtype", filters.dtype, FORMATS)
    passes = tuple(each for each in PASSES if each in _chosen("pass", filters.pass_, PASSES))
    within = [catalog[name] for name in operations]
    _chosen("path", filters.path, [path.name for each in within for path in each.paths])
    _chosen("regime", filters.regime, [regime.name for each in within for regime in each.regimes])
    items = []
    for operation in within:
        paths = [path for path in operation.paths if _matches(filters.path, path.name)]
        absent = {path.name for path in paths if path.absent()}
        for fmt in (FORMATS[name] for name in formats):
            told = set[str]()
            for regime in operation.regimes:
                points = grid(fmt, regime.magnitudes(fmt), filters.magnitude, quick=filters.quick)
                if not points or not _matches(filters.regime, regime.name):
                    continue
                for path in paths:
                    if path.name not in absent:
                        items.append(Item(operation, path, fmt, regime, tuple(points), passes))
                    elif path.name not in told:
                        told.add(path.name)
                        one = min(points, key=lambda point: abs(point - 1.0))
                        items.append(Item(operation, path, fmt, regime, (one,), passes))
    if not items:
        raise InputError(
            "the filters together select nothing: no such path and regime in one operation, or no"
            " magnitude of the range is a float of the dtype within the regime; see stability list"
        )
    first, count = filters.shard
    return items[first - 1 :: count]


def _matches(patterns: Sequence[str], name: str) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _chosen(kind: str, patterns: Sequence[str], names: Iterable[str]) -> list[str]:
    """The names that the patterns select; a pattern that selects none is an error."""
    every = list(dict.fromkeys(names))
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in every):
            raise unknown(kind, pattern, every)
    return [name for name in every if _matches(patterns, name)]
