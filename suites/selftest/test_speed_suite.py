"""The speed suite as people run it: pytest in a process of its own, a toy catalog, the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.render_speed import text_lines
from harness.store import Run, load
from harness.timing.cpu_clock import NOT_MEASURED
from harness.verdict import Verdict
from suites.selftest.conftest import ROOT, Done, Stability
from suites.selftest.test_cli import strict

TOY = ("--catalog", "suites.selftest.speed_toy", "--device", "cpu", "--quick")


def timed(*arguments: str | Path) -> Done:
    """`pytest suites/speed` on the toy catalog."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "suites/speed/test_speed.py", "-q"),
            *("-p", "no:cacheprovider", *TOY, *map(str, arguments)),
        ],
        cwd=ROOT,
        env={key: os.environ[key] for key in os.environ if not key.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Any]]:
    """A run of all paths, and what pytest-benchmark wrote of it."""
    folder = tmp_path_factory.mktemp("speed")
    done = timed("--out", folder / "run", f"--benchmark-json={folder / 'benchmark.json'}")
    assert done.code == 0, done.out + done.err
    return load(folder / "run"), json.loads((folder / "benchmark.json").read_text())


def test_every_path_is_recorded(whole: tuple[Run, dict[str, Any]]) -> None:
    """Those that run with samples, the raising one with its reason, and the run is complete."""
    run, _ = whole
    verdicts = {record.path: record.verdict for record in run.records}
    assert verdicts == {
        "raising": Verdict.ERROR,
        "naive": Verdict.OK,
        "honest": Verdict.OK,
        "launched": Verdict.UNSUPPORTED,
        "fragile": Verdict.OK,
    }
    assert run.complete
    assert run.environment["asked"]["suite"] == "speed"
    timed_paths = [record for record in run.records if record.get("samples")]
    assert {record.path for record in timed_paths} == {"naive", "honest", "fragile"}
    assert len({len(record["samples"]) for record in timed_paths}) == 1
    assert {(record["timer"], record["threads"]) for record in timed_paths} == {("cpu", 1)}
    assert all("rounds" not in record.data for record in timed_paths)


def test_no_time_is_taken_of_the_interpreter(whole: tuple[Run, dict[str, Any]]) -> None:
    """A path that launches a Triton kernel has no sample, and the table names the stand-in."""
    run, written = whole
    (launched,) = (record for record in run.records if record.path == "launched")
    assert launched["reason"] == NOT_MEASURED
    assert not launched.get("samples")
    assert not [each for each in written["benchmarks"] if "launched" in each["name"]]
    text = " ".join(text_lines(run))
    assert "stability inspect" in text
    assert "CPU time" in text
    assert "GPU time" not in text


def test_pytest_benchmark_shows_exactly_the_samples(whole: tuple[Run, dict[str, Any]]) -> None:
    """Its JSON holds, to the bit and in order, what the records hold, under the group's name."""
    run, written = whole
    recorded = {r.id: r["samples"] for r in run.records if r.get("samples")}
    shown = {each["extra_info"]["id"]: each["stats"]["data"] for each in written["benchmarks"]}
    assert shown == recorded
    assert {each["group"] for each in written["benchmarks"]} == {
        "toy/*/fp32/normal@1/64x32/both/timer=cpu"
    }
    assert {each["options"]["timer"] for each in written["benchmarks"]} == {"cpu_time_replayed"}


@pytest.mark.full
def test_what_is_deselected_is_not_measured(tmp_path: Path) -> None:
    """-k leaves one path of the group: it is measured alone, without ratios."""
    done = timed("--out", tmp_path / "run", "-k", "honest")
    assert done.code == 0, done.out
    (record,) = load(tmp_path / "run").records
    assert (record.path, record.get("ratios")) == ("honest", None)
    assert len(record["samples"]) >= 7


def test_a_budget_leaves_the_rest_to_resume(
    tmp_path: Path, stability: Stability, whole: tuple[Run, dict[str, Any]]
) -> None:
    """Nothing is begun after it; the run is incomplete and says so; --resume measures the rest,
    which is written once.
    """
    run = tmp_path / "run"
    done = timed("--out", run, "--budget", "0")
    assert done.code == 0
    assert "the budget of 0 s was over" in done.out
    before = load(run)
    assert (before.complete, before.records) == (False, ())
    # One path recorded, as if the process had died between two tests of a group.
    first = (whole[0].directory / "records.jsonl").read_text().splitlines(keepends=True)[1]
    (run / "records.jsonl").write_text(first)
    resumed = stability("run", "--resume", "--out", run, "--device", "cpu")
    assert resumed.code == 0, resumed.err
    after = load(run)
    assert after.complete
    written = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    assert len(written) == len(after.records) == 5
    assert json.loads(first) in written
    # The group was measured again whole: the rest has ratios to the path that was there before.
    (honest,) = (record for record in after.records if record.path == "honest")
    assert set(honest["ratios"]) == {"naive", "fragile"}


@pytest.mark.full
def test_beside_other_processes_nothing_is_timed(tmp_path: Path) -> None:
    """Under pytest-xdist the suite is one skipped test, with the command that times."""
    done = timed("--out", tmp_path / "run", "-n", "2")
    assert done.code == 0, done.out + done.err
    assert "stability run speed" in done.out
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.full
def test_two_suites_in_one_run(tmp_path: Path, stability: Stability) -> None:
    """Speed is timed after the sweep, by itself, into the same directory; the table has both."""
    run = tmp_path / "run"
    asked = (*TOY, "--path", "honest", "--dtype", "fp32", "--regime", "normal", "--jobs", "2")
    done = stability("run", "stability", "speed", *asked, "--out", run)
    assert done.code == 0, done.err
    assert {record.suite for record in load(run).records} == {"stability", "speed"}
    assert load(run).complete
    assert "toy, forward" in done.out
    assert "GB/s" in done.out
    document = strict(stability("table", run, "--format", "json").out)
    assert [row["path"] for row in document["speed"]] == ["honest"]
    assert document["rows"]
    refused = stability("table", run, "--format", "csv")
    assert (refused.code, refused.err.count("\n")) == (4, 1)


def test_list_says_what_would_be_timed(
    whole: tuple[Run, dict[str, Any]], stability: Stability
) -> None:
    """The ids of `stability list speed` are those of the run."""
    run, _ = whole
    listed = strict(stability("list", "speed", *TOY, "--json").out)
    assert listed == {"schema": 1, "items": 1, "cases": [record.id for record in run.records]}


@pytest.mark.parametrize("form", ["text", "markdown", "csv", "json"])
def test_the_table_in_every_form(
    whole: tuple[Run, dict[str, Any]], stability: Stability, form: str
) -> None:
    """A speed run alone prints its own table: each path is in it, with its median."""
    run, _ = whole
    done = stability("table", run.directory, "--format", form)
    assert (done.code, done.err) == (0, "")
    assert all(record.path in done.out for record in run.records)
    if form == "json":
        rows = {row["path"]: row for row in strict(done.out)["speed"]}
        for record in run.records:
            assert rows[record.path]["median_seconds"] == record.get("median_seconds")
    if form == "text":
        assert max(map(len, done.out.splitlines())) <= 80
