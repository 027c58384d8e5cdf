"""A run directory that somebody prepared: it costs an error or a problem, and nothing else."""

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import InputError, load
from harness import run_files as files
from harness.store import Writer
from suites.selftest.conftest import ROOT, Stability
from suites.selftest.many_records import HEAD, plain_records, write_run

SECRET = "the content of another file"


def run_with(directory: Path, *, head: str | None = None, lines: bytes | None = None) -> Path:
    """A good run of four records, with another run.json or more lines."""
    write_run(directory, 4)
    if head is not None:
        (directory / "run.json").write_text(head)
    if lines is not None:
        with (directory / "records.jsonl").open("ab") as stream:
            stream.write(lines)
    return directory


# Each place of a run where something that is no file of its own can stand.
@pytest.mark.parametrize("name", ["run.json", "records.jsonl", "records.jsonl.gz"])
@pytest.mark.parametrize("kind", ["link", "loop", "pipe", "device", "directory"])
def test_what_is_no_regular_file_is_refused(
    tmp_path: Path, stability: Stability, name: str, kind: str
) -> None:
    """At once, without reading what a link leads to: one sentence, exit code 4."""
    run = run_with(tmp_path / "run")
    (tmp_path / "secret").write_text(json.dumps(HEAD | {"note": SECRET}) + "\n")
    if name.endswith(".gz"):
        (run / "records.jsonl").unlink()
    path = run / name
    path.unlink(missing_ok=True)
    make: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to(tmp_path / "secret"),
        "loop": lambda: path.symlink_to(path),
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "directory": path.mkdir,
    }
    make[kind]()
    for command in ("table", "compare", "report", "merge"):
        more = {"compare": [run], "report": ["-o", tmp_path / "r"], "merge": ["-o", tmp_path / "m"]}
        done = stability(command, run, *more.get(command, []))
        assert (done.code, done.err.count("\n")) == (4, 1), done.err
        assert SECRET not in done.err + done.out
    assert not (tmp_path / "m").exists() or not list((tmp_path / "m").iterdir())


