"""Opening the files of a run, which a stranger may have made: regular ones, in their own folder.

A link could lead anywhere, a pipe or a device never ends: each is refused, for reading and for
writing. Lines are read one by one, each and all of them limited.
"""

import contextlib
import fcntl
import gzip
import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TextIO

from harness.errors import InputError

# Far beyond what any suite writes, far below what fills a machine. Unpacked sizes.
LARGEST_HEAD = 4 * 2**20  # bytes of run.json; one of all suites has 10 kB
LONGEST_LINE = 4 * 2**20  # bytes of a record; a training of 100,000 recorded steps has 3 MB
LARGEST_RUN = 4 * 2**30  # bytes of all records: some ten million


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading.

    Raises:
        FileNotFoundError: if nothing is there.
        InputError: if it is a link, a pipe, a device or a directory, or may not be read.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody to write into it.
    return os.fdopen(_opened(path, os.O_RDONLY | os.O_NONBLOCK), "rb")


def open_for_appending(path: Path) -> TextIO:
    """Open a file of a run for writing at its end, made if need be, and locked for this process.

    Raises:
        InputError: as `open_regular`, or if another process writes to it.
        OSError: if it cannot be written.
    """
    handle = _opened(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"another process is writing a run to {path.parent}; wait until it has ended, or name"
            " another directory with --out"
        ) from None
    except OSError:
        pass  # a file system without locks: then nobody can tell
    return os.fdopen(handle, "a", encoding="utf-8")


def _opened(path: Path, flags: int) -> int:
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise InputError(
                f"{path} is a link, which in a run could lead anywhere; put the file itself there"
            ) from None
        if isinstance(error, FileNotFoundError) or flags & os.O_CREAT:
            raise
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InputError(f"cannot read {path}: it is not a regular file")
    return handle


def read_head(path: Path, *, most: int = LARGEST_HEAD) -> str:
    """The text of a run.json, or of another file that is read whole.

    Raises:
        FileNotFoundError, InputError: as `open_regular`.
        ValueError: if it has more than `most` bytes, or is not UTF-8.
    """
    with open_regular(path) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most} bytes, which no such file is")
    return content.decode()


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The content of records, compressed or not; raises InputError as `open_regular` does."""
    with open_regular(path) as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=raw) as stream:
                yield io.BufferedReader(stream)
        else:
            yield raw


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """The lines of records with their numbers, from 1; None for one longer than LONGEST_LINE.

    Raises:
        InputError: as `open_regular`, and if all lines together are longer than LARGEST_RUN.
        OSError, EOFError, zlib.error: where a file is damaged or a compressed one cut short.
    """
    with unpacked(path) as stream:
        left, number = LARGEST_RUN, 0
        while line := stream.readline(LONGEST_LINE + 1):
            number += 1
            left -= len(line)
            whole: bytes | None = line
            while len(line) > LONGEST_LINE:
                whole = None
                line = b"" if line.endswith(b"\n") else stream.readline(LONGEST_LINE + 1)
                left -= len(line)
                if left < 0:
                    break
            if left < 0:
                raise InputError(
                    f"{path} holds more than {LARGEST_RUN} bytes of records; give its shards one"
                    " by one"
                )
            yield number, whole


def write_whole(path: Path, content: dict[str, Any]) -> None:
    """Replace a JSON file in one step: a reader sees the old one or the new one, never half.

    Raises:
        OSError: if it cannot be written; the old one then stands.
    """
    draft = path.with_suffix(".json.tmp")
    # What lies there is a draft that somebody did not finish, or a link to lead this one astray.
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(content, indent=2, allow_nan=False) + "\n")
    draft.replace(path)
