"""The supervisor's eye on one pytest: ends what gives no sign of life, and says how it went."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.supervise.journal import InFlight, birth_of, in_flight

_LOOK_S = 0.5  # between two looks at the journals
_GRACE_S = 20.0  # to close its files, for a run whose time is over
_DYING_S = 30.0  # a process that a driver holds cannot be killed; nobody waits for it any longer


@dataclass(slots=True)
class Ended:
    """How a pytest ended, and what was under way in processes that died."""

    code: int  # pytest's exit code; negative: the signal that ended it
    open_items: list[InFlight] = field(default_factory=list)
    timed_out: set[tuple[int, str]] = field(default_factory=set)  # (pid, item) of those ended here
    stopped: bool = False  # by the user or by the run's deadline: nothing is to be started again


def watched(
    command: list[str],
    environment: dict[str, str],
    journal: Path,
    *,
    timeout_s: float | None,  # without a sign of life; None: forever
    until: float | None,  # monotonic time of the run's deadline
    now: Callable[[], float] = time.monotonic,
) -> Ended:
    """Run to the end, or to the deadline: then interrupted, as by Ctrl-C, and soon killed."""
    child = subprocess.Popen(command, env=environment)
    ended = Ended(0)
    code: int | None = None
    try:
        while code is None:
            code = _waited(child, _LOOK_S)
            if code is None and until is not None and now() >= until:
                ended.stopped = True
                code = _interrupted(child)
            if code is None and timeout_s is not None:
                killed = _end_what_hangs(journal, now() - timeout_s, ended)
                if child.pid in killed:
                    # A driver may hold it whatever the signal; then nobody waits any longer.
                    code = _waited(child, _DYING_S) or -signal.SIGKILL
    except KeyboardInterrupt:  # the child got it too, and closes its files
        ended.stopped = True
        code = child.wait()
    ended.code = int(pytest.ExitCode.INTERRUPTED) if ended.stopped and code >= 0 else code
    ended.open_items = in_flight(journal)
    return ended


def _waited(child: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _end_what_hangs(journal: Path, before: float, ended: Ended) -> set[int]:
    """Kill the processes whose last sign of life came before, and tell which."""
    found = set[int]()
    for each in in_flight(journal):
        key = each.pid, each.item
        if each.measured or each.since >= before or key in ended.timed_out:
            continue
        if birth_of(each.pid) == each.born:
            ended.timed_out.add(key)
            os.kill(each.pid, signal.SIGKILL)
            found.add(each.pid)
    return found


def _interrupted(child: "subprocess.Popen[bytes]") -> int:
    child.send_signal(signal.SIGINT)
    try:
        return child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()
