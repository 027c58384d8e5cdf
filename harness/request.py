"""What a run was asked to do, as typed and as run.json remembers it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.case import decimal
from harness.catalog import DEFAULT
from harness.errors import InputError
from harness.magnitudes import MagnitudeRange, parse_range
from harness.plan import Filters, parse_shard
from harness.reading import read_environment


@dataclass(frozen=True, slots=True)
class Request:
    """The options of `stability run` that decide which cases run; None and empty: the default."""

    operation: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    dtype: tuple[str, ...] = ()
    regime: tuple[str, ...] = ()
    pass_: tuple[str, ...] = ()
    magnitude: str | None = None
    quick: bool = False
    seed: int | None = None
    catalog: str | None = None
    shard: str | None = None
    full: bool = False
    workload: tuple[str, ...] = ()
    precision: tuple[str, ...] = ()
    lr: str | None = None

    def filters(self) -> Filters:
        """Parsed; raises InputError for a malformed range or shard."""
        return Filters(
            self.operation,
            self.path,
            self.dtype,
            self.regime,
            self.pass_,
            parse_range(self.magnitude) if self.magnitude is not None else None,
            self.quick,
            parse_shard(self.shard) if self.shard is not None else (1, 1),
            self.full,
            self.workload,
            self.precision,
            parse_range(self.lr) if self.lr is not None else None,
        )

    def arguments(self) -> list[str]:
        """The same as options of the pytest plugin."""
        several = {
            "operation": self.operation,
            "path": self.path,
            "dtype": self.dtype,
            "regime": self.regime,
            "pass": self.pass_,
            "workload": self.workload,
            "precision": self.precision,
        }
        given = [f"--{name}={value}" for name, values in several.items() for value in values]
        single = {
            "magnitude": self.magnitude,
            "lr": self.lr,
            "seed": self.seed,
            "catalog": self.catalog,
            "shard": self.shard,
        }
        given += [f"--{name}={value}" for name, value in single.items() if value is not None]
        return given + ["--quick"] * self.quick + ["--full"] * self.full


def resumed(request: Request, directory: Path) -> Request:
    """What the run in a directory was asked to do, which a resumption must not change.

    Modules that it would import are named on the command line, or are this project's own: a file
    names no code.

    Raises:
        InputError: if options were given and differ from the recorded ones, run.json lacks them, or
            it names code that the command line does not.
    """
    recorded = _recorded(directory)
    named = _code(request)
    # None given but what run.json may not name by itself: then the rest is as recorded.
    if replace(request, catalog=None, workload=()) == Request():
        request = replace(
            recorded,
            catalog=request.catalog or recorded.catalog,
            workload=request.workload or recorded.workload,
        )
    if _canonical(request) != _canonical(recorded):
        asked = " ".join(recorded.arguments()) or "no filters"
        raise InputError(
            f"{directory} was started with {asked}; resume it with the same options, or with none"
        )
    for option, module in sorted(_code(recorded) - named):
        raise InputError(
            f"to resume {directory} would import {module}, which its run.json names; if you trust"
            f" that code, name it yourself: {option} {module}"
        )
    return recorded


def _code(request: Request) -> set[tuple[str, str]]:
    """The modules outside this project that a request imports, each with its option."""
    found = {("--workload", each) for each in request.workload if ":" in each}
    if request.catalog is not None:
        found.add(("--catalog", request.catalog))
    return {(option, name) for option, name in found if not name.startswith("suites.")}


def suites_of(directory: Path) -> list[str]:
    """The suites that the run in a directory was asked for; none where run.json does not say."""
    asked = read_environment(directory).get("asked")
    named = asked.get("suite") if isinstance(asked, dict) else None
    return named.split() if isinstance(named, str) else []


def _recorded(directory: Path) -> Request:
    environment = read_environment(directory)
    asked = environment.get("asked")
    try:
        assert isinstance(asked, dict)
        within, rate = asked["magnitude"], asked.get("lr")
        return Request(
            operation=tuple(map(str, asked["operation"])),
            path=tuple(map(str, asked["path"])),
            dtype=tuple(map(str, asked["dtype"])),
            regime=tuple(map(str, asked["regime"])),
            pass_=tuple(map(str, asked["pass"])),
            magnitude=_typed(MagnitudeRange(*within)) if within is not None else None,
            quick=bool(asked["quick"]),
            seed=int(environment["seed"]),
            catalog=str(asked["catalog"]),
            shard=str(asked["shard"]),
            # Older runs know none of these.
            full=bool(asked.get("full", False)),
            workload=tuple(map(str, asked.get("workload", ()))),
            precision=tuple(map(str, asked.get("precision", ()))),
            lr=_typed(MagnitudeRange(*rate)) if rate is not None else None,
        )
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{directory / 'run.json'} does not say what was asked for ({error!r}); start a new run"
        ) from None


def _typed(within: MagnitudeRange) -> str:
    return f"{decimal(within.low)}:{decimal(within.high)}:{within.per_decade}"


def _canonical(request: Request) -> Any:
    """Equal for requests that mean the same."""
    within, rate = request.filters().magnitude, request.filters().rate
    return replace(
        request,
        lr=_typed(rate) if rate is not None else None,
        magnitude=_typed(within) if within is not None else None,
        seed=request.seed or 0,
        catalog=request.catalog or DEFAULT,
        shard="/".join(str(part) for part in request.filters().shard),
    )
