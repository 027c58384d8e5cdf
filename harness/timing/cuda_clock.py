"""Device time of one call on a GPU: two CUDA events around it, and nothing else between them.

Three things would else be timed with the call. What the L2 cache still holds: a buffer four times
its size is written over before. What the host needs to launch the call's kernels: a kernel that
only waits is queued first, so that the host has queued all of them, and the second event, before
the first event is reached; whether it had is seen by the first event, not yet reached when the
host is done. If it was reached, the wait was too short, and the sample is taken again with twice
the wait. A path that itself waits for the device cannot be overtaken: its samples then contain the
waiting, as its users' steps do. And work left over: what a call is arranged with comes before the
wait, in the same stream.
"""

from collections.abc import Callable
from typing import Any

from harness.errors import InputError
from harness.timing.card import CardState

_FLUSHED = 4  # times the L2 cache
_LEAST_FLUSH = 2**26
_LEAST_WAIT_S, _MOST_WAIT_S = 50e-6, 20e-3
_CALIBRATION_CYCLES = 2_000_000  # about a millisecond
COPY_BYTES = 2**29  # read, and as many written: many times any L2, a quarter of a millisecond


class CudaClock:
    """The clock of the current GPU. `cuda` is torch.cuda, or a stand-in with its functions."""

    device = "cuda"
    threads: int | None = None

    def __init__(
        self,
        cuda: Any,
        *,
        empty: Callable[[int], Any],  # that many bytes on the device, with zero_, random_, copy_
        card: Callable[[], CardState | None] = lambda: None,
    ) -> None:
        if not cuda.is_available():
            raise InputError("device time needs a CUDA device, and torch sees none")
        self._cuda, self._card, self._empty = cuda, card, empty
        cache = int(getattr(cuda.get_device_properties(0), "L2_cache_size", 0) or 0)
        self._flush = empty(max(_FLUSHED * cache, _LEAST_FLUSH))
        self._cycles_per_s = self._calibrate()

    def timer(self, arrange: Callable[[], None], call: Callable[[], object]) -> "CudaTimer":
        """A timer of one call."""
        return CudaTimer(self, arrange, call)

    def sample(
        self, arrange: Callable[[], None], call: Callable[[], object], wait_s: float
    ) -> tuple[float, bool]:
        """Seconds of one call, and whether the host was done before the device began."""
        arrange()
        start, end = self._event(), self._event()
        self._flush.zero_()
        self._cuda._sleep(int(wait_s * self._cycles_per_s))
        start.record()
        call()
        end.record()
        ahead = not start.query()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000.0, ahead

    def settle(self) -> None:
        """Wait for the device; raises what went wrong on it."""
        self._cuda.synchronize()

    def peak_bytes(self, arrange: Callable[[], None], call: Callable[[], object]) -> int | None:
        """What one call allocates at its peak beyond what was allocated before it."""
        arrange()
        self._cuda.synchronize()
        before = self._cuda.memory_allocated()
        self._cuda.reset_peak_memory_stats()
        call()
        self._cuda.synchronize()
        return int(self._cuda.max_memory_allocated() - before)

    def free_bytes(self) -> int:
        """Of the device, after giving back what torch holds unused; the copier's own set apart."""
        self.release()
        return max(int(self._cuda.mem_get_info()[0]) - 2 * COPY_BYTES, 0)

    def release(self) -> None:
        """Give torch's unused memory back to the device."""
        self._cuda.empty_cache()

    def card(self) -> CardState | None:
        """Clocks, temperature, power and throttle reasons now."""
        return self._card()

    def copier(self) -> tuple[Callable[[], object], int]:
        """A copy from device memory to device memory."""
        source, target = self._empty(COPY_BYTES), self._empty(COPY_BYTES)
        source.random_()  # a copy of zeros draws less power, and may run faster
        return lambda: target.copy_(source), 2 * COPY_BYTES

    def _event(self) -> Any:
        return self._cuda.Event(enable_timing=True)

    def _calibrate(self) -> float:
        """Cycles of the waiting kernel a second, by the clocks of this moment."""
        self._cuda._sleep(_CALIBRATION_CYCLES)  # loads it
        start, end = self._event(), self._event()
        start.record()
        self._cuda._sleep(_CALIBRATION_CYCLES)
        end.record()
        end.synchronize()
        return _CALIBRATION_CYCLES / (float(start.elapsed_time(end)) / 1000.0)


class CudaTimer:
    """One call on a GPU; the wait before it grows until the host is ahead, and stays so long."""

    def __init__(
        self, clock: CudaClock, arrange: Callable[[], None], call: Callable[[], object]
    ) -> None:
        self._clock, self._arrange, self._call = clock, arrange, call
        self._wait_s = _LEAST_WAIT_S
        self.waits_for_host = False

    def seconds(self) -> float:
        """Device time of one call."""
        while True:
            seconds, ahead = self._clock.sample(self._arrange, self._call, self._wait_s)
            if ahead or self.waits_for_host:
                return seconds
            if self._wait_s >= _MOST_WAIT_S:
                # No wait is long enough for a path that waits for the device: none is used.
                self._wait_s, self.waits_for_host = _LEAST_WAIT_S, True
            else:
                self._wait_s = min(2 * self._wait_s, _MOST_WAIT_S)
