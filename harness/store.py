"""Station six: a run is a directory; lines are appended and flushed, and what is written stays.

run.json        what was asked, on what, when, and at the end `"complete": true`
records.jsonl   one record a line (readers take records.jsonl.gz too)
"""

import gzip
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from harness.errors import InputError
from harness.record import Record, record_from_dict

if TYPE_CHECKING:
    import pandas

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Run:
    """A recorded run; `problems` says in words what in its files could not be read."""

    directory: Path
    environment: dict[str, Any]  # run.json
    records: tuple[Record, ...]
    problems: tuple[str, ...] = field(default=())

    @property
    def complete(self) -> bool:
        return self.environment.get("complete") is True

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a record, one column a field; a field that a record lacks is missing there."""
        import pandas

        return pandas.DataFrame([record.to_dict() for record in self.records])


def load(run_directory: str | os.PathLike[str]) -> Run:
    """Read a run. A damaged line (a truncated last one, usually) is reported and skipped.

    Raises:
        InputError: if the directory or its run.json or records cannot be read, or were written with
            a newer schema.
    """
    directory = Path(run_directory)
    try:
        found = directory.is_dir()
    except OSError as error:  # a name too long, a parent that may not be entered
        raise InputError(f"no run at {directory}: {error.strerror or error}") from None
    if not found:
        raise InputError(f"no run at {directory}: not a directory")
    environment = read_environment(directory)
    path = _records_path(directory)
    records: dict[str, Record] = {}
    problems = []
    try:
        for number, line in enumerate(_lines(path), start=1):
            if not line.strip():
                continue
            try:
                record = record_from_dict(json.loads(line))
            except (ValueError, RecursionError) as error:
                problems.append(f"{path.name} line {number} skipped: {error}")
                continue
            records[record.id] = record  # a case measured again: the later line counts
    except (OSError, EOFError, zlib.error) as error:
        # A gzip file cut short or damaged raises here; what came before is kept.
        problems.append(f"{path.name} ends early: {error}")
        if not records:
            raise InputError(f"cannot read {path}: {error}") from None
    return Run(directory, environment, tuple(records.values()), tuple(problems))


def read_environment(directory: Path) -> dict[str, Any]:
    """The content of run.json; raises InputError as `load` does."""
    path = directory / "run.json"
    try:
        environment = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no run at {directory}: it has no run.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    if not isinstance(environment, dict) or not isinstance(environment.get("schema"), int):
        raise InputError(f"{path} is not a run: it has no schema number")
    if environment["schema"] > SCHEMA:
        raise InputError(
            f"{path} has schema {environment['schema']}, this version reads up to {SCHEMA};"
            " upgrade stability-harness"
        )
    return environment


def _records_path(directory: Path) -> Path:
    for name in ("records.jsonl", "records.jsonl.gz"):
        if (directory / name).exists():
            return directory / name
    raise InputError(f"no records in {directory}: expected records.jsonl or records.jsonl.gz")


def _lines(path: Path) -> Iterator[str]:
    # Bytes that are no UTF-8 are replaced, so that one bad line is one problem, not all of them.
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", errors="replace") as stream:
        yield from stream


class Writer:
    """Appends records to a run directory, one flushed line each.

    `start` raises InputError if the directory holds a run already (unless resuming), belongs to
    something else, or cannot be written.
    """

    def __init__(self, directory: Path, environment: dict[str, Any], stream: TextIO) -> None:
        self.directory = directory
        self._environment = environment
        self._stream = stream

    @classmethod
    def start(
        cls, directory: Path, asked: dict[str, Any], environment: dict[str, Any], *, resume: bool
    ) -> "Writer":
        """Begin a run, or go on with one that was interrupted."""
        prepare_directory(directory, resume=resume)
        head: dict[str, Any]
        if (directory / "run.json").exists():
            head = read_environment(directory) | {"complete": False}
            _check_same(directory, head, environment)
        else:
            head = {
                "schema": SCHEMA,
                "argv": sys.argv,
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                "complete": False,
                "asked": asked,
                **environment,
            }
        try:
            _write_whole(directory / "run.json", head)
            path = directory / "records.jsonl"
            _end_last_line(path)
            stream = path.open("a", encoding="utf-8")
        except OSError as error:
            raise _unwritable(directory, error) from None
        return cls(directory, head, stream)

    def append(self, records: Iterable[Record]) -> None:
        """Write and flush.

        Raises:
            InputError: if the disk is full or gone; the lines before stay whole and readable.
        """
        try:
            for record in records:
                self._stream.write(record.to_json() + "\n")
            self._stream.flush()
        except OSError as error:
            raise InputError(
                f"cannot write results to {self.directory}: {error.strerror or error};"
                " what was recorded before is kept, make room and go on with --resume"
            ) from None

    def finish(self, *, complete: bool) -> None:
        """Close the files, and mark the run complete if it is.

        Raises:
            InputError: if the disk is full or gone; the run then stays incomplete.
        """
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            self._stream.close()
            _write_whole(
                self.directory / "run.json",
                self._environment | {"complete": complete, "ended": ended},
            )
        except OSError as error:
            raise _unwritable(self.directory, error) from None


def prepare_directory(directory: Path, *, resume: bool) -> None:
    """Make a run directory and see that it can be written.

    Raises:
        InputError: if it cannot be, holds a run and is not resumed, or holds something else.
    """
    try:
        holds_run = (directory / "run.json").exists()
        directory.mkdir(parents=True, exist_ok=True)
        # Written to find out: permission bits say nothing to root, or of a read-only disk.
        with tempfile.TemporaryFile(dir=directory):
            strangers = not holds_run and any(directory.iterdir())
    except OSError as error:
        raise _unwritable(directory, error) from None
    if holds_run and not resume:
        raise InputError(
            f"{directory} already holds a run; name a new directory with --out, or complete it"
            " with --resume"
        )
    if strangers:
        raise InputError(f"{directory} is not empty and holds no run; name a new directory")


def _check_same(directory: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Records of another seed or device would stand beside the old ones under the same ids."""
    seeds = before.get("seed"), now.get("seed")
    devices = _device_name(before), _device_name(now)
    for name, (first, second) in (("seed", seeds), ("device", devices)):
        if first != second:
            raise InputError(
                f"{directory} was begun with {name} {first}, not {second};"
                " resume it with the same, or name a new directory with --out"
            )


def _device_name(environment: dict[str, Any]) -> object:
    device = environment.get("device")
    return device.get("name") if isinstance(device, dict) else None


def _unwritable(directory: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot write results to {directory}: {error.strerror or error};"
        " name a writable directory with --out"
    )


def _end_last_line(path: Path) -> None:
    """Give a truncated last line its newline, so that what is appended does not join it."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as stream:
        stream.seek(-1, os.SEEK_END)
        if stream.read(1) != b"\n":
            stream.write(b"\n")


def _write_whole(path: Path, content: dict[str, Any]) -> None:
    """Replace a file in one step: a reader sees the old one or the new one, never half."""
    draft = path.with_suffix(".json.tmp")
    draft.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)
