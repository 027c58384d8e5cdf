"""`stability baseline`: a run promoted whole, the old one kept until then, nothing else harmed."""

import gzip
import json
from pathlib import Path
from typing import NoReturn

import pytest

from harness import InputError, baseline, load
from suites.selftest.conftest import ROOT, Stability
from suites.selftest.written_runs import HEAD, id_at, judged, write

RECORDS = [judged(id_at(magnitude)) for magnitude in (1, 2, 4)]


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*.*") if p.is_file()
    }


def test_a_promoted_run_is_the_same_run_compressed(tmp_path: Path, stability: Stability) -> None:
    """In the folder of its device, run.json and the compressed records; it compares as the same."""
    run = write(tmp_path / "run", RECORDS)
    done = stability("baseline", "set", run, "--in", tmp_path / "baselines")
    target = tmp_path / "baselines" / "cpu-interpreter"
    assert (done.code, done.out) == (0, f"{target}: 3 cases\n")
    assert files(target).keys() == {"run.json", "records.jsonl.gz"}
    assert (target / "run.json").read_bytes() == (run / "run.json").read_bytes()
    packed = (target / "records.jsonl.gz").read_bytes()
    assert gzip.decompress(packed) == (run / "records.jsonl").read_bytes()
    assert stability("compare", target, run, "--fail-on", "any").code == 0
    assert [each.name for each in (tmp_path / "baselines").iterdir()] == ["cpu-interpreter"]


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    """Promoted twice, from plain and from compressed records: no time, no name in the file."""
    run = write(tmp_path / "run", RECORDS)
    first = baseline.set_baseline(run, tmp_path / "one").directory
    second = baseline.set_baseline(first, tmp_path / "two").directory
    again = baseline.set_baseline(run, tmp_path / "one").directory
    assert files(first) == files(second) == files(again)


# What is no proof of one state of the code: unfinished, uncommitted, unknown, damaged.
@pytest.mark.parametrize(
    ("head", "complete", "damage", "says"),
    [
        (HEAD, False, "", "is not complete"),
        (HEAD | {"git": {"commit": "0" * 40, "dirty": True}}, True, "", "uncommitted changes"),
        ({k: v for k, v in HEAD.items() if k != "git"}, True, "", "which commit it measured"),
        (HEAD, True, '{"half', "is damaged"),
    ],
)
def test_an_unfit_run_is_refused_unless_forced(
    tmp_path: Path,
    stability: Stability,
    head: dict[str, object],
    complete: bool,
    damage: str,
    says: str,
) -> None:
    """Exit code 4, one sentence, the old baseline as it was; with --force it is taken."""
    within = tmp_path / "baselines"
    before = files(baseline.set_baseline(write(tmp_path / "old", RECORDS), within).directory)
    run = write(tmp_path / "run", RECORDS[:2], head=head, complete=complete)
    with (run / "records.jsonl").open("a") as stream:
        stream.write(damage)
    done = stability("baseline", "set", run, "--in", within)
    assert (done.code, done.out, done.err.count("\n")) == (4, "", 1)
    assert says in done.err
    assert files(within / "cpu-interpreter") == before
    forced = stability("baseline", "set", run, "--in", within, "--force")
    assert forced.code == 0
    assert "had 1 cases on the grid that this one lacks" in forced.err
    assert len(load(within / "cpu-interpreter").records) == 2


def test_an_empty_run_is_refused_always(tmp_path: Path) -> None:
    """Nothing would ever regress from it."""
    run = write(tmp_path / "run", [])
    with pytest.raises(InputError, match="has no records"):
        baseline.set_baseline(run, tmp_path / "baselines", force=True)


# Wherever it fails: while the copy is made, when it is put in place.
@pytest.mark.parametrize("broken", ["_copy", "rename"])
def test_a_failure_leaves_the_old_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """A full disk in the middle: one sentence, the old one whole, nothing left lying about."""
    within = tmp_path / "baselines"
    before = files(baseline.set_baseline(write(tmp_path / "old", RECORDS), within).directory)
    run = write(tmp_path / "run", RECORDS[:1])

    def fails(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    def renames(self: Path, to: Path) -> Path:  # all but the copy to its place
        return (
            fails() if to.name == "cpu-interpreter" and self.suffix != ".old" else whole(self, to)
        )

    whole = Path.rename
    if broken == "_copy":
        monkeypatch.setattr(baseline, "_copy", fails)
    else:
        monkeypatch.setattr(Path, "rename", renames)
    with pytest.raises(InputError, match=r"cannot write .*: No space left"):
        baseline.set_baseline(run, within)
    assert files(within / "cpu-interpreter") == before
    assert [each.name for each in within.iterdir()] == ["cpu-interpreter"]


# Names that would leave the folder, or are none.
@pytest.mark.parametrize("name", ["../../etc", "/etc", "..", "", ".hidden", "a b", "x" * 200, None])
def test_a_device_that_is_no_folder_name_is_refused(tmp_path: Path, name: str | None) -> None:
    """A run file is not trusted to say where to write; --device says it instead."""
    run = write(tmp_path / "run", RECORDS, head=HEAD | {"device": {"name": name}})
    with pytest.raises(InputError, match="--device"):
        baseline.set_baseline(run, tmp_path / "baselines")
    assert not (tmp_path / "baselines").exists()
    done = baseline.set_baseline(run, tmp_path / "baselines", device="mine")
    assert done.directory == tmp_path / "baselines" / "mine"


def test_what_is_no_baseline_is_not_replaced(tmp_path: Path) -> None:
    """A folder with other files, a file, a link: refused, and still there."""
    run = write(tmp_path / "run", RECORDS)
    within = tmp_path / "baselines"
    (within / "folder").mkdir(parents=True)
    (within / "folder" / "thesis.tex").write_text("precious")
    (within / "file").write_text("precious")
    (within / "link").symlink_to(tmp_path)
    for name in ("folder", "file", "link"):
        with pytest.raises(InputError, match="no part of a baseline"):
            baseline.set_baseline(run, within, device=name)
    assert (within / "folder" / "thesis.tex").read_text() == "precious"
    assert (within / "file").read_text() == "precious"
    assert (within / "link").is_symlink()


def test_path_and_list_say_where_baselines_are(tmp_path: Path, stability: Stability) -> None:
    """The folder of a run's device, there or not yet; and a line for each that is there."""
    within = tmp_path / "baselines"
    run = write(tmp_path / "run", RECORDS)
    expected = f"{within / 'cpu-interpreter'}\n"
    assert stability("baseline", "path", run, "--in", within).out == expected
    assert stability("baseline", "list", "--in", within).code == 4
    stability("baseline", "set", run, "--in", within)
    (line,) = stability("baseline", "list", "--in", within).out.splitlines()
    assert line.startswith("cpu-interpreter: ")
    assert "0123456789ab" in line
    assert "3 cases" in line


def test_the_committed_baseline_is_fit_to_be_one(stability: Stability, tmp_path: Path) -> None:
    """Its head passes what `set` asks of a run: complete, committed, of a known device."""
    committed = ROOT / "results" / "baselines" / "cpu-interpreter"
    head = json.loads((committed / "run.json").read_text())
    run = write(tmp_path / "run", RECORDS)
    (run / "run.json").write_text(json.dumps(head))
    assert stability("baseline", "set", run, "--in", tmp_path / "baselines").code == 0
