"""One timed case and its group: all paths of a group are measured together, round by round."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from harness.case import decimal
from harness.errors import InputError
from harness.formats import Format
from harness.operation import Operation, Path, Regime
from harness.timing.workload import Level, Size

SpeedPass = Literal["forward", "backward", "both"]
SPEED_PASSES: tuple[SpeedPass, ...] = ("forward", "backward", "both")


@dataclass(frozen=True, slots=True)
class SpeedGroup:
    """What all paths of an item have in common: operation, inputs, pass.

    "both" is forward and backward in one timed call, as a training step does them. `regime` bears
    the size's shape, and `operation` is the one that judges inputs of that size.
    """

    operation: Operation
    fmt: Format
    regime: Regime
    magnitude: float
    size: Size
    pass_: SpeedPass
    device: str  # "cuda" or "cpu", and the timer's name
    level: Level

    @property
    def shape(self) -> tuple[int, int]:
        return self.size.rows, self.size.columns

    @property
    def options(self) -> dict[str, str]:
        """Sorted, as they stand in the id."""
        found: dict[str, object] = {**self.regime.options, **dict(self.size.options)}
        texts = {
            key: decimal(value) if isinstance(value, float) else str(value)
            for key, value in found.items()
        }
        return dict(sorted((texts | {"timer": self.device}).items()))

    @property
    def inputs_key(self) -> tuple[str, ...]:
        """Equal for groups with the same inputs, which the passes share."""
        names = (self.operation.name, self.fmt.name, self.regime.name, decimal(self.magnitude))
        return (*names, f"{self.shape}", f"{self.size.options}")

    def id_of(self, path: str) -> str:
        """The id of a path's case, as `Case.id` writes it."""
        rows, columns = self.shape
        parts = [self.operation.name, path, self.fmt.name]
        parts += [f"{self.regime.name}@{decimal(self.magnitude)}", f"{rows}x{columns}", self.pass_]
        return "/".join([*parts, *(f"{key}={value}" for key, value in self.options.items())])

    @property
    def id(self) -> str:
        """The same without a path."""
        return self.id_of("*")


@dataclass(frozen=True, slots=True)
class SpeedCase:
    """One pytest item of the speed suite: a path of a group."""

    group: SpeedGroup
    path: Path

    @property
    def id(self) -> str:
        return self.group.id_of(self.path.name)


def group_of(
    operation: Operation,
    fmt: Format,
    regime: str,
    magnitude: float,
    size: Size,
    pass_: SpeedPass,
    *,
    device: str,
    level: Level,
) -> SpeedGroup:
    """A group whose regime has the size's shape; raises InputError for a regime it lacks."""
    shaped = replace(operation.regime(regime), shape=(size.rows, size.columns))
    within = shaped.magnitudes(fmt)
    rounded = fmt.round(magnitude)
    if not within[0] <= rounded <= within[1]:
        raise InputError(
            f"the regime {regime} of {operation.name} has no magnitude {decimal(rounded)} in"
            f" {fmt.name}"
        )
    return SpeedGroup(operation, fmt, shaped, rounded, size, pass_, device, level)


def has_point(operation: Operation, fmt: Format, regime: str, magnitude: float) -> bool:
    """Whether the operation has that regime, and the regime that magnitude in the format."""
    found: Mapping[str, Regime] = {each.name: each for each in operation.regimes}
    if regime not in found:
        return False
    low, high = found[regime].magnitudes(fmt)
    return low <= fmt.round(magnitude) <= high
