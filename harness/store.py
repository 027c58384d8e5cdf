"""Station six: a run is a directory; lines are appended and flushed, and what is written stays.

run.json        what was asked, on what, when, and at the end `"complete": true`
records.jsonl   one record a line (readers take records.jsonl.gz too)
"""

import contextlib
import gc
import os
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from harness.compact import Sharing
from harness.errors import InputError
from harness.record import Record, record_from_dict
from harness.run_files import (
    LONGEST_LINE,
    numbered_lines,
    open_for_appending,
    read_head,
    unpacked,
    write_whole,
)
from harness.strict_json import containers, parse

if TYPE_CHECKING:
    import pandas

SCHEMA = 1  # of what is written
OLDEST = 1  # that is read; a newer schema brings a step here that makes of each older one the new
_RECORDS = ("records.jsonl", "records.jsonl.gz")
_MOST_PROBLEMS = 100  # told one by one; a file that is no run at all has a problem a line
_MOST_CONTAINERS = 20_000_000  # lists and objects in a run: each takes up to a quarter kilobyte


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


def stream_records(directory: Path, problems: list[str]) -> Iterator[Record]:
    """The records one by one, as they were appended; what could not be read goes to `problems`.

    Raises:
        InputError: if there are none to read, or more than LARGEST_RUN.
    """
    path = _records_path(directory)
    sharing = Sharing()
    skipped, left, some = 0, _MOST_CONTAINERS, False
    try:
        for number, line in numbered_lines(path):
            if line is not None and not line.strip():
                continue
            try:
                if line is None:
                    raise ValueError(f"longer than {LONGEST_LINE} bytes")
                text = line.decode()
                left -= containers(text)
                if left < 0:
                    raise InputError(f"{path} holds more lists and objects than any run does")
                record = record_from_dict(parse(text), sharing)
            except InputError:
                raise
            except ValueError as error:
                skipped += 1
                if skipped <= _MOST_PROBLEMS:
                    problems.append(f"{path.name} line {number} skipped: {error}")
                continue
            some = True
            yield record
    except (OSError, EOFError, zlib.error) as error:
        # A gzip file cut short or damaged raises here; what came before is kept.
        problems.append(f"{path.name} ends early: {error}")
        if not some:
            raise InputError(f"cannot read {path}: {error}") from None
    if skipped > _MOST_PROBLEMS:
        problems.append(f"{path.name}: {skipped - _MOST_PROBLEMS} more lines skipped")


def records_stream(directory: Path) -> AbstractContextManager[IO[bytes]]:
    """The lines of a run's records as they are; raises InputError as `stream_records` does."""
    return unpacked(_records_path(directory))


@contextlib.contextmanager
def not_collecting() -> Iterator[None]:
    """Records live to the end: to look for garbage among a million takes as long as reading."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def read_environment(directory: Path) -> dict[str, Any]:
    """The content of run.json; raises InputError as `load` does."""
    try:
        found = directory.is_dir()
    except (OSError, ValueError) as error:  # a name too long, a parent that may not be entered
        raise InputError(f"no run at {directory}: {error}") from None
    if not found:
        raise InputError(f"no run at {directory}: not a directory")
    path = directory / "run.json"
    try:
        environment = parse(read_head(path))
    except FileNotFoundError:
        raise InputError(f"no run at {directory}: it has no run.json") from None
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    schema = environment.get("schema") if isinstance(environment, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool):
        raise InputError(f"{path} is not a run: it has no schema number")
    if schema > SCHEMA:
        raise InputError(
            f"{path} has schema {schema}, this version reads up to {SCHEMA};"
            " upgrade stability-harness"
        )
    if schema < OLDEST:
        raise InputError(
            f"{path} has schema {schema}, and none below {OLDEST} was ever written by a release;"
            " measure it again"
        )
    return dict(environment)


def _records_path(directory: Path) -> Path:
    found = [name for name in _RECORDS if os.path.lexists(directory / name)]
    if len(found) > 1:
        raise InputError(
            f"{directory} holds both {' and '.join(found)}, and nothing says which counts;"
            " move one away"
        )
    if not found:
        raise InputError(f"no records in {directory}: expected {' or '.join(_RECORDS)}")
    return directory / found[0]


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
