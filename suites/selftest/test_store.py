"""The run directory: what is written stays readable, whatever happens to the writer."""

import errno
import gzip
import json
import math
from pathlib import Path

import pytest

from harness import InputError, Verdict, load
from harness.case import Case
from harness.record import Record
from harness.store import Writer, prepare_directory

HEAD = {"seed": 0, "device": {"kind": "cpu", "name": "cpu-interpreter"}}


def record(magnitude: float, verdict: Verdict = Verdict.OK) -> Record:
    case = Case("cross_entropy", "naive", "fp32", "peak", magnitude, (4, 64), "forward")
    axes = {"regime": case.regime, "magnitude": magnitude, "shape": [4, 64], "pass": case.pass_}
    return Record(
        case.id,
        "stability",
        case.operation,
        case.path,
        case.dtype,
        verdict,
        axes | {"max_ulp": 0.5},
    )


RECORDS = tuple(record(float(magnitude)) for magnitude in range(1, 101))


def write(directory: Path, records: tuple[Record, ...] = RECORDS, *, complete: bool = True) -> Path:
    writer = Writer.start(directory, {"suite": "stability"}, HEAD, resume=False)
    writer.append(records)
    writer.finish(complete=complete)
    return directory


def magnitudes(directory: Path) -> list[float]:
    return [each["magnitude"] for each in load(directory).records]


def test_a_run_reads_back(tmp_path: Path) -> None:
    """Every record comes back as it was written, in order, with what the run says of itself."""
    run = load(write(tmp_path / "run"))
    assert [each.to_json() for each in run.records] == [each.to_json() for each in RECORDS]
    assert run.problems == ()
    assert run.complete
    assert run.environment.items() >= {"schema": 1, "seed": 0, "complete": True}.items()
    frame = run.to_pandas()
    assert len(frame) == len(RECORDS)
    assert frame["magnitude"].tolist() == [each["magnitude"] for each in RECORDS]


def test_lines_are_there_before_the_run_ends(tmp_path: Path) -> None:
    """Appended records are on disk at once, in a run that says it is not complete."""
    writer = Writer.start(tmp_path / "run", {}, HEAD, resume=False)
    for count, each in enumerate(RECORDS[:5], start=1):
        writer.append([each])
        assert len(magnitudes(tmp_path / "run")) == count
    assert not load(tmp_path / "run").complete
    writer.finish(complete=False)
    assert not load(tmp_path / "run").complete


