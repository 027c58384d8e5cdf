"""The part of the plugin that owns the run directory: opens it, writes records, ends it."""

import json
import os
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.catalog import DEFAULT, load_catalog
from harness.environment import describe, device_name
from harness.errors import InputError
from harness.operation import Path as OperationPath
from harness.plan import Filters, Item, plan
from harness.progress import SweepProgress
from harness.record import record_from_dict
from harness.store import Writer, load
from harness.supervise.journal import Journal
from harness.supervise.suspects import divided
from harness.timing.speed_case import SpeedCase
from harness.timing.speed_plan import declared_workloads, speed_plan

if TYPE_CHECKING:
    from harness.training.plan import TrainingItem

ARGV = "STABILITY_ARGV"  # the command line of `stability run`, handed to the pytest it starts
SUITES = "STABILITY_SUITES"  # the suites it was asked for, where it starts several pytests
# The fixtures whose parameters are measured and recorded, and the suite that each belongs to.
MEASURED = {
    "stability_item": "stability",
    "speed_case": "speed",
    "training_item": "training",
}


@dataclass(slots=True)
class Session:
    """What this pytest session sweeps, and where it writes."""

    filters: Filters
    seed: int
    device: str
    catalog: str | None
    out: Path | None
    resume: bool
    show_progress: bool
    items: list[Item] | None = field(default=None)
    done_before: set[str] | None = field(default=None)
    cases: list[SpeedCase] | None = field(default=None)
    curves: "list[TrainingItem] | None" = field(default=None)
    budget_s: float | None = None  # seconds after which the speed suite starts nothing more
    suites: set[str] = field(default_factory=set)  # those that are collected
    problem: str = ""  # why nothing can be planned, for whoever may say so
    journal: Journal | None = None  # where there is a supervisor
    suspects: dict[str, list[float]] = field(default_factory=dict)  # items to run in parts

    def planned(self) -> list[Item]:
        """The selected items; the catalog is imported here, for the first time."""
        if self.items is None:
            self.items = divided(plan(load_catalog(self.catalog), self.filters), self.suspects)
        return self.items

    def planned_speed(self) -> list[SpeedCase]:
        """The selected cases of the speed suite."""
        if self.cases is None:
            catalog = load_catalog(self.catalog)
            declared = declared_workloads(self.catalog)
            self.cases = speed_plan(catalog, declared, self.filters, device=self.device)
        return self.cases

    def planned_training(self) -> "list[TrainingItem]":
        """The selected curves of the training suite, which brings torch's function transforms."""
        from harness.training.declare import load_declared
        from harness.training.plan import training_plan

        if self.curves is None:
            self.curves = training_plan(load_declared(), self.filters, seed=self.seed)
        return self.curves

    def speed_left(self) -> list[SpeedCase]:
        """Those to measure: the groups that the resumed run does not have whole.

        A group that it has in part is measured again whole, since its paths are compared round by
        round; what is recorded already is not written twice.
        """
        done = self.recorded_before()
        open_groups = {each.group.id for each in self.planned_speed() if each.id not in done}
        return [each for each in self.planned_speed() if each.group.id in open_groups]

    def recorded_before(self) -> set[str]:
        """Ids in the run that is resumed, which are neither measured nor written again."""
        if self.done_before is None:
            self.done_before = set()
            if self.resume and self.out is not None and (self.out / "run.json").exists():
                self.done_before = {record.id for record in load(self.out).records}
        return self.done_before

    def catalog_order(self) -> dict[str, list[str]]:
        """The names of the planned items in the catalog's order, which tables follow."""
        every = load_catalog(self.catalog)
        operations = [every[name] for name in dict.fromkeys(o for o, _ in self._measured())]
        return {
            "operations": [each.name for each in operations],
            "paths": [f"{each.name}/{path.name}" for each in operations for path in each.paths],
            "regimes": list(
                dict.fromkeys(regime.name for each in operations for regime in each.regimes)
            ),
        }

    def packages(self) -> dict[str, str]:
        """Which distribution ships a planned path, as operation/path; ours are in none."""
        return {
            f"{operation}/{path.name}": path.package
            for operation, path in self._measured()
            if path.package
        }

    def _measured(self) -> list[tuple[str, OperationPath]]:
        """The operation and path of all that is planned, of whatever suite."""
        if self.items is None and self.cases is None and self.curves is None:
            self.planned()
        found = [(item.operation.name, item.path) for item in self.items or ()]
        return found + [(case.group.operation.name, case.path) for case in self.cases or ()]

    def asked(self) -> dict[str, Any]:
        """What run.json says was asked for."""
        filters = self.filters
        within, rate = filters.magnitude, filters.rate
        return {
            "suite": os.environ.get(SUITES) or " ".join(sorted(self.suites)) or "stability",
            "catalog": self.catalog or DEFAULT,
            "operation": list(filters.operation),
            "path": list(filters.path),
            "dtype": list(filters.dtype),
            "regime": list(filters.regime),
            "pass": list(filters.pass_),
            "magnitude": [within.low, within.high, within.per_decade] if within else None,
            "quick": filters.quick,
            "full": filters.full,
            "workload": list(filters.workload),
            "precision": list(filters.precision),
            "lr": [rate.low, rate.high, rate.per_decade] if rate else None,
            "shard": "/".join(str(part) for part in filters.shard),
        }


