"""What a measuring process is about to do, on disk before it does it.

A line is one write to a file opened for appending, so it is in the kernel's hands when the process
dies, whatever kills it. Times are of CLOCK_MONOTONIC, which all processes of a machine share and
nobody sets back.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import InputError

JOURNAL = "STABILITY_JOURNAL"  # the folder, handed by the supervisor to the pytest it starts
LOST = 71  # exit code of a process whose device answers no more


class Journal:
    """The measuring side: one file a process."""

    def __init__(self, directory: Path, now: Callable[[], float] = time.monotonic) -> None:
        """Raises InputError where the folder cannot be written."""
        self._now = now
        name = f"{os.getpid()}-{birth_of(os.getpid())}.jsonl"
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._file = os.open(directory / name, flags, 0o644)
        except OSError as error:
            raise InputError(f"cannot write the journal in {directory}: {error.strerror}") from None

    @classmethod
    def of_environment(cls) -> "Journal | None":
        """The journal that the supervisor asked for; None where there is no supervisor."""
        directory = os.environ.get(JOURNAL)
        return cls(Path(directory)) if directory else None

    def begin(self, item: str, alone: Sequence[dict[str, Any]] = ()) -> None:
        """An item starts. `alone`: the records that are due if it does not end, for what cannot be
        divided any further.
        """
        os.ftruncate(self._file, 0)  # what went before is told by its records
        self._write({"begin": item, "alone": list(alone)})

    def launching(self, magnitudes: Sequence[float]) -> None:
        """A launch of these magnitudes starts."""
        self._write({"launching": list(magnitudes)})

    def measured(self) -> None:
        """The item ended, well or with an error that the process survived; its records are still
        to be handed over.
        """
        self._write({"measured": True})

    def close(self) -> None:
        """Nothing is in flight any more."""
        os.ftruncate(self._file, 0)

    def lost(self, reason: str) -> None:
        """The device is lost, and the process about to end itself."""
        self._write({"lost": reason})

    def _write(self, line: dict[str, Any]) -> None:
        text = json.dumps(line | {"at": self._now()}, allow_nan=False) + "\n"
        try:
            os.write(self._file, text.encode())
        except OSError as error:
            raise InputError(
                f"cannot write the journal: {error.strerror}; make room and go on with --resume"
            ) from None


@dataclass(slots=True)
class InFlight:
    """An item that a process began and did not end."""

    pid: int
    born: str  # see `birth_of`; tells the process from a later one of the same number
    item: str
    alone: list[dict[str, Any]]
    since: float  # monotonic time of the last sign of life
    launched: list[float] = field(default_factory=list)  # all magnitudes it tried
    last: list[float] = field(default_factory=list)  # those of the launch in flight
    lost: str = ""
    measured: bool = False  # the process is waiting, not at work


def in_flight(directory: Path) -> list[InFlight]:
    """What the journals of a folder say is under way, or was when its process died."""
    return [each for path in sorted(directory.glob("*-*.jsonl")) for each in _of_process(path)]


def clear(directory: Path) -> None:
    """Forget what dead processes were doing."""
    for path in directory.glob("*-*.jsonl"):
        path.unlink(missing_ok=True)


def birth_of(pid: int) -> str:
    """When a process began, in clock ticks since boot; empty where it is dead, if only as a zombie
    for which nobody has waited yet.
    """
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = status.rpartition(")")[2].split()  # the third and on: state, parent, ...
    return "" if fields[0] in "ZX" else fields[19]  # starttime


def _of_process(path: Path) -> Iterator[InFlight]:
    pid, _, born = path.stem.partition("-")
    now: InFlight | None = None
    for line in _lines(path):
        at = float(line["at"])
        if "begin" in line:
            now = InFlight(int(pid), born, str(line["begin"]), list(line["alone"]), at)
        elif now is not None:
            now.since = at
            if "lost" in line:
                now.lost = str(line["lost"])
            elif "measured" in line:
                now.measured = True
            else:
                now.last = list(line["launching"])
                now.launched += now.last
    if now is not None:
        yield now


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError:  # a disk that was full in the middle of a line
            return
