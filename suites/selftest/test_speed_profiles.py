"""`stability run --profile gpu`: several suites in a given time, on a made-up clock."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness import profiles
from harness.errors import InputError
from harness.profiles import PROFILES, run_profile
from harness.supervise import watch
from suites.selftest.conftest import Stability


class Runner:
    """Stands in for run_suites: notes what it was asked, and takes the time it is told to."""

    def __init__(self, **takes: float) -> None:
        self.takes, self.now = takes, 1000.0
        self.asked: dict[str, dict[str, Any]] = {}

    def __call__(self, suites: list[str], request: Any, **options: Any) -> tuple[int, Path]:
        (suite,) = suites
        self.asked[suite] = {"request": request, **options}
        limit = options["deadline_s"]
        self.now += min(self.takes.get(suite, 1.0), limit)
        return (2 if self.takes.get(suite, 1.0) > limit else 0), options["out"]


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "choose_device", lambda device: device)
    present = ["conformance", "selftest", "speed", "stability", "training"]
    monkeypatch.setattr(profiles, "known_suites", lambda: present)


def run_all(runner: Runner, tmp_path: Path) -> tuple[list[int], list[Path]]:
    return run_profile("gpu", out=tmp_path, device=None, run=runner, now=lambda: runner.now)


@pytest.mark.usefixtures("with_gpu")
def test_parts_in_order_each_into_its_own_directory(tmp_path: Path) -> None:
    """Conformance, stability, speed, training, all on CUDA; no path is filtered out."""
    runner = Runner()
    codes, directories = run_all(runner, tmp_path)
    order = ["conformance", "stability", "speed", "training"]
    assert list(runner.asked) == order
    assert directories == [tmp_path / name for name in order]
    assert codes == [0, 0, 0, 0]
    assert {each["device"] for each in runner.asked.values()} == {"cuda"}
    assert not any(each["request"].path for each in runner.asked.values())


@pytest.mark.usefixtures("with_gpu")
def test_it_ends_within_nine_minutes_whatever_its_parts_do(tmp_path: Path) -> None:
    """All parts hang: each is cut off at its deadline, the later ones still get their share."""
    runner = Runner(conformance=1e6, stability=1e6, speed=1e6, training=1e6)
    codes, _ = run_all(runner, tmp_path)
    assert runner.now - 1000.0 <= 9 * 60 - 20
    assert codes == [2, 2, 2, 2]
    shares = [each["deadline_s"] for each in runner.asked.values()]
    assert shares == [part.seconds for part in PROFILES["gpu"].parts]


@pytest.mark.usefixtures("with_gpu")
def test_time_that_a_part_does_not_need_goes_to_the_next(tmp_path: Path) -> None:
    """Quick conformance and stability leave speed more, and its budget ends before its deadline."""
    runner = Runner(conformance=10.0, stability=10.0)
    run_all(runner, tmp_path)
    speed = runner.asked["speed"]
    shares = {part.suite: part.seconds for part in PROFILES["gpu"].parts}
    expected = shares["conformance"] + shares["stability"] + shares["speed"] - 20.0
    assert speed["deadline_s"] == pytest.approx(expected)
    assert 0 < speed["budget_s"] < speed["deadline_s"]


@pytest.mark.usefixtures("with_gpu")
def test_a_suite_that_is_not_there_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And said so; the others run."""
    monkeypatch.setattr(profiles, "known_suites", lambda: ["stability", "speed"])
    runner = Runner()
    run_all(runner, tmp_path)
    assert list(runner.asked) == ["stability", "speed"]
    assert "no suite training" in capsys.readouterr().err


def test_without_cuda_it_says_so(stability: Stability, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 4, one sentence, nothing started."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = stability("run", "--profile", "gpu")
    assert (done.code, done.out, done.err.count("\n")) == (4, "", 1)
    assert "torch sees no CUDA device" in done.err


def test_names_and_devices_are_checked(tmp_path: Path) -> None:
    """An unknown profile names the known ones; a CPU is not what gpu is for."""
    with pytest.raises(InputError, match="unknown profile 'tpu'; choose from: gpu"):
        run_profile("tpu", out=tmp_path, device=None)
    with pytest.raises(InputError, match="for --device cuda, not cpu"):
        run_profile("gpu", out=tmp_path, device="cpu")


# A child that ends on being interrupted, as pytest does, and one that hangs in a driver call.
@pytest.mark.parametrize(("obeys", "code"), [(True, pytest.ExitCode.INTERRUPTED), (False, -9)])
def test_a_suite_is_interrupted_at_its_deadline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, obeys: bool, code: int
) -> None:
    """Interrupted as by Ctrl-C, so that it closes its files; killed if it does not end by that."""
    monkeypatch.setattr(watch, "_GRACE_S", 10.0 if obeys else 0.2)
    program = (
        "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass"
        if obeys
        else "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(60)"
    )
    begun = time.monotonic()
    command = [sys.executable, "-c", program]
    ended = watch.watched(command, dict(os.environ), tmp_path, timeout_s=None, until=begun + 2.0)
    assert (ended.code, ended.stopped) == (code, True)
    assert 2.0 <= time.monotonic() - begun < 40.0


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("run speed --profile gpu", "goes with --out and --device alone"),
        ("run --profile gpu --operation softmax", "goes with --out and --device alone"),
        ("run --profile nope", "unknown profile 'nope'; choose from: gpu"),
        ("list nope", "unknown suite to list 'nope'; choose from: speed, stability"),
        ("run speed --quick --full", "--quick and --full exclude each other"),
        ("run speed --pass sideways", "choose from: backward, both, forward"),
    ],
)
def test_bad_commands_are_one_sentence(stability: Stability, command: str, says: str) -> None:
    """Exit code 4, nothing on standard output, nothing started."""
    done = stability(*command.split())
    assert (done.code, done.out, done.err.count("\n")) == (4, "", 1)
    assert says in done.err
