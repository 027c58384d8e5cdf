"""What a suite declares as data: slices of settings, and pieces of advice as trials."""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness.errors import InputError
from harness.training.setting import Setting
from harness.training.workload import Workload

# "gpu": part of --full, too long for a CPU; there its records say so.
Level = Literal["quick", "default", "full", "gpu"]
DEFAULT = "suites.training.declared"


@dataclass(frozen=True, slots=True)
class Slice:
    """Some curves, and what they are to show.

    `refine` halves the gap between the highest stable and the lowest unstable rate so often;
    `widen` adds rates while the best one is at the edge of the grid; `dense` records the loss of
    every step.
    """

    name: str
    settings: tuple[Setting, ...]
    rates: tuple[float, ...]
    seeds: int
    steps: int | None = None  # None: the workload's
    level: Level = "default"
    dense: bool = False
    refine: int = 0
    widen: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """One experiment on a piece of advice: runs of the control and of the treatment, in pairs.

    A pair has the same seed, and the treatment's learning rate is the control's times
    `rate_factor`. `steps_factor` gives the treatment more steps, so that a smaller rate gets the
    same way to go.
    """

    control: Setting
    treatment: Setting
    rates: tuple[float, ...]  # of the control
    steps: int  # of the control
    rate_factor: float = 1.0
    steps_factor: int = 1
    seeds: int = 5
    level: Level = "full"

    def slices(self) -> tuple[Slice, Slice]:
        """What must run."""
        rates = tuple(float(f"{rate * self.rate_factor:.6g}") for rate in self.rates)
        control = Slice(
            "advice", (self.control,), self.rates, self.seeds, self.steps, level=self.level
        )
        treated = replace(
            control,
            settings=(self.treatment,),
            rates=rates,
            steps=self.steps * self.steps_factor,
        )
        return control, treated


@dataclass(frozen=True, slots=True)
class Advice:
    """A piece of advice as people give it, and the trials that put it to the test."""

    name: str
    quote: str
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class Declared:
    """What a suite's module declares."""

    workloads: Mapping[str, Workload]
    slices: tuple[Slice, ...]
    advice: tuple[Advice, ...]


def load_declared(name: str | None = None) -> Declared:
    """Import a module with WORKLOADS, SLICES and ADVICE.

    Raises:
        InputError: if it cannot be imported or lacks one of them.
    """
    wanted = name or DEFAULT
    for folder in (str(Path(__file__).resolve().parents[2]), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.append(folder)
    try:
        module = importlib.import_module(wanted)
        return Declared(
            {each.name: each for each in module.WORKLOADS},
            tuple(module.SLICES),
            tuple(module.ADVICE),
        )
    except Exception as error:  # the module's own code, which may raise anything
        raise InputError(
            f"cannot read the training suite {wanted!r}: {type(error).__name__}: {error};"
            " it needs WORKLOADS, SLICES and ADVICE"
        ) from error
