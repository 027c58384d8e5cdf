"""The training suite as people run it: the command, a run directory, resumption, the pages."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.store import Run, load
from harness.training.declare import load_declared
from suites.selftest.conftest import ROOT, Stability
from suites.selftest.test_cli import strict
from suites.selftest.test_training_analysis import NAIVE, STABLE, clocked, run
from suites.selftest.training_toy import ADVICE

OWN = (
    *("training", "--workload", "suites.selftest.training_toy:make", "--precision", "fp32"),
    *("--lr", "0.1:1:1", "--device", "cpu", "--jobs", "1"),
)


@pytest.mark.full  # half a minute of processes
def test_a_run_resumed_and_shown(stability: Stability, tmp_path: Path) -> None:
    """Records of both rates and seeds; a line that was lost comes back, the others stay as they
    were; the table has one curve; compared with itself nothing changed.
    """
    out = tmp_path / "run"
    assert stability("run", *OWN, "--out", out).code == 0
    whole = load(out)
    assert whole.complete
    assert whole.environment["asked"]["suite"] == "training"
    assert [(r["learning_rate"], r["seed"]) for r in whole.records] == [
        (0.1, 0), (0.1, 1), (1.0, 0), (1.0, 1),
    ]  # fmt: skip
    lines = (out / "records.jsonl").read_text().splitlines(keepends=True)
    (out / "records.jsonl").write_text("".join(lines[:-1]))
    assert stability("run", "--resume", "--out", out).code == 0
    again = load(out)
    assert [each.id for each in again.records] == [each.id for each in whole.records]
    assert (out / "records.jsonl").read_text().startswith("".join(lines[:-1]))
    table = strict(stability("table", out, "--format", "json").out)
    (curve,) = table["training"]["curves"]
    assert (curve["runs"], curve["workload"]) == (4, "suites.selftest.training_toy:make")
    assert stability("compare", out, out).code == 0


@pytest.mark.full  # half a minute of processes
def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    """Ctrl-C after the first curve: what it wrote stays byte by byte, --resume adds the rest, and
    no run is there twice.
    """
    out = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "harness", "run", "training", "--jobs", "1", "--device", "cpu"),
        *("--workload", "suites.selftest.training_toy:make_slowly", "--lr", "0.1:1:1"),
        *("--precision", "fp32", "--precision", "bf16", "--precision", "fp64"),
    ]
    child = subprocess.Popen([*command, "--out", str(out)], cwd=ROOT, start_new_session=True)
    records = out / "records.jsonl"
    deadline = time.monotonic() + 120
    while not (records.exists() and records.read_text().count("\n") >= 4):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)
    assert child.wait(60) == 3
    first = records.read_bytes()
    assert not load(out).complete
    assert len(load(out).records) in (4, 8)
    resumed = [sys.executable, "-m", "harness", "run", "--resume", "--out", str(out)]
    assert subprocess.run(resumed, cwd=ROOT, check=False, timeout=120).returncode == 0
    whole = load(out)
    assert whole.complete
    assert len({each.id for each in whole.records}) == len(whole.records) == 12
    assert records.read_bytes().startswith(first)


def test_list_names_every_run(stability: Stability) -> None:
    """One id a run, of a grid given by --lr."""
    done = stability("list", "training", "--workload", "digits_mlp", "--path", "naive",
                     "--precision", "fp16", "--lr", "0.1:1:1")  # fmt: skip
    assert done.code == 0
    assert "digits_mlp/cross_entropy/naive/fp16/lr@0.1/optimizer=sgd/seed=0/steps=400" in done.out


@pytest.fixture
def written(tmp_path: Path) -> Run:
    """A run on disk in which every control broke and every treatment of the toy's advice held."""
    (trial,) = ADVICE[0].trials
    pairs = [(rate, seed) for rate in trial.rates for seed in range(3)]
    records = [run(NAIVE, rate, s, steps=30, first_bad_step=2) for rate, s in pairs]
    records += [run(STABLE, rate, s, steps=30) for rate, s in pairs]
    folder = tmp_path / "written"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"schema": 1, "complete": True, "argv": ["x"]}))
    (folder / "records.jsonl").write_text("".join(each.to_json() + "\n" for each in records))
    return load(folder)


def test_the_page_says_what_was_measured(written: Run, tmp_path: Path) -> None:
    """Helps, 0 to 6 of 6, an interval; and advice that was not run says so."""
    from harness.training.advice_page import advice_markdown

    page = advice_markdown(written, ADVICE, tmp_path)
    assert "| a stable cost | helps 1 | ends well: 0 → 6 of 6 |" in page
    assert "**helps** | 0 → 6 of 6 | +1.00 [+1.00, +1.00]" in page
    assert str(tmp_path) not in page
    theirs = advice_markdown(written, load_declared().advice, tmp_path)
    assert theirs.count("not measured") > len(load_declared().advice)


def test_the_command_writes_and_checks(stability: Stability, written: Run, tmp_path: Path) -> None:
    """`stability advice` writes the page; --check is 0 then, 1 after an edit, and only reads."""
    page = tmp_path / "ADVICE.md"
    arguments = ("advice", written.directory, "-o", page)
    assert stability(*arguments, "--check").code == 1
    assert not page.exists()
    assert stability(*arguments).code == 0
    assert stability(*arguments, "--check").code == 0
    page.write_text(page.read_text() + "edited\n")
    assert stability(*arguments, "--check").code == 1
    assert page.read_text().endswith("edited\n")


def test_the_committed_page_is_that_of_the_committed_run(
    stability: Stability, monkeypatch: pytest.MonkeyPatch
) -> None:
    """results/ADVICE.md is written by the command from the baseline, byte by byte."""
    monkeypatch.chdir(ROOT)
    done = stability("advice", "--check")
    assert done.code == 0, done.err


def test_the_table_fits_a_screen(stability: Stability, written: Run, tmp_path: Path) -> None:
    """At 80 columns no line is wrapped, and slope, place and agreement are all there."""
    records = clocked()
    lines = "".join(each.to_json() + "\n" for each in records)
    (written.directory / "records.jsonl").write_text(lines)
    done = stability("table", written.directory)
    assert done.code == 0
    assert max(map(len, done.out.splitlines())) <= 80
    assert any(
        line.startswith("naive fp16") and "±" in line and "clock" in line
        for line in done.out.splitlines()
    )
    assert "6 forward, aten.log in cost: log_of_zero" in done.out
    assert "Identical until the bang: 6 runs" in done.out
    rows = [line.split() for line in done.out.splitlines()]
    assert ["4", "0.4", "0.4", "0.0e+00"] in rows
    plain = strict(stability("table", written.directory, "--format", "json").out)["training"]
    assert [each["broke_at"] for each in plain["agreements"]] == [102, 102, 32, 32, 12, 12]