class Recorder:
    """Writes what the tests measured, in the one process that may."""

    def __init__(self, session: Session, config: pytest.Config) -> None:
        self._mine = session
        self._config = config
        self._writer: Writer | None = None
        self._progress: SweepProgress | None = None
        self._pytest_session: pytest.Session | None = None
        self._selected = 0
        self._recorded = 0
        self._failure = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._pytest_session = session
        chatter = self._config.pluginmanager.getplugin("terminaldistreporter")
        if self._mine.show_progress and chatter is not None:
            # pytest-xdist's own progress would be written over the bar. It calls this reporter by
            # itself as well as through hooks, so it must stay, and say nothing.
            for name in ("write_line", "rewrite"):
                setattr(chatter, name, lambda *_, **__: None)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if self._mine.problem:
            raise pytest.UsageError(self._mine.problem)
        wanted = [
            (each, name)
            for each in session.items
            for name in MEASURED
            if name in getattr(each, "fixturenames", ())
        ]
        # Where nothing is left to do pytest puts one skipped test in its place.
        given = [(getattr(each, "callspec", None), name) for each, name in wanted]
        self._selected = sum(
            callspec is not None and hasattr(callspec.params.get(name), "id")
            for callspec, name in given
        )
        if wanted and not self._config.option.collectonly:
            self._open()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        # Under pytest-xdist the workers collect; each of them collects everything.
        try:
            planned = self._planned_ids(ids)
        except InputError as error:
            raise pytest.UsageError(str(error)) from None
        self._selected = sum(each[each.find("[") :] in planned for each in ids)
        nothing_left = any(each.endswith("[NOTSET]") for each in ids)  # pytest's skipped stand-in
        if self._writer is None and (self._selected or nothing_left):
            self._open()

    def _planned_ids(self, collected: list[str]) -> set[str]:
        """The planned items of the suites that workers collected, as they end a test's id."""
        mine = self._mine
        found = set[str]()
        if any("::test_training[" in each for each in collected):
            mine.suites.add("training")
            found |= {f"[{curve.id}]" for curve in mine.planned_training()}
        if any("::test_training[" not in each for each in collected):
            found |= {f"[{item.id}]" for item in mine.planned()}
        if any("::test_stability[" in each for each in collected):
            mine.suites.add("stability")
        return found

    def _open(self) -> None:
        mine = self._mine
        if mine.out is None:
            stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
            mine.out = self._config.rootpath / "results" / f"{stamp}-{device_name(mine.device)}"
        given = os.environ.get(ARGV)
        argv = json.loads(given) if given else [Path(sys.argv[0]).name, *sys.argv[1:]]
        environment = {
            "argv": argv,
            "seed": mine.seed,
            "catalog": mine.catalog_order(),
            "packages": mine.packages(),
            **describe(mine.device, mine.packages().values()),
        }
        try:
            mine.recorded_before()
            self._writer = Writer.start(mine.out, mine.asked(), environment, resume=mine.resume)
        except InputError as error:
            raise pytest.UsageError(str(error)) from None
        if mine.show_progress:
            self._progress = SweepProgress(self._selected)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        plain = getattr(report, "harness_records", None)
        if not plain:  # no sweep's report, or one that failed before it had a record
            return
        if self._writer is None and not self._failure:
            self._open()
        if self._writer is None:
            return
        try:
            before = self._mine.recorded_before()
            self._writer.append(
                record_from_dict(each) for each in plain if each["id"] not in before
            )
        except InputError as error:
            self._failure = str(error)
            if self._pytest_session is not None:
                self._pytest_session.shouldstop = self._failure
            return
        self._recorded += 1
        if self._progress is not None:
            self._progress.advance(report.nodeid.partition("[")[2].rstrip("]"), len(plain))

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, report: pytest.TestReport) -> None:
        # A worker of pytest-xdist died. Under a supervisor that is no failed test: what the worker
        # was doing is run again in parts.
        if self._mine.journal is not None:
            report.outcome = "skipped"
            report.longrepr = (report.nodeid, 0, str(report.longrepr))

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        # Under the bar a letter a test would tear it; failures are told at the end all the same.
        if self._progress is None or report.when != "call":
            return None
        return report.outcome, "", ""

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self._progress is not None:
            self._progress.close()
        if self._writer is not None:
            ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
            whole = ended and not self._failure and self._recorded >= self._selected
            try:
                self._writer.finish(complete=whole)
            except InputError as error:
                self._failure = self._failure or str(error)
                session.exitstatus = pytest.ExitCode.INTERRUPTED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._failure:
            terminalreporter.write_line(f"ERROR: {self._failure}", red=True)
        if self._writer is not None:
            terminalreporter.write_line(f"records: {self._writer.directory}")
