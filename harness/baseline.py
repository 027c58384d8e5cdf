"""Promotion of a run to the baseline of its device, beside the old one first, then in its place."""

import gzip
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InputError
from harness.reading import read_environment, records_stream
from harness.render_common import title
from harness.run_files import read_head
from harness.safe_text import printable
from harness.store import Run, load

_PARTS = ("run.json", "records.jsonl", "records.jsonl.gz")


@dataclass(frozen=True, slots=True)
class Promoted:
    """What `set_baseline` did."""

    directory: Path
    cases: int
    lost: int  # cases on the grid that the old baseline had and this one lacks


def set_baseline(
    run_directory: Path, within: Path, *, device: str | None = None, force: bool = False
) -> Promoted:
    """Copy a run, compressed, to `within`/<device>; the old baseline goes when the copy is whole.

    The same run gives the same bytes, so that git sees a change only where there is one.

    Raises:
        InputError: if the run is incomplete, damaged, empty or not of one committed state of the
            code (`force` takes it all the same, but for an empty one); if its device is not a name
            for a folder; if the target holds something else; or if it cannot be written.
    """
    run = load(run_directory)
    if not run.records:
        raise InputError(f"{run_directory} has no records; a baseline needs some")
    if not force:
        _check_fit(run)
    target = within / (_folder(device, "--device") if device else device_of(run))
    lost = _lost(run, target)
    try:
        within.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=within))
        try:
            _copy(run, beside)
            beside.chmod(0o755)  # mkdtemp's is private
            _swap(beside, target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}") from None
    return Promoted(target, len(run.records), lost)


def baseline_path(run_directory: Path | None, within: Path) -> Path:
    """Where the baseline of a run's device belongs, or of the device here; it may not exist yet."""
    if run_directory is not None:
        environment = read_environment(run_directory)
        return within / device_of(Run(run_directory, environment, ()))
    import torch

    from harness.environment import device_name

    return within / device_name("cuda" if torch.cuda.is_available() else "cpu")


def device_of(run: Run) -> str:
    """The run's device as a folder's name; raises InputError if run.json has none that can be."""
    device = run.environment.get("device")
    name = device.get("name") if isinstance(device, dict) else None
    return _folder(name if isinstance(name, str) else "", f"the device of {run.directory}")


def listed(within: Path) -> Iterator[str]:
    """A line a baseline; raises InputError if the folder is not there."""
    if not within.is_dir():
        raise InputError(f"no baselines at {within}: not a directory")
    for each in sorted(within.iterdir()):
        if (each / "run.json").exists():
            run = load(each)
            git = run.environment.get("git")
            commit = str(git.get("commit", "-"))[:12] if isinstance(git, dict) else "-"
            started = str(run.environment.get("started", "-"))[:10]
            yield printable(f"{each.name}: {started} {commit} | {title(run)}")


def _check_fit(run: Run) -> None:
    where = run.directory
    anyway = "or take it all the same with --force"
    if not run.complete:
        raise InputError(
            f"{where} is not complete; go on with stability run --resume --out {where}, {anyway}"
        )
    if run.problems:
        raise InputError(f"{where} is damaged ({run.problems[0]}); measure it again, {anyway}")
    git = run.environment.get("git")
    if not isinstance(git, dict) or not git.get("commit"):
        raise InputError(
            f"{where} does not say which commit it measured; use a git clone, {anyway}"
        )
    if git.get("dirty"):
        raise InputError(
            f"{where} was measured with uncommitted changes, so nobody can measure it again;"
            f" commit them and run it anew, {anyway}"
        )


def _folder(name: str, whose: str) -> str:
    """A name that cannot leave the folder it is for."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise InputError(
            f"{whose} is {name!r}, which is no name for a folder; give one with --device,"
            " of letters, digits, dots, dashes and underscores"
        )
    return name


def _lost(run: Run, target: Path) -> int:
    """Cases of the old baseline that the new one lacks; refuses a target that is no baseline."""
    if not os.path.lexists(target):
        return 0
    strangers = [each.name for each in target.iterdir()] if target.is_dir() else [target.name]
    strangers = [each for each in strangers if each not in _PARTS]
    if target.is_symlink() or strangers:
        raise InputError(
            f"{target} holds what is no part of a baseline ({', '.join(strangers) or 'a link'});"
            " move it away first"
        )
    if not (target / "run.json").exists():
        return 0
    ids = {record.id for record in run.records}
    return sum(not each.get("refined") and each.id not in ids for each in load(target).records)


def _copy(run: Run, beside: Path) -> None:
    """run.json as it is, the records compressed; both on disk before anything is replaced."""
    # Piece by piece: what is small when packed need not be when it is not.
    with records_stream(run.directory) as source, (beside / "records.jsonl.gz").open("wb") as raw:
        # No time and no name in the header: the same records are the same file.
        with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=raw, mtime=0) as stream:
            shutil.copyfileobj(source, stream)
        raw.flush()
        os.fsync(raw.fileno())
    with (beside / "run.json").open("wb") as head:
        head.write(read_head(run.directory / "run.json").encode())
        head.flush()
        os.fsync(head.fileno())
    if load(beside).records != run.records:
        raise InputError(f"{run.directory} changed while it was copied; try again when it is done")


def _swap(beside: Path, target: Path) -> None:
    """Put the copy in the target's place, and the old one back if that fails."""
    old = beside.with_name(f"{beside.name}.old")
    had = target.exists()
    if had:
        target.rename(old)
    try:
        beside.rename(target)
    except OSError:
        if had:
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
