"""Station six: a run is a directory. Lines are appended and flushed; what is written stays readable.

run.json        what was asked, on what, when, and at the end `"complete": true`
records.jsonl   one record a line (readers take records.jsonl.gz too)
"""

import gzip
import json
import os
import sys
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
    if not directory.is_dir():
        raise InputError(f"no run at {directory}: not a directory")
    environment = _read_environment(directory)
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
    except (OSError, EOFError) as error:
        # A gzip file cut short raises here; what came before the cut is kept.
        problems.append(f"{path.name} ends early: {error}")
        if not records:
            raise InputError(f"cannot read {path}: {error}") from None
    return Run(directory, environment, tuple(records.values()), tuple(problems))


def _read_environment(directory: Path) -> dict[str, Any]:
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

    Raises InputError from `start` if the directory holds a run already (unless resuming), belongs to
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
        exists = (directory / "run.json").exists()
        if exists and not resume:
            raise InputError(
                f"{directory} already holds a run; name a new directory with --out, or complete"
                " it with --resume"
            )
        if not exists and directory.is_dir() and any(directory.iterdir()):
            raise InputError(f"{directory} is not empty and holds no run; name a new directory")
        head: dict[str, Any]
        if exists:
            head = _read_environment(directory) | {"complete": False}
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
            directory.mkdir(parents=True, exist_ok=True)
            _write_whole(directory / "run.json", head)
            path = directory / "records.jsonl"
            _end_last_line(path)
            stream = path.open("a", encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"cannot write results to {directory}: {error.strerror or error};"
                " name a writable directory with --out"
            ) from None
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
        """Close the files, and mark the run complete if it is."""
        self._stream.close()
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        _write_whole(
            self.directory / "run.json",
            self._environment | {"complete": complete, "ended": ended},
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
