"""Reading what a run directory holds: line by line, each checked, all of it limited."""

import contextlib
import gc
import os
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from harness.compact import Sharing
from harness.errors import InputError
from harness.record import Record, record_from_dict
from harness.run_files import LONGEST_LINE, numbered_lines, read_head, unpacked
from harness.strict_json import containers, parse

SCHEMA = 1  # of what is written
OLDEST = 1  # that is read; a newer schema brings a step here that makes of each older one the new
_RECORDS = ("records.jsonl", "records.jsonl.gz")
_MOST_PROBLEMS = 100  # told one by one; a file that is no run at all has a problem a line
_MOST_CONTAINERS = 20_000_000  # lists and objects in a run: each takes up to a quarter kilobyte


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