def test_writing_follows_no_link(tmp_path: Path) -> None:
    """A planted link where a resumed run would write its records, or a draft of run.json."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    run = run_with(tmp_path / "run")
    (run / "run.json.tmp").symlink_to(victim)
    environment = {"seed": 0, "device": HEAD["device"]}
    Writer.start(run, {}, environment, resume=True).finish(complete=True)
    assert victim.read_text() == "precious"
    assert not (run / "run.json").is_symlink()
    (run / "records.jsonl").unlink()
    (run / "records.jsonl").symlink_to(victim)
    with pytest.raises(InputError, match="is a link"):
        Writer.start(run, {}, environment, resume=True)
    assert victim.read_text() == "precious"


GOOD = json.dumps(next(plain_records(1)) | {"max_ulp": 0.5}).replace("op0", "op9")


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


# JSON that two readers could read differently, that is none, or that is a trap for its parser.
ODD: dict[str, tuple[str, str]] = {
    "key twice": (GOOD[:-1] + ', "verdict": "nan"}', "the key 'verdict' is given twice"),
    "key twice inside": (GOOD[:-1] + ', "options": {"a": 1, "a": 2}}', "the key 'a' is given"),
    "nan": (GOOD.replace("0.5", "NaN"), "NaN is not JSON"),
    "infinity": (GOOD.replace("0.5", "-Infinity"), "-Infinity is not JSON"),
    "overflow": (GOOD.replace("0.5", "1e999"), "1e999 is beyond the largest double"),
    "digits": (GOOD.replace("0.5", "9" * 5000), "longer than 20 digits"),
    "deep": (GOOD[:-1] + f', "x": {nested(40)}}}', "nested deeper than 32 levels"),
    "very deep": (nested(200_000), "nested deeper than 32 levels"),
    "surrogate": (GOOD.replace("op9", "\\ud800"), "surrogate"),
    "not utf-8": (GOOD.replace("op9", "\udcff"), "utf-8"),
    "magnitude": (
        GOOD.replace('"magnitude": 0.000244140625', '"magnitude": 1e5'),
        "is no fp16 number",
    ),
    "negative": (GOOD.replace('"magnitude": ', '"magnitude": -'), "no fp16 number, 0 or more"),
    "control": (GOOD.replace("op9", "\x1b"), "Invalid control character"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_line_costs_itself_alone(tmp_path: Path, name: str) -> None:
    """It is a problem in words, and the records beside it are read."""
    line, says = ODD[name]
    run = load(run_with(tmp_path / "run", lines=line.encode(errors="surrogateescape") + b"\n"))
    assert len(run.records) == 4
    (problem,) = run.problems
    assert says in problem
    assert len(problem) < 300


def test_text_that_is_odd_but_sound_is_read(tmp_path: Path) -> None:
    """Thirty-two levels, a number of twenty digits, characters beyond the first plane."""
    levels = '"x": ' + nested(31)
    for text in (levels, f'"x": {2**64 - 1}', '"x": "\\ud83d\\ude00"', '"x": 1e308'):
        where = tmp_path / f"run{abs(hash(text))}"
        run = load(run_with(where, lines=f"{GOOD[:-1]}, {text}}}\n".encode()))
        assert (len(run.records), run.problems) == (5, ())


HEADS: dict[str, tuple[str, str]] = {
    "nan": ('{"schema": 1, "seed": NaN}', "NaN is not JSON"),
    "twice": ('{"schema": 1, "schema": 1}', "the key 'schema' is given twice"),
    "deep": (nested(100_000), "nested deeper"),
    "true": ('{"schema": true}', "no schema number"),
    "older": ('{"schema": 0}', "measure it again"),
    "negative": ('{"schema": -1}', "measure it again"),
    "newer": ('{"schema": 2}', "upgrade stability-harness"),
    "large": ('{"schema": 1, "x": "' + "x" * files.LARGEST_HEAD + '"}', "larger than"),
    "digits": ('{"schema": ' + "9" * 5000 + "}", "longer than 20 digits"),
}


@pytest.mark.parametrize("name", HEADS)
def test_an_odd_run_json_is_one_sentence(tmp_path: Path, stability: Stability, name: str) -> None:
    """Of whatever command; an older schema and a newer one say what to do."""
    head, says = HEADS[name]
    run = run_with(tmp_path / "run", head=head)
    for command in (["table", run], ["compare", run, run], ["merge", run, "-o", tmp_path / "m"]):
        done = stability(*command)
        assert (done.code, done.err.count("\n")) == (4, 1), done.err
        assert says in done.err


def limited(run: Path, megabytes: int) -> subprocess.CompletedProcess[str]:
    """Load a run in a process that may take that much memory and ten seconds."""
    program = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({megabytes} << 20,) * 2)\n"
        "from harness.store import load\n"
        "from harness.errors import InputError\n"
        "try:\n    run = load(sys.argv[1])\nexcept InputError as error:\n    sys.exit(str(error))\n"
        "print(len(run.records), len(run.problems), run.problems[-1])\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program, str(run)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_line_of_half_a_gigabyte_takes_no_memory(tmp_path: Path) -> None:
    """A sparse file of one endless line: skipped in pieces, and what follows it is read."""
    run = run_with(tmp_path / "run")
    with (run / "records.jsonl").open("r+b") as stream:
        stream.seek(2**29, os.SEEK_END)
        stream.write(b"\n" + GOOD.encode() + b"\n")
    done = limited(run, 300)
    assert done.stdout.startswith("5 1 "), done.stderr
    assert f"longer than {files.LONGEST_LINE} bytes" in done.stdout


def packed_line(directory: Path, text: bytes, times: int) -> Path:
    """A small file that unpacks to one line of text * times, twice packed members aside."""
    run = run_with(directory)
    plain = run / "records.jsonl"
    piece = gzip.compress(text * (2**20 // len(text)), 1)
    good = gzip.compress(plain.read_bytes())
    (run / "records.jsonl.gz").write_bytes(good + piece * times)
    plain.unlink()
    return run


def test_a_packed_bomb_takes_no_memory(tmp_path: Path) -> None:
    """Half a gigabyte of zeros in half a megabyte, as one line and as a line of lists."""
    for name, text in (("zeros", b"\0"), ("lists", b"[],")):
        run = packed_line(tmp_path / name, text, 512)
        assert sum(each.stat().st_size for each in run.iterdir()) < 8 * 2**20
        done = limited(run, 300)
        assert done.stdout.startswith("4 1 "), done.stderr


def test_more_than_any_run_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits of all lines together, and of lists and objects, set low for this test."""
    run = run_with(tmp_path / "run")
    with monkeypatch.context() as low:
        low.setattr("harness.run_files.LARGEST_RUN", 1_000)
        with pytest.raises(InputError, match="more than 1000 bytes of records"):
            load(run)
    monkeypatch.setattr("harness.reading._MOST_CONTAINERS", 5)
    with pytest.raises(InputError, match="more lists and objects"):
        load(run)


def test_a_file_of_nothing_but_damage_keeps_few_problems(tmp_path: Path) -> None:
    """A hundred are told, the others counted: a problem a line would fill memory as well."""
    run = load(run_with(tmp_path / "run", lines=b"x\n" * 5_000))
    assert len(run.problems) == 101
    assert run.problems[-1] == "records.jsonl: 4900 more lines skipped"


