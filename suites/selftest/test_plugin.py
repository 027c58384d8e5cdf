"""The pytest plugin as people use it: `pytest suites/stability` with options, alone or by xdist."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from harness import Run, Verdict, load
from suites.selftest.conftest import ROOT, run_pytest
from suites.selftest.toy import LIMIT


def verdicts(run: Run) -> dict[str, Verdict]:
    return {each.id: each.verdict for each in run.records}


def test_a_sweep_records_every_path(toy_run: Path) -> None:
    """Each verdict is the one that was built into the path, magnitude by magnitude."""
    run = load(toy_run)
    assert run.complete
    for each in run.records:
        if each.path == "raising":
            assert each.verdict is Verdict.ERROR
        elif each.path == "honest" or each["magnitude"] <= LIMIT:
            assert each.verdict is Verdict.OK
        elif each["pass"] == "forward":
            assert each.verdict is Verdict.NAN
        else:  # torch.where passes no gradient to where it put NaN
            assert each.verdict is Verdict.UNDERFLOW
    assert {each.path for each in run.records} == {"raising", "honest", "fragile"}


def test_a_path_that_raises_is_an_error_with_its_reason(toy_run: Path) -> None:
    """Recorded for every magnitude and pass, the reason on one line; the rest ran all the same."""
    records = load(toy_run).records
    raised = [each for each in records if each.path == "raising"]
    honest = [each for each in records if each.path == "honest"]
    assert len(raised) == len([each for each in honest if not each.get("refined")]) > 0
    assert {each["reason"] for each in raised} == {"ValueError: this path always raises"}


def test_the_frontier_is_refined_to_the_float(toy_run: Path) -> None:
    """The fragile path's last good float and its neighbour are among the recorded magnitudes."""
    forward = [
        each
        for each in load(toy_run).records
        if (each.path, each.dtype, each["pass"]) == ("fragile", "fp16", "forward")
    ]
    good = max(each["magnitude"] for each in forward if each.verdict is Verdict.OK)
    bad = min(each["magnitude"] for each in forward if each.verdict is Verdict.NAN)
    assert (good, bad) == (LIMIT, 100.0625)


def test_workers_record_the_same(toy_run: Path, tmp_path: Path) -> None:
    """Under `-n 2` the same ids with the same verdicts, each once, in a complete run."""
    done = run_pytest("-n", "2", "--out", tmp_path / "run")
    assert done.code == 0, done.out
    alone, divided = load(toy_run), load(tmp_path / "run")
    assert verdicts(divided) == verdicts(alone)
    assert divided.complete
    lines = (tmp_path / "run" / "records.jsonl").read_text().splitlines()
    assert len(lines) == len(divided.records)


def test_pytests_own_selection_works(toy_run: Path, tmp_path: Path) -> None:
    """`-k` and the options select together; the records are those of the whole run there."""
    done = run_pytest("--path", "[hf]*", "-k", "fragile and signs", "--out", tmp_path / "run")
    assert done.code == 0, done.out
    run = load(tmp_path / "run")
    assert run.complete
    expected = {
        id_: verdict
        for id_, verdict in verdicts(load(toy_run)).items()
        if "/fragile/" in id_ and "/signs@" in id_
    }
    assert verdicts(run) == expected
    assert Counter(each.dtype for each in run.records).keys() == {"fp16", "fp64"}


def test_collecting_writes_nothing(tmp_path: Path) -> None:
    """`--collect-only` lists an item for each path, dtype and regime, and leaves no directory."""
    done = run_pytest("--collect-only", "--out", tmp_path / "run")
    assert done.code == 0, done.out
    items = [line for line in done.out.splitlines() if "test_stability[" in line]
    assert len(items) == 3 * 2 * 2
    assert not (tmp_path / "run").exists()


# Errors that only the collection or the run directory can know; exit code 4 is pytest's for usage.
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--operation", "nope"), "unknown operation 'nope'; choose from: toy"),
        (("--magnitude", "1:x"), "malformed magnitude range '1:x'"),
    ],
)
def test_bad_options_are_usage_errors(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    """One sentence, no traceback, nothing written."""
    done = run_pytest(*arguments, "--out", tmp_path / "run")
    assert done.code == 4
    assert says in done.out + done.err
    assert "Traceback" not in done.out + done.err
    assert "plugin.py" not in done.out
    assert not (tmp_path / "run").exists()


def test_a_pytest_that_is_killed_leaves_what_it_recorded(tmp_path: Path) -> None:
    """SIGKILL in the middle, and no supervisor: earlier records are readable."""
    (tmp_path / "killer.py").write_text(
        "import os, signal\n"
        "from suites.selftest.toy import HONEST, TOY\n"
        "from harness import Path\n"
        "def killing(input):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "OPERATIONS = (TOY.with_paths(HONEST, Path('killing', killing)),)\n"
    )
    asked = ("--catalog", "killer", "--dtype", "fp16", "--regime", "signs")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "suites/stability", *asked, "--out", tmp_path / "run"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    run = load(tmp_path / "run")
    assert {each.path for each in run.records} == {"honest"}
    assert all(each.verdict is Verdict.OK for each in run.records)
    assert not run.complete
