"""One training set-up, everything but its learning rate and seed, and the ids of its runs."""

from dataclasses import dataclass, fields

from harness.case import decimal
from harness.errors import unknown

# What ids leave out, so that they stay readable: an axis that is as most runs have it.
_USUAL = {"normalization": "none", "initialization": "default", "schedule": "constant"}


@dataclass(frozen=True, slots=True)
class Setting:
    """The axes of a curve. `clip` is the largest gradient norm, None for no clipping."""

    workload: str
    path: str = "naive"  # of the cost
    precision: str = "fp32"
    normalization: str = "none"
    initialization: str = "default"
    optimizer: str = "sgd"
    schedule: str = "constant"
    clip: float | None = None

    @property
    def options(self) -> dict[str, str]:
        """The axes beside workload, path and precision that an id names."""
        found = {"optimizer": self.optimizer}
        for name, usual in _USUAL.items():
            if getattr(self, name) != usual:
                found[name] = getattr(self, name)
        if self.clip is not None:
            found["clip"] = decimal(self.clip)
        return found


@dataclass(frozen=True, slots=True)
class Lane:
    """One run of a setting."""

    rate: float  # learning rate
    seed: int  # of initialisation and order of the data


def check_axes(setting: Setting, valid: dict[str, list[str]]) -> None:
    """Raise InputError for a value of an axis that does not exist; `valid` holds names by axis."""
    for each in fields(setting):
        names = valid.get(each.name)
        if names is not None and getattr(setting, each.name) not in names:
            raise unknown(each.name, getattr(setting, each.name), names)


def curve_id(setting: Setting, operation: str, steps: int) -> str:
    """The id of a curve: `digits_mlp/cross_entropy/naive/fp16/optimizer=sgd/steps=300`."""
    tail = setting.options | {"steps": str(steps)}
    return "/".join([*_head(setting, operation), *_sorted(tail)])


def run_id(setting: Setting, operation: str, steps: int, lane: Lane) -> str:
    """The id of one run: `digits_mlp/cross_entropy/naive/fp16/lr@0.3/optimizer=sgd/seed=0/...`."""
    tail = setting.options | {"seed": str(lane.seed), "steps": str(steps)}
    return "/".join([*_head(setting, operation), f"lr@{decimal(lane.rate)}", *_sorted(tail)])


def _head(setting: Setting, operation: str) -> tuple[str, ...]:
    return setting.workload, operation, setting.path, setting.precision


def _sorted(options: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in sorted(options.items())]