def test_a_truncated_last_line_is_reported_and_skipped(tmp_path: Path) -> None:
    """Cut at any place within it, the last line is lost and said to be; the others are kept."""
    path = write(tmp_path / "run") / "records.jsonl"
    whole = path.read_bytes()
    last = len(RECORDS[-1].to_json())
    for cut in (2, last // 2, last):
        path.write_bytes(whole[:-cut])
        run = load(path.parent)
        assert len(run.records) == len(RECORDS) - 1
        (problem,) = run.problems
        assert problem.startswith(f"records.jsonl line {len(RECORDS)} skipped: ")


# What a crash, a disk or a foreign program leaves behind: zeros, another encoding, another kind of
# JSON, a verdict of tomorrow, nesting that a parser refuses.
@pytest.mark.parametrize(
    "line",
    [
        b"\0" * 64,
        b"\xff\xfe{",
        b"[1, 2]",
        b"null",
        b'{"id": "x"}',
        RECORDS[0].to_json().replace('"ok"', '"splendid"').encode(),
        RECORDS[0].to_json().replace("0.5", "NaN").encode(),
        b"[" * 100_000,
    ],
    ids=["zeros", "no-utf8", "list", "null", "no-fields", "verdict", "nan", "nested"],
)
def test_one_damaged_line_costs_one_record(tmp_path: Path, line: bytes) -> None:
    """A line in the middle that is no record is one problem, and what follows it is read."""
    path = write(tmp_path / "run") / "records.jsonl"
    lines = path.read_bytes().splitlines()
    lines[40] = line
    path.write_bytes(b"\n".join(lines) + b"\n")
    run = load(path.parent)
    assert len(run.records) == len(RECORDS) - 1
    assert [problem.partition(" skipped")[0] for problem in run.problems] == [
        "records.jsonl line 41"
    ]


def compress(directory: Path) -> Path:
    plain = directory / "records.jsonl"
    packed = plain.with_suffix(".jsonl.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    return packed


def test_gzipped_records_are_read(tmp_path: Path) -> None:
    """A committed baseline reads as the run that it was packed from."""
    compress(write(tmp_path / "run"))
    run = load(tmp_path / "run")
    assert [each.to_json() for each in run.records] == [each.to_json() for each in RECORDS]
    assert run.problems == ()


def test_a_truncated_gzip_keeps_what_came_before(tmp_path: Path) -> None:
    """The records before the cut are read, in order, and the cut is reported."""
    packed = compress(write(tmp_path / "run"))
    packed.write_bytes(packed.read_bytes()[: packed.stat().st_size * 2 // 3])
    run = load(tmp_path / "run")
    assert 0 < len(run.records) < len(RECORDS)
    assert [each.id for each in run.records] == [each.id for each in RECORDS[: len(run.records)]]
    assert any("records.jsonl.gz ends early" in problem for problem in run.problems)


def test_a_gzip_damaged_from_the_start_is_an_input_error(tmp_path: Path) -> None:
    """With nothing readable in it there is no run: bad magic, cut header, damaged stream."""
    packed = compress(write(tmp_path / "run"))
    good = packed.read_bytes()
    for bad in (b"no gzip at all", good[:5], good[:10] + b"\xff" * 200):
        packed.write_bytes(bad)
        with pytest.raises(InputError, match=r"cannot read .*records\.jsonl\.gz"):
            load(tmp_path / "run")


# What stands in run.json, and what the reader says; the schema of tomorrow names the remedy.
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"schema": 2}', "upgrade stability-harness"),
        ("{}", "no schema number"),
        ("[]", "no schema number"),
        ('{"schema": 1', "cannot read"),
        ("\udcff", "cannot read"),
        (None, r"it has no run\.json"),
    ],
)
def test_an_unreadable_run_is_an_input_error(
    tmp_path: Path, content: str | None, says: str
) -> None:
    """One sentence that names the file."""
    path = write(tmp_path / "run") / "run.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=says) as refused:
        load(path.parent)
    assert str(path.parent) in str(refused.value)


def test_what_is_no_run_directory_is_an_input_error(tmp_path: Path) -> None:
    """Absent, a file, a name no file system takes, no records, records that are a directory."""
    (tmp_path / "file").touch()
    bare = write(tmp_path / "bare")
    (bare / "records.jsonl").unlink()
    odd = write(tmp_path / "odd")
    (odd / "records.jsonl").unlink()
    (odd / "records.jsonl").mkdir()
    for name in ("absent", "file", "x" * 300, "bare", "odd"):
        with pytest.raises(InputError, match=name):
            load(tmp_path / name)


def test_nan_is_never_written(tmp_path: Path) -> None:
    """A record with a number that is not finite is refused before a byte of it reaches the file."""
    writer = Writer.start(tmp_path / "run", {}, HEAD, resume=False)
    bad = Record("id", "stability", "op", "path", "fp32", Verdict.NAN, {"max_ulp": math.nan})
    with pytest.raises(ValueError, match="not JSON compliant"):
        writer.append([RECORDS[0], bad])
    writer.append([RECORDS[1]])
    writer.finish(complete=True)
    text = (tmp_path / "run" / "records.jsonl").read_text()
    assert "NaN" not in text
    assert magnitudes(tmp_path / "run") == [1.0, 2.0]


def test_resume_appends_after_a_truncated_line(tmp_path: Path) -> None:
    """The damaged line gets an end of its own, so that the next record does not join it."""
    path = write(tmp_path / "run", RECORDS[:3], complete=False) / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    writer = Writer.start(tmp_path / "run", {}, HEAD, resume=True)
    writer.append(RECORDS[2:4])
    writer.finish(complete=True)
    run = load(tmp_path / "run")
    assert [each["magnitude"] for each in run.records] == [1.0, 2.0, 3.0, 4.0]
    assert len(run.problems) == 1
    assert run.complete


def test_a_case_measured_again_counts_once(tmp_path: Path) -> None:
    """Of two lines with one id the later one counts."""
    again = record(1.0, Verdict.NAN)
    run = load(write(tmp_path / "run", (*RECORDS[:2], again)))
    assert [each.verdict for each in run.records] == [Verdict.NAN, Verdict.OK]


def test_an_existing_directory_is_refused(tmp_path: Path) -> None:
    """A run is not overwritten, and other people's files are not mixed with records."""
    write(tmp_path / "run")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "thesis.tex").touch()
    for name, says in (("run", "already holds a run"), ("strange", "is not empty")):
        for start in (prepare_directory, lambda d, resume: Writer.start(d, {}, {}, resume=resume)):
            with pytest.raises(InputError, match=says):
                start(tmp_path / name, resume=False)
    assert len(magnitudes(tmp_path / "run")) == len(RECORDS)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    assert len(magnitudes(tmp_path / "empty")) == len(RECORDS)


# The same ids under another seed or device would be other cases.
@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"device": {"kind": "cuda", "name": "nvidia-h200"}}], ids=str
)
def test_resuming_with_another_seed_or_device_is_refused(
    tmp_path: Path, other: dict[str, object]
) -> None:
    """The run keeps its records and stays as it was."""
    write(tmp_path / "run", complete=False)
    (name,) = other
    with pytest.raises(InputError, match=f"was begun with {name}"):
        Writer.start(tmp_path / "run", {}, HEAD | other, resume=True)
    assert len(magnitudes(tmp_path / "run")) == len(RECORDS)


# Permission bits say nothing to root: below a regular file, in its place, too long a name, and a
# file system that takes no directories from anybody.
@pytest.mark.parametrize("where", ["file/run", "file", "x" * 300, "/proc/run"])
def test_an_unwritable_place_is_an_input_error(tmp_path: Path, where: str) -> None:
    """Said before anything is measured, with what to do."""
    (tmp_path / "file").write_text("precious")
    with pytest.raises(InputError, match=r"cannot write results to .* name a writable directory"):
        prepare_directory(tmp_path / where, resume=False)
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_an_input_error_and_loses_nothing(tmp_path: Path) -> None:
    """Appending and finishing say that the disk is full; what was recorded before is read."""
    directory = write(tmp_path / "run", RECORDS[:3], complete=False)
    stream = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115 - finish() closes it
    full = Writer(directory, {"schema": 1}, stream)
    for attempt in (lambda: full.append(RECORDS[3:4]), lambda: full.finish(complete=True)):
        with pytest.raises(InputError, match="No space left on device"):
            attempt()
    assert magnitudes(directory) == [1.0, 2.0, 3.0]
    assert not load(directory).complete


def test_a_disk_that_fills_while_run_json_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old run.json stays whole, so that the run can still be read, and resumed."""
    writer = Writer.start(tmp_path / "run", {}, HEAD, resume=False)
    writer.append(RECORDS)

    def no_space(self: Path, *args: object, **kwargs: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", no_space)
        with pytest.raises(InputError, match="No space left on device"):
            writer.finish(complete=True)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["complete"] is False
    assert len(magnitudes(tmp_path / "run")) == len(RECORDS)
