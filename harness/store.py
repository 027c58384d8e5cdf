"""Station six: a run is a directory; lines are appended and flushed, and what is written stays.

run.json        what was asked, on what, when, and at the end `"complete": true`
records.jsonl   one record a line (readers take records.jsonl.gz too)
"""

import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from harness.errors import InputError
from harness.reading import SCHEMA, not_collecting, read_environment, stream_records
from harness.record import Record
from harness.run_files import open_for_appending, write_whole

if TYPE_CHECKING:
    import pandas

__all__ = ["Run", "Writer", "load", "prepare_directory", "read_environment"]


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
        InputError: if the directory or its run.json or records cannot be read, were written with
            another schema, or are no files of their own (links, pipes, devices).
    """
    directory = Path(run_directory)
    environment = read_environment(directory)
    problems: list[str] = []
    with not_collecting():
        records = {record.id: record for record in stream_records(directory, problems)}
        # A case measured again: the later line counts.
        return Run(directory, environment, tuple(records.values()), tuple(problems))


class Writer:
    """Appends records to a run directory, one flushed line each; no other process may, meanwhile.

    `start` raises InputError if the directory holds a run already (unless resuming), belongs to
    something else, is being written by another process, or cannot be written.
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
        if os.path.lexists(directory / "records.jsonl.gz"):
            raise InputError(
                f"the records in {directory} are compressed, and cannot be added to;"
                " unpack them first with gunzip, or name a new directory with --out"
            )
        head: dict[str, Any]
        try:
            stream = open_for_appending(directory / "records.jsonl")
        except OSError as error:
            raise _unwritable(directory, error) from None
        try:
            # Seen again now that nobody else writes: two may have begun in one moment.
            prepare_directory(directory, resume=resume)
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
            write_whole(directory / "run.json", head)
            _end_last_line(stream)
        except OSError as error:
            stream.close()
            raise _unwritable(directory, error) from None
        except InputError:
            stream.close()
            raise
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
            write_whole(
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
        holds_run = os.path.lexists(directory / "run.json")
        directory.mkdir(parents=True, exist_ok=True)
        # Written to find out: permission bits say nothing to root, or of a read-only disk.
        with tempfile.TemporaryFile(dir=directory):
            # Empty records are a run that was stopped before it had begun.
            begun = directory / "records.jsonl"
            strangers = not holds_run and any(
                each != begun or each.is_symlink() or each.stat().st_size
                for each in directory.iterdir()
            )
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


def _end_last_line(stream: TextIO) -> None:
    """Give a truncated last line its newline, so that what is appended does not join it."""
    handle = stream.fileno()
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        os.write(handle, b"\n")
