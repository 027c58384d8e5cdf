"""The supervisor: a death costs the case in flight; nothing is lost, and nothing counted twice."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from harness import load
from harness.execute import DeviceLost, Output, require_device
from harness.record import Record
from harness.supervise.journal import Journal, birth_of, in_flight
from harness.verdict import Verdict
from suites.selftest.conftest import ROOT, Stability
from suites.selftest.fault_toy import FAULTS, LIMIT

# One magnitude below and one at which every faulty path ends its process.
FAULTY = (
    *("--catalog", "suites.selftest.fault_toy", "--dtype", "fp16", "--regime", "signs"),
    *("--magnitude", "10:100:1", "--pass", "forward"),
)


def lines(run: Path) -> list[str]:
    """The ids as they stand in the file, where nothing hides a second line."""
    text = (run / "records.jsonl").read_text(encoding="utf-8")
    return [json.loads(line)["id"] for line in text.splitlines()]


# Each death takes some seconds: in `make test` those of one process, below.
@pytest.mark.full
@pytest.mark.parametrize("faults", [("hang",), tuple(FAULTS)], ids=["hang", "all"])
def test_each_death_costs_the_case_that_died(
    stability: Stability, tmp_path: Path, faults: tuple[str, ...]
) -> None:
    """The fatal magnitude alone bears the verdict, of each path; the others are measured."""
    out = tmp_path / "run"
    paths = (*faults, "claiming", "honest")
    chosen = [word for path in paths for word in ("--path", path)]
    done = stability("run", *FAULTY, *chosen, "--timeout", "8", "--jobs", "2", "--out", out)
    assert done.code == 1, done.err  # a path that claims something crashed
    run = load(out)
    assert run.complete
    assert not run.problems
    assert max(Counter(lines(out)).values()) == 1
    found = {(record.path, record["magnitude"]): record for record in run.records}
    assert set(found) == {(path, magnitude) for path in paths for magnitude in (10.0, LIMIT)}
    assert {found[path, 10.0].verdict for path in paths} == {Verdict.OK}
    fatal = {path: found[path, LIMIT].verdict for path in paths}
    assert fatal.pop("honest") is Verdict.OK
    assert fatal.pop("hang") is Verdict.TIMEOUT
    assert set(fatal.values()) == {Verdict.CRASH}
    assert "no sign of life for 8 s" in found["hang", LIMIT]["reason"]
    assert found["claiming", LIMIT]["broken"]
    assert not found["hang", LIMIT].get("broken")


def test_one_process_starts_anew(stability: Stability, tmp_path: Path) -> None:
    """Without workers the pytest itself dies, with all that was queued; its records stay."""
    out = tmp_path / "run"
    chosen = ("--path", "abort", "--path", "exit", "--path", "honest", "--jobs", "1")
    done = stability("run", *FAULTY, *chosen, "--out", out)
    assert done.code == 0, done.err  # none of these claims anything
    assert load(out).complete
    reasons = {record.path: record.get("reason") for record in load(out).records}
    assert Counter(lines(out)) == Counter(dict.fromkeys(lines(out), 1))
    assert reasons["abort"] == f"the process ended by signal {signal.SIGABRT.value}"
    assert reasons["exit"] == "the process ended with exit code 5"


SOUND = ("--catalog", "suites.selftest.toy", "--path", "honest", "--path", "fragile")


def descendants(pid: int) -> list[int]:
    """The processes below one, those that are dying included."""
    try:
        named = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    children = [int(each) for each in named.split()]
    return [found for child in children for found in (child, *descendants(child))]


def killed_somewhere(out: Path, chance: random.Random, *, supervisor: bool) -> None:
    """Begin or go on with a run, and kill -9 the supervisor or a process below it, at any time."""
    words = [sys.executable, "-m", "harness", "run", *SOUND, "--jobs", "2", "--out", str(out)]
    if (out / "run.json").exists():
        words.append("--resume")
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        time.sleep(chance.uniform(0.5, 8.0))
        below = descendants(child.pid)
        victim = child.pid if supervisor or not below else chance.choice(below)
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        child.wait()
    left = [each for each in below if each != victim and birth_of(each)]
    until = time.monotonic() + 20
    while supervisor and any(map(birth_of, left)) and time.monotonic() < until:
        time.sleep(0.1)
    if supervisor:
        assert not any(map(birth_of, left)), "processes outlived their supervisor"


def verdicts(records: tuple[Record, ...]) -> dict[str, str]:
    return {record.id: record.verdict.word for record in records}


# A hundred times three runs: the best part of an hour. The same seeds every time.
@pytest.mark.full
@pytest.mark.parametrize("seed", range(100))
def test_kills_at_any_time_lose_nothing(stability: Stability, tmp_path: Path, seed: int) -> None:
    """Workers, pytest and the supervisor killed at random: a resumed run is the run undisturbed."""
    chance = random.Random(seed)
    out, whole = tmp_path / "cut", tmp_path / "whole"
    for supervisor in (True, False):
        killed_somewhere(out, chance, supervisor=supervisor)
    resume = ("--resume",) if (out / "run.json").exists() else ()
    done = stability("run", *SOUND, "--jobs", "2", *resume, "--out", out)
    undisturbed = stability("run", *SOUND, "--jobs", "2", "--out", whole)
    assert done.code == undisturbed.code == 0, done.err
    assert load(out).complete
    assert max(Counter(lines(out)).values()) == 1
    assert verdicts(load(out).records) == verdicts(load(whole).records)


def test_a_journal_tells_what_is_in_flight(tmp_path: Path) -> None:
    """Begun and launching: in flight with its magnitudes; measured: waiting; the next one: gone."""
    clock = iter(range(100))
    journal = Journal(tmp_path, now=lambda: float(next(clock)))
    journal.begin("first", alone=[{"id": "x"}])
    journal.launching([1.0, 2.0])
    journal.launching([3.0])
    (one,) = in_flight(tmp_path)
    assert (one.pid, one.born) == (os.getpid(), birth_of(os.getpid()))
    assert (one.item, one.alone, one.since) == ("first", [{"id": "x"}], 2.0)
    assert (one.launched, one.last, one.measured) == ([1.0, 2.0, 3.0], [3.0], False)
    journal.measured()
    assert in_flight(tmp_path)[0].measured
    journal.begin("second")
    assert [each.item for each in in_flight(tmp_path)] == ["second"]
    journal.close()
    assert not in_flight(tmp_path)


def test_a_line_cut_short_is_the_end_of_a_journal(tmp_path: Path) -> None:
    """A disk that was full in the middle of a line: what was said before counts."""
    journal = Journal(tmp_path)
    journal.begin("first")
    (path,) = tmp_path.glob("*.jsonl")
    with path.open("a", encoding="utf-8") as stream:
        stream.write('{"launching": [1.')
    assert [each.launched for each in in_flight(tmp_path)] == [[]]


def test_a_zombie_is_dead() -> None:
    """A child that ended and was not waited for is no process any more."""
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    until = time.monotonic() + 20
    while birth_of(child.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert birth_of(child.pid) == ""
    child.wait()


def test_a_fault_that_took_the_device_is_no_verdict() -> None:
    """CUDA repeats a sticky error: the next answer of the device tells, for faults alone."""

    def lost() -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    fault = Output(None, Verdict.ERROR, "AcceleratorError: device-side assert triggered")
    with pytest.raises(DeviceLost, match="device-side assert"):
        require_device("cuda", fault, synchronize=lost)
    require_device("cuda", fault, synchronize=lambda: None)
    require_device("cpu", fault, synchronize=lost)
    require_device("cuda", Output(None), synchronize=lost)
