"""The command line: exit codes, one sentence for bad input, commands that do what they print."""

import collections
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

import harness
from harness import load
from suites.selftest.conftest import ROOT, SMALL, TOY, Stability


def strict(text: str) -> Any:
    """Parse JSON and refuse the literals that only Python calls JSON."""

    def refuse(literal: str) -> NoReturn:
        raise AssertionError(f"{literal} is not JSON")

    return json.loads(text, parse_constant=refuse)


# One line each of what people get wrong: names, each with the valid choices; ranges, shards, seeds
# and options; places that cannot be read, and places that cannot be written, not even by root.
@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("run --operation nope", "unknown operation 'nope'; choose from: .*cross_entropy, .*norm"),
        ("run --path nope", "unknown path 'nope'; choose from: .*naive.* torch"),
        ("run --dtype float16", "unknown dtype 'float16'; choose from: bf16, fp16, fp32, fp64"),
        ("run --regime nope", "unknown regime 'nope'; choose from: .*masked.* peak"),
        ("run --pass both", "unknown pass 'both'; choose from: backward, forward"),
        ("run nope", "unknown suite 'nope'; choose from: .*stability"),
        ("list --operation nope", "choose from: .*normalize"),
        ("list --operation normalize --path liger", "choose from: compiled, .*, torch, triton"),
        ("list --regime zeros --magnitude 5", "select nothing"),
        ("run --magnitude 1:x", "malformed magnitude range '1:x'; expected A:B"),
        ("run --magnitude 5:1", "upside down"),
        ("run --magnitude -1:1", "non-negative"),
        ("run --shard 3/2", "malformed shard '3/2'; expected I/N"),
        ("run --seed one", "--seed"),
        ("run --device tpu", "unknown device 'tpu'; choose from: cpu, cuda"),
        ("run --nope", "No such option: --nope"),
        ("nope", "No such command 'nope'"),
        ("run --resume", "--resume needs --out"),
        ("run --catalog no.such.module", "cannot import the catalog 'no.such.module'"),
        ("run --catalog .toy", "relative"),
        ("run --catalog json", "no sequence OPERATIONS"),
        ("run --out FILE", "cannot write results to .*: File exists"),
        ("run --out FILE/run", "cannot write results to .*: Not a directory"),
        (f"run --out {'x' * 300}", "cannot write results to .*: File name too long"),
        ("run --out .", "not empty and holds no run"),
        ("table NOWHERE", "no run at NOWHERE: not a directory"),
        ("table FILE", "no run at FILE: not a directory"),
        ("table .", r"no run at \.: it has no run\.json"),
        ("table . --format xml", "'text', 'markdown', 'csv', 'json'"),
        ("table", "Missing argument 'RUN'"),
        ("compare NOWHERE NOWHERE", "no run at NOWHERE"),
        ("frontier nope naive fp16", "unknown operation 'nope'; choose from"),
        (
            "frontier normalize nope fp16",
            "unknown path of normalize 'nope'; choose from: .*epsilon",
        ),
        ("frontier normalize naive fp8", "choose from: bf16, fp16, fp32, fp64"),
        ("frontier normalize naive fp16 --regime nope", "choose from: constant, normal"),
        ("frontier normalize naive fp16 --regime zeros", "has no frontier"),
        ("frontier normalize naive fp16 --pass both", "choose from: backward, forward"),
        ("frontier normalize naive fp16 --side left", "choose from: high, low"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_4(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stability: Stability,
    command: str,
    says: str,
) -> None:
    """Nothing on standard output, one line on standard error, no traceback, nothing started."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("precious")
    done = stability(*command.split())
    assert (done.code, done.out) == (4, "")
    assert done.err.count("\n") == 1
    assert done.err.startswith("stability: ")
    assert re.search(says, done.err)
    assert [each.name for each in tmp_path.iterdir()] == ["FILE"]
    assert (tmp_path / "FILE").read_text() == "precious"


def test_cuda_without_cuda(stability: Stability, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for and absent: exit code 4, and what to do instead."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = stability("run", "--device", "cuda")
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert "--device cpu" in done.err


def test_a_real_process_fails_alike() -> None:
    """What a shell sees of `python -m harness`: the code, the sentence, nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", "run", "--dtype", "fp8"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == ("stability: unknown dtype 'fp8'; choose from: bf16, fp16, fp32, fp64\n")


def test_help_is_no_error(stability: Stability) -> None:
    """`--help` says the commands on standard output and exits with 0."""
    done = stability("--help")
    assert (done.code, done.err) == (0, "")
    assert all(name in done.out for name in ("run", "list", "table", "frontier", "compare"))


def test_failures_of_naive_paths_are_findings(small_run: Path) -> None:
    """A real run whose naive paths break, and break nothing claimed, exited with 0 and is whole."""
    run = load(small_run)
    found = {each.path for each in run.records if each.verdict.is_nonfinite}
    assert "naive" in found
    assert not any(each.get("broken") for each in run.records)
    assert (run.complete, run.problems) == (True, ())
    assert run.environment["argv"][:2] == ["stability", "run"]


def test_list_says_what_run_records(small_run: Path, stability: Stability) -> None:
    """The ids of `list` are the grid's ids of the run; the run adds frontiers' neighbours alone."""
    listed = stability("list", *SMALL).out.split()
    recorded = load(small_run).records
    assert sorted(listed) == sorted(each.id for each in recorded if not each.get("refined"))
    assert len(listed) == len(set(listed)) < len(recorded)
    as_json = strict(stability("list", *SMALL, "--json").out)
    assert as_json == {"schema": 1, "items": 8, "cases": listed}


def test_frontier_prints_what_the_library_finds(stability: Stability) -> None:
    """As strict JSON the very numbers of harness.frontier, and what was asked; as text, too."""
    found = harness.frontier("normalize", "naive", "fp16", "peak")
    asked = ("frontier", "normalize", "naive", "fp16", "--regime", "peak")
    said = strict(stability(*asked, "--json").out)
    numbers = ("finite_until", "nonfinite_from", "accurate_until", "inaccurate_from")
    assert [said[name] for name in numbers] == [getattr(found, name) for name in numbers]
    assert said["verdict"] == found.verdict.word
    assert (said["operation"], said["regime"], said["side"]) == ("normalize", "peak", "high")
    assert f"{found.inaccurate_from:g}" in stability(*asked).out


def commands_in(text: str) -> list[list[str]]:
    """The `stability run` commands that a text shows, folded lines put together."""
    whole = re.sub(r"\\\n\s*", "", text)
    return [shlex.split(line) for line in re.findall(r"stability run --operation.*", whole)]


def test_a_broken_claim_fails_and_its_command_reproduces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stability: Stability
) -> None:
    """A catalog beside the user whose path lies: exit code 1, and a command for the one case."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "liar.py").write_text(
        "from suites.selftest.toy import LYING, TOY\nOPERATIONS = (TOY.with_paths(LYING),)\n"
    )
    asked = ("--catalog", "liar", "--dtype", "fp16", "--regime", "signs", "--seed", "3")
    done = stability(
        "run", *asked, "--magnitude", "10:1000:1", "--jobs", "1", "--out", tmp_path / "run"
    )
    assert done.code == 1
    assert "finite whenever the truth is representable" in done.out
    broken = {each.id: each for each in load(tmp_path / "run").records if each.get("broken")}
    assert broken
    commands = commands_in(done.out)
    assert len(commands) >= 3  # of the claim, of the table, and in the failure's own line
    assert [command for command in commands if "liar" not in command] == []

    again = stability(*commands[0][1:], "--jobs", "1", "--out", tmp_path / "again")
    assert again.code == 1
    (alone,) = load(tmp_path / "again").records
    assert alone.id in broken
    same = ("max_ulp", "bad", "first_bad", "magnitude")
    assert alone.verdict is broken[alone.id].verdict
    assert [alone.get(name) for name in same] == [broken[alone.id].get(name) for name in same]


def lines_of(directory: Path) -> list[str]:
    """The ids of all readable lines, repeated ones included."""
    ids = []
    for line in (directory / "records.jsonl").read_text().splitlines():
        try:
            ids.append(json.loads(line)["id"])
        except ValueError:
            continue
    return ids


# An interruption in the middle of an item and of a line, and one after the last record; both ways
# of running, in one process and in several.
@pytest.mark.parametrize(("kept", "jobs"), [(0.45, 1), (1.0, 2)])
def test_resume_completes_an_interrupted_run(
    tmp_path: Path, toy_run: Path, stability: Stability, kept: float, jobs: int
) -> None:
    """Exactly the ids of the whole run, none recorded twice, and the run is complete."""
    cut = tmp_path / "cut"
    shutil.copytree(toy_run, cut)
    whole = (toy_run / "records.jsonl").read_bytes()
    (cut / "records.jsonl").write_bytes(whole[: int(kept * len(whole))])
    head = json.loads((cut / "run.json").read_text()) | {"complete": False}
    (cut / "run.json").write_text(json.dumps(head))
    before = lines_of(cut)

    done = stability("run", *TOY, "--resume", "--jobs", str(jobs), "--out", cut)
    assert done.code == 0
    after, reference = load(cut), load(toy_run)
    assert after.complete
    assert {each.id: each.verdict for each in after.records} == {
        each.id: each.verdict for each in reference.records
    }
    assert lines_of(cut)[: len(before)] == before
    assert max(collections.Counter(lines_of(cut)).values()) == 1


def test_shards_together_are_the_whole(tmp_path: Path, toy_run: Path, stability: Stability) -> None:
    """1/2 and 2/2 share no case, and their union is what an undivided run would record."""
    ids = []
    for shard in ("1/2", "2/2"):
        out = tmp_path / shard[0]
        done = stability("run", *TOY, "--shard", shard, "--jobs", "1", "--out", out)
        assert done.code == 0
        assert load(out).complete
        ids.append({each.id for each in load(out).records})
    assert not ids[0] & ids[1]
    assert ids[0] | ids[1] == {each.id for each in load(toy_run).records}


def test_an_empty_shard_is_a_complete_run(tmp_path: Path, stability: Stability) -> None:
    """More shards than items: the last has nothing to do, does it, and can be merged."""
    done = stability("run", *TOY, "--shard", "99/99", "--jobs", "1", "--out", tmp_path / "run")
    assert done.code == 0
    assert load(tmp_path / "run").records == ()
    assert load(tmp_path / "run").complete