def test_both_forms_of_records_are_refused(tmp_path: Path) -> None:
    """One could hide the other."""
    run = run_with(tmp_path / "run")
    (run / "records.jsonl.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(InputError, match="holds both"):
        load(run)


def test_a_name_of_a_catalog_in_a_file_is_not_imported(
    tmp_path: Path, stability: Stability, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run.json names a module and a command; every reader leaves both alone."""
    (tmp_path / "trap.py").write_text("from pathlib import Path\nPath('sprung').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    head = HEAD | {"asked": HEAD["asked"] | {"catalog": "trap"}, "argv": ["touch", "sprung"]}
    run = run_with(tmp_path / "run", head=json.dumps(head))
    for words in (
        ["table", run],
        ["table", run, "--cases"],
        ["compare", run, run],
        ["report", run, "-o", tmp_path / "r.html"],
        ["atlas", run, "-o", "-"],
        ["merge", run, "-o", tmp_path / "m"],
        ["baseline", "set", run, "--in", tmp_path / "b", "--force"],
    ):
        assert stability(*words).code in (0, 3), words
    assert not (tmp_path / "sprung").exists()
    assert "trap" not in sys.modules


@pytest.mark.parametrize(
    "asked", [{"catalog": "trap"}, {"workload": ["trap:make"], "suite": "training"}], ids=str
)
def test_a_resumption_imports_no_module_that_only_the_file_names(
    tmp_path: Path, stability: Stability, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    """It says which option would allow it; with the option the module is imported."""
    (tmp_path / "trap.py").write_text("from pathlib import Path\nPath('sprung').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "trap", raising=False)
    every = {key: [] for key in ("operation", "path", "dtype", "regime", "pass", "workload")}
    whole = HEAD["asked"] | every | {"magnitude": None, "quick": False, "catalog": "suites.catalog"}
    run = run_with(tmp_path / "run", head=json.dumps(HEAD | {"asked": whole | asked}))
    done = stability("run", "--resume", "--out", run)
    assert (done.code, done.err.count("\n")) == (4, 1), done.err
    option = "--catalog trap" if "catalog" in asked else "--workload trap:make"
    assert f"name it yourself: {option}" in done.err
    assert not (tmp_path / "sprung").exists()
    assert stability("run", "--resume", "--out", run, *option.split()).code == 4  # it has no cases
    assert (tmp_path / "sprung").exists()


def test_a_device_cannot_name_a_folder_elsewhere(tmp_path: Path, stability: Stability) -> None:
    """A baseline's folder is named by run.json: a path in it is refused."""
    for name in ("../../escaped", "/tmp/escaped", "..", "a/b", "x\0y"):
        head = json.dumps(HEAD | {"device": {"kind": "cpu", "name": name}})
        run = run_with(tmp_path / f"run{abs(hash(name))}", head=head)
        done = stability("baseline", "set", run, "--in", tmp_path / "in", "--force")
        assert done.code == 4
        assert "no name for a folder" in done.err


def test_two_runs_cannot_write_to_one_directory(tmp_path: Path) -> None:
    """The second is refused while the first writes, and may go on when it is gone, even killed."""
    environment: dict[str, Any] = {"seed": 0, "device": HEAD["device"]}
    first = Writer.start(tmp_path / "run", {}, environment, resume=False)
    with pytest.raises(InputError, match="already holds a run"):
        Writer.start(tmp_path / "run", {}, environment, resume=False)
    with pytest.raises(InputError, match="another process is writing"):
        Writer.start(tmp_path / "run", {}, environment, resume=True)
    first.finish(complete=False)
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom harness.store import Writer\n"
        f"writer = Writer.start(Path(sys.argv[1]), {{}}, {environment!r}, resume=True)\n"
        "print('writing', flush=True)\ntime.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "run")], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"writing\n"
    with pytest.raises(InputError, match="another process is writing"):
        Writer.start(tmp_path / "run", {}, environment, resume=True)
    child.kill()
    child.wait()
    child.stdout.close()
    Writer.start(tmp_path / "run", {}, environment, resume=True).finish(complete=True)


def test_a_start_that_was_killed_leaves_no_trap(tmp_path: Path) -> None:
    """Records without a line and no run.json yet: a new run begins there."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "records.jsonl").touch()
    environment: dict[str, Any] = {"seed": 0, "device": HEAD["device"]}
    Writer.start(tmp_path / "run", {}, environment, resume=False).finish(complete=True)
    assert load(tmp_path / "run").complete


def test_a_clock_set_back_does_no_harm(tmp_path: Path, stability: Stability) -> None:
    """A run that ended before it began, and one from the future: resumed, shown, merged."""
    run = run_with(tmp_path / "run")
    future = HEAD | {"started": "2999-01-01T00:00:00+00:00", "complete": False}
    (run / "run.json").write_text(json.dumps(future))
    environment: dict[str, Any] = {"seed": 0, "device": HEAD["device"]}
    Writer.start(run, {}, environment, resume=True).finish(complete=True)
    loaded = load(run)
    assert loaded.environment["started"] > loaded.environment["ended"]
    assert loaded.environment["ended"][:4] == time.strftime("%Y")
    for words in (
        ["table", run],
        ["report", run, "-o", tmp_path / "r.html"],
        ["merge", run, "-o", tmp_path / "m"],
    ):
        assert stability(*words).code == 0
