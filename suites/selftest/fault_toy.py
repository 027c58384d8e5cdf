"""Paths that end their process, each in its own way and from a known magnitude on."""

import ctypes
import os
import signal
import time
from collections.abc import Callable

from torch import Tensor

from harness.operation import ALL_CLAIMS, Path
from suites.selftest.toy import HONEST, TOY

LIMIT = 100.0  # from here on
FOREVER_S = 1e6


def _beyond(fatal: Callable[[], object]) -> Callable[[Tensor], Tensor]:
    def path(input: Tensor) -> Tensor:
        if input.abs().max() >= LIMIT:
            fatal()
        return input * 1.0

    return path


FAULTS: dict[str, Callable[[], object]] = {
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
    "hang": lambda: time.sleep(FOREVER_S),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(5),
}

OPERATIONS = (
    TOY.with_paths(
        *(Path(name, _beyond(fatal)) for name, fatal in FAULTS.items()),
        Path("claiming", _beyond(os.abort), claims=ALL_CLAIMS),
        HONEST,  # last: what comes after the others must be measured all the same
    ),
)
