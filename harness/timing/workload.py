"""What of an operation is timed: sizes, given by the catalog as a few lines of data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.operation import Operation

Level = Literal["quick", "default", "full"]
LEVELS: tuple[Level, ...] = ("quick", "default", "full")  # each includes those before it


@dataclass(frozen=True, slots=True)
class Size:
    """One shape of the first role: tokens by vocabulary for a loss, tokens by width for a norm."""

    rows: int
    columns: int
    level: Level = "default"
    # What the shape does not say, as in ("classes", 32000): stands in the case's id.
    options: tuple[tuple[str, int], ...] = field(default=())

    @property
    def elements(self) -> int:
        """Of the first role."""
        return self.rows * self.columns


def _as_it_is(operation: Operation, size: Size) -> Operation:
    return operation


@dataclass(frozen=True, slots=True)
class Workload:
    """The sizes of an operation, by machine, and how the operation itself depends on the size.

    `adapted` gives the operation whose regimes draw, and whose bound judges, inputs of a size; most
    operations need nothing of the kind. `slice` are further (regime, magnitude) pairs, measured at
    the `quick` sizes: does a kernel slow down on large, masked or non-finite input?
    """

    cuda: tuple[Size, ...]
    cpu: tuple[Size, ...]
    slice: tuple[tuple[str, float], ...] = field(default=())
    adapted: Callable[[Operation, Size], Operation] = field(default=_as_it_is)

    def sizes(self, device: str, level: Level) -> list[Size]:
        """Those of a level and below it, the quick ones first."""
        upto = LEVELS[: LEVELS.index(level) + 1]
        every = self.cuda if device == "cuda" else self.cpu
        return sorted(
            (each for each in every if each.level in upto), key=lambda s: LEVELS.index(s.level)
        )


# For an operation that a catalog names no sizes for.
ORDINARY = Workload(
    cuda=(Size(16_384, 4096, "quick"), Size(65_536, 1024), Size(4096, 32_768)),
    cpu=(Size(256, 1024, "quick"),),
    slice=(("nonfinite", 1.0),),
)


def workload_of(name: str, declared: object) -> Workload:
    """The workload that a catalog declares for an operation, as its mapping `speed_workloads`."""
    if isinstance(declared, Mapping):
        found = declared.get(name)
        if isinstance(found, Workload):
            return found
    return ORDINARY
