"""The pytest plugin: options that select cases, items made from the catalog, records written.

A suite asks for the fixture `stability_item` and gets one test an (operation, path, dtype, regime).
What a test hands to `record_cases` travels with its report, so the process that owns the run
directory writes it: under pytest-xdist, the controller.
"""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.environment import choose_device
from harness.errors import InputError
from harness.magnitudes import parse_range
from harness.plan import Filters, Item, parse_shard
from harness.record import Record
from harness.recorder import Recorder, Session
from harness.supervise.journal import Journal
from harness.supervise.orphans import end_with_parent
from harness.supervise.suspects import suspects_here
from harness.timing.speed_case import SpeedCase

if TYPE_CHECKING:
    from harness.training.plan import TrainingItem

_FILTERS = {
    "operation": "cross_entropy, normalize, ...",
    "path": "naive, torch, triton, ...",
    "dtype": "fp16, bf16, fp32, fp64",
    "regime": "normal, peak, masked, ...",
    "pass": "forward, backward; for speed both, too",
}

_TRAINING_FILTERS = {
    "workload": "digits_mlp, ..., or your own mypkg.train:make",
    "precision": "fp16, bf16, fp32, fp64, autocast_fp16, autocast_bf16, tf32",
}

_SESSION = pytest.StashKey[Session]()
_RECORDS = pytest.StashKey[list[Record]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stability harness")
    for name, example in (_FILTERS | _TRAINING_FILTERS).items():
        group.addoption(
            f"--{name}",
            action="append",
            default=[],
            dest=f"harness_{name}",
            metavar="NAME",
            help=f"only this {name} ({example}); repeats, takes globs",
        )
    group.addoption(
        "--magnitude",
        dest="harness_magnitude",
        metavar="A:B[:PER_DECADE]",
        help="magnitudes to sweep instead of the default grid; A alone is one magnitude",
    )
    group.addoption(
        "--quick",
        dest="harness_quick",
        action="store_true",
        help="fewer magnitudes, frontiers not bisected; of the speed suite one shape",
    )
    group.addoption(
        "--full",
        dest="harness_full",
        action="store_true",
        help="every shape and dtype of the speed suite, every slice of the training suite",
    )
    group.addoption(
        "--lr",
        dest="harness_lr",
        metavar="A:B[:PER_DECADE]",
        help="learning rates of the training suite instead of each slice's grid",
    )
    group.addoption(
        "--budget",
        dest="harness_budget",
        type=float,
        metavar="SECONDS",
        help="after these the speed suite starts nothing more, and leaves the rest to --resume",
    )
    group.addoption("--seed", dest="harness_seed", type=int, default=0, help="seed of all draws")
    group.addoption("--device", dest="harness_device", help="cuda or cpu; default: cuda if there")
    group.addoption("--catalog", dest="harness_catalog", help="module with OPERATIONS")
    group.addoption("--out", dest="harness_out", metavar="DIR", help="run directory to write")
    group.addoption(
        "--resume", dest="harness_resume", action="store_true", help="complete the run in --out"
    )
    group.addoption("--shard", dest="harness_shard", metavar="I/N", help="every N-th item from I")
    group.addoption(
        "--harness-progress",
        action="store_true",
        help="draw a progress bar instead of a letter a test",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Before any test module is imported: this decides whether Triton interprets.
    option = config.option
    try:
        device = choose_device(option.harness_device)
        magnitude, rate = option.harness_magnitude, option.harness_lr
        filters = Filters(
            **{
                name: tuple(getattr(option, f"harness_{name}"))
                for name in _FILTERS
                if name != "pass"
            },
            pass_=tuple(option.harness_pass),
            magnitude=parse_range(magnitude) if magnitude is not None else None,
            quick=option.harness_quick,
            shard=parse_shard(option.harness_shard) if option.harness_shard else (1, 1),
            full=option.harness_full,
            workload=tuple(option.harness_workload),
            precision=tuple(option.harness_precision),
            rate=parse_range(rate) if rate is not None else None,
        )
        if option.harness_resume and not option.harness_out:
            raise InputError("--resume needs --out DIR, the run to complete")
    except InputError as error:
        raise pytest.UsageError(str(error)) from None
    session = Session(
        filters,
        seed=option.harness_seed,
        device=device,
        catalog=option.harness_catalog,
        out=Path(option.harness_out) if option.harness_out else None,
        resume=option.harness_resume,
        show_progress=option.harness_progress,
        budget_s=option.harness_budget,
        suspects=suspects_here(),
    )
    try:
        session.journal = Journal.of_environment()
    except InputError as error:
        raise pytest.UsageError(str(error)) from None
    if session.journal is not None and hasattr(config, "workerinput"):
        end_with_parent()
    config.stash[_SESSION] = session
    # Under pytest-xdist the workers measure and the controller, which is no worker, writes.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(session, config), "stability-recorder")


def pytest_sessionfinish(session: pytest.Session) -> None:
    journal = session.config.stash[_SESSION].journal
    if journal is not None:
        journal.close()


def pytest_report_header(config: pytest.Config) -> str:
    session = config.stash[_SESSION]
    how = "Triton's interpreter" if session.device == "cpu" else "Triton kernels compiled"
    return f"stability harness: device {session.device} ({how}), seed {session.seed}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    session = metafunc.config.stash[_SESSION]
    if "speed_case" in metafunc.fixturenames:
        _generate_speed(metafunc, session)
    if "training_item" in metafunc.fixturenames:
        _generate_training(metafunc, session)
    if "stability_item" not in metafunc.fixturenames:
        return
    session.suites.add("stability")
    left: list[Item] = []
    try:
        done = session.recorded_before()
        left = [each for each in session.planned() if not {c.id for c in each.cases()} <= done]
    except InputError as error:
        # Raised here it would be a traceback and pytest's code for an interruption.
        session.problem = str(error)
    metafunc.parametrize("stability_item", left, ids=[item.id for item in left])


def _generate_speed(metafunc: pytest.Metafunc, session: Session) -> None:
    if hasattr(metafunc.config, "workerinput"):
        # Processes beside each other would time each other; pytest-benchmark is off here, too.
        alone = pytest.mark.skip(reason="timings want the machine alone: stability run speed")
        metafunc.parametrize("speed_case", [pytest.param(None, marks=alone, id="beside others")])
        return
    session.suites.add("speed")
    left: list[SpeedCase] = []
    try:
        left = session.speed_left()
    except InputError as error:
        session.problem = str(error)
    metafunc.parametrize("speed_case", left, ids=[case.id for case in left])


def _generate_training(metafunc: pytest.Metafunc, session: Session) -> None:
    session.suites.add("training")
    left: list[TrainingItem] = []
    try:
        done = session.recorded_before()
        left = [each for each in session.planned_training() if not set(each.ids()) <= done]
    except InputError as error:
        session.problem = str(error)
    metafunc.parametrize("training_item", left, ids=[each.id for each in left])


@pytest.fixture(scope="session")
def harness_session(request: pytest.FixtureRequest) -> Session:
    """What was asked of this session: seed, device, filters."""
    return request.config.stash[_SESSION]


@pytest.fixture
def record_cases(request: pytest.FixtureRequest) -> Callable[[list[Record]], None]:
    """A function that takes the records of this test to the run directory."""
    kept: list[Record] = request.node.stash.setdefault(_RECORDS, [])
    return kept.extend


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and _RECORDS in item.stash:
        # Plain data, since pytest-xdist sends reports between processes as such.
        plain = [record.to_dict() for record in item.stash[_RECORDS]]
        report.harness_records = plain  # type: ignore[attr-defined]
    return report
