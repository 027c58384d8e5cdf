"""Time of torch's paths on the CPU, on one thread; never of a kernel in Triton's interpreter."""

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from harness.timing.card import CardState

NOT_MEASURED = "not measured: the interpreter's time is no GPU's"
COPY_BYTES = 2**26  # more than the last cache of most CPUs


class CpuClock:
    """time.perf_counter, on as many threads as given."""

    device = "cpu"

    def __init__(self, threads: int = 1) -> None:
        self.threads: int | None = threads

    def timer(self, arrange: Callable[[], None], call: Callable[[], object]) -> "CpuTimer":
        """A timer of one call."""
        return CpuTimer(arrange, call)

    def settle(self) -> None:
        """Nothing runs behind the caller's back."""

    def peak_bytes(self, arrange: Callable[[], None], call: Callable[[], object]) -> int | None:
        """torch does not count what it takes from the host."""
        return None

    def free_bytes(self) -> int:
        """The sizes for a CPU are small; whatever there is is enough."""
        return 2**62

    def release(self) -> None:
        """Nothing is kept."""

    def card(self) -> CardState | None:
        """A CPU has none."""
        return None

    def copier(self) -> tuple[Callable[[], object], int]:
        """A copy from memory to memory, on the same threads."""
        source = torch.zeros(COPY_BYTES, dtype=torch.int8)
        target = torch.empty_like(source)
        return lambda: target.copy_(source), 2 * COPY_BYTES


class CpuTimer:
    """One call on the CPU, by time.perf_counter."""

    waits_for_host = False

    def __init__(self, arrange: Callable[[], None], call: Callable[[], object]) -> None:
        self._arrange, self._call = arrange, call

    def seconds(self) -> float:
        """Wall time of one call."""
        self._arrange()
        start = time.perf_counter()
        self._call()
        return time.perf_counter() - start


@contextmanager
def measuring_on_cpu(threads: int) -> Iterator[None]:
    """Within, torch has that many threads, and a Triton kernel raises instead of being interpreted.

    So that no time of the interpreter can become a sample, whatever path launches what.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with _refusing_interpretation():
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _refusing_interpretation() -> Iterator[None]:
    executor = importlib.import_module("triton.runtime.interpreter").GridExecutor
    original = executor.__call__

    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError(NOT_MEASURED)

    executor.__call__ = refuse
    try:
        yield
    finally:
        executor.__call__ = original
