"""The runs of a report, each with its letter, its label and the rows of its table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.atlas import Atlas, survey
from harness.catalog import DEFAULT
from harness.errors import InputError
from harness.record import Record, pass_of
from harness.store import Run
from harness.table import Row, table_rows
from harness.unmeasured import is_measured

Where = tuple[str, str, str, str]  # operation, pass, path, dtype
Counts = Mapping[Where, Mapping[str, tuple[int, int]]]  # of each layout: wrong cases, all cases

MOST_RUNS = 8  # side by side; beyond it no screen shows a row of each


@dataclass(frozen=True, slots=True)
class Shown:
    """A run as the page shows it."""

    letter: str  # "A", "B", ... in the order given
    label: str  # device and versions
    run: Run
    folded: tuple[Row, ...]  # a row a path and dtype
    by_regime: tuple[Row, ...]  # and one for each layout of the input
    atlas: Atlas  # where each path breaks
    counts: Counts  # of what could be measured, as in the atlas

    @property
    def seed(self) -> object:
        return self.run.environment.get("seed", 0)

    @property
    def catalog(self) -> str | None:
        """The catalog that a command must name; None for the default one."""
        named = table_of(self.run.environment, "asked").get("catalog")
        return None if named in (None, DEFAULT) else str(named)

    def of_suite(self, suite: str) -> list[Record]:
        """The records of one suite, in order."""
        return [record for record in self.run.records if record.suite == suite]


def shown_runs(runs: Sequence[Run]) -> list[Shown]:
    """Letters and labels for runs, and their tables.

    Raises:
        InputError: for no run, more than MOST_RUNS, or a run without records.
    """
    if not 1 <= len(runs) <= MOST_RUNS:
        raise InputError(f"a report shows 1 to {MOST_RUNS} runs side by side, not {len(runs)}")
    for run in runs:
        if not run.records:
            raise InputError(f"{run.directory} has no records yet; there is nothing to report")
    labels = _distinct(runs)
    return [_shown(chr(65 + k), labels[k], run) for k, run in enumerate(runs)]


def _shown(letter: str, label: str, run: Run) -> Shown:
    catalog = run.environment.get("catalog")
    folded = table_rows(run.records, by_regime=False, catalog=catalog)
    by_regime = table_rows(run.records, by_regime=True, catalog=catalog)
    every = (tuple(folded), tuple(by_regime))
    return Shown(letter, label, run, *every, survey(run), _counts(run))


def where_of(row: Row) -> Where:
    """What a row's layouts and runs have in common."""
    return row.operation, row.pass_, row.path, row.dtype


def _counts(run: Run) -> Counts:
    found: dict[Where, dict[str, tuple[int, int]]] = {}
    for record in run.records:
        if record.suite == "stability" and is_measured(record):
            where = (record.operation, pass_of(record), record.path, record.dtype)
            layouts = found.setdefault(where, {})
            wrong, cases = layouts.get(record["regime"], (0, 0))
            layouts[record["regime"]] = (wrong + (not record.verdict.is_accurate), cases + 1)
    return found


def _distinct(runs: Sequence[Run]) -> list[str]:
    """Labels by device and versions; where two are alike, by when and where as well."""
    plain = [_label(run) for run in runs]
    return [
        label if plain.count(label) == 1 else f"{label}, {_when(run)}, {run.directory.name}"
        for label, run in zip(plain, runs, strict=True)
    ]


def _label(run: Run) -> str:
    device = table_of(run.environment, "device")
    versions = table_of(run.environment, "versions")
    names = dict.fromkeys(str(device[key]) for key in ("name", "model") if device.get(key))
    told = [" ".join(names) or "unknown device"]
    told += [f"{name} {versions[name]}" for name in ("torch", "triton") if name in versions]
    return ", ".join(told)


def _when(run: Run) -> str:
    return str(run.environment.get("started", "no date"))[:16].replace("T", " ")


def table_of(environment: dict[str, Any], key: str) -> dict[str, Any]:
    """A part of run.json that should be an object; empty where the file has something else."""
    part = environment.get(key)
    return part if isinstance(part, dict) else {}


def in_order(names: Iterable[str], first: Iterable[str] = ()) -> list[str]:
    """Names without repeats: those of `first` that occur, then the others as they come."""
    every = list(dict.fromkeys(names))
    known = [name for name in first if name in every]
    return known + [name for name in every if name not in known]
