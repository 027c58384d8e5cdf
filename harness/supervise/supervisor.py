"""The supervisor: starts pytest, and again for what died, until every case has a record."""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.record import Record, record_from_dict
from harness.store import Writer, load, read_environment
from harness.supervise.journal import JOURNAL, LOST, InFlight, clear
from harness.supervise.memory import killed_for_memory
from harness.supervise.suspects import remember
from harness.supervise.watch import Ended, watched


@dataclass(frozen=True, slots=True)
class Supervised:
    """How a supervised pytest ended, all its restarts together."""

    code: int  # pytest's exit code; negative: the signal that ended it for good
    interrupted: bool  # before its time, not by a case


def supervise(
    command: Callable[[bool], list[str]],  # whether it goes on with a run that was begun
    environment: dict[str, str],
    directory: Path,
    *,
    begun: bool,
    timeout_s: float | None,
    until: float | None,
) -> Supervised:
    """Run pytest until nothing is left that a death of a process left open.

    What died in an item of several cases is a suspect, and runs in parts next; what died in a
    single case is recorded as `crash`, `timeout` or `out_of_memory`, with what is known.
    """
    code: int = pytest.ExitCode.OK
    with tempfile.TemporaryDirectory(prefix="stability-journal-") as folder:
        journal = Path(folder)
        while True:
            memory = killed_for_memory()
            ended = watched(
                command(begun),
                environment | {JOURNAL: folder},
                journal,
                timeout_s=timeout_s,
                until=until,
            )
            clear(journal)
            if ended.stopped or not ended.open_items:
                return Supervised(worse(code, ended.code), ended.stopped or ended.code < 0)
            # Of a death in a case the exit code says nothing but that; a failed claim counts.
            if ended.code == pytest.ExitCode.TESTS_FAILED:
                code = worse(code, ended.code)
            why = _Why(ended, timeout_s, killed_for_memory() > memory)
            due = [record for each in ended.open_items for record in why.records(each)]
            suspects = {each.item: each.launched for each in ended.open_items if not each.alone}
            for each in ended.open_items:
                print(f"stability: {why.told(each)}", file=sys.stderr)
            if due:
                due = _missing(directory, due)
                _write(directory, due)
            if any(record.get("broken") for record in due):
                code = worse(code, pytest.ExitCode.TESTS_FAILED)
            if suspects:
                remember(journal, suspects)
            begun = (directory / "run.json").exists()


def worse(first: int, second: int) -> int:
    """Of two exit codes of pytest: ended before its time, then unusable, then failed, then well."""
    order = [0, 1, 5, 4, 3, 2]

    def badness(code: int) -> int:
        return order.index(code) if code in order else len(order)

    return max(first, second, key=badness)


@dataclass(frozen=True, slots=True)
class _Why:
    """What is known of the deaths of one pytest's processes."""

    ended: Ended
    timeout_s: float | None
    memory_ran_out: bool  # the kernel killed something here for memory meanwhile

    def verdict(self, one: InFlight) -> tuple[str, str]:
        """The verdict's word, and the reason."""
        if (one.pid, one.item) in self.ended.timed_out:
            return "timeout", f"no sign of life for {self.timeout_s:g} s: the process was ended"
        if one.lost:
            return "crash", one.lost
        if self.memory_ran_out:
            return "out_of_memory", "the process was killed while the host's memory ran out"
        code = self.ended.code
        if code < 0:
            return "crash", f"the process ended by signal {-code}"
        if code not in (0, 1, 2, LOST):
            return "crash", f"the process ended with exit code {code}"
        return "crash", "the process that measured it ended without a word"

    def told(self, one: InFlight) -> str:
        word, reason = self.verdict(one)
        then = "recorded" if one.alone else "now one magnitude at a time"
        return f"{word} in {one.item}: {reason}; {then}"

    def records(self, one: InFlight) -> list[Record]:
        word, reason = self.verdict(one)
        due: list[dict[str, Any]] = [raw | {"verdict": word, "reason": reason} for raw in one.alone]
        return [record_from_dict(each) for each in due]


def _missing(directory: Path, due: list[Record]) -> list[Record]:
    """Those that have no record: a process may have died with its case measured and recorded."""
    recorded = {record.id for record in load(directory).records}
    # pytest-xdist may have given an item to another process after the first one died in it.
    return list({each.id: each for each in due if each.id not in recorded}.values())


def _write(directory: Path, records: list[Record]) -> None:
    """Raises InputError where the disk is full or the run gone."""
    writer = Writer.start(directory, {}, read_environment(directory), resume=True)
    writer.append(records)
    writer.finish(complete=False)
