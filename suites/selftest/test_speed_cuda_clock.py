"""The GPU's clock on a made-up GPU: a device that runs what is queued, a host that takes time."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from harness.errors import InputError
from harness.formats import FORMATS
from harness.operation import Path
from harness.timing.card import CardState
from harness.timing.cuda_clock import COPY_BYTES, CudaClock
from harness.timing.measure import measure
from harness.timing.speed_case import SpeedCase, group_of
from harness.timing.speed_record import speed_record
from harness.timing.tiled import draw
from harness.timing.workload import Size
from harness.verdict import Verdict
from suites.selftest.speed_toy import SIZED

LAUNCH_S = 10e-6  # what the host needs to queue anything
CYCLES_PER_S = 1.5e9
FLUSH_S = 20e-6


class Machine:
    """torch.cuda's functions over two clocks: the host's, and when the device will be done."""

    def __init__(self) -> None:
        self.host = self.device = 0.0
        self.flushed: list[int] = []

    def queue(self, seconds: float) -> None:
        """Work of that length, begun when the device is free and the host has queued it."""
        self.host += LAUNCH_S
        self.device = max(self.device, self.host) + seconds

    def wait(self) -> None:
        self.host = max(self.host, self.device)

    def torch_cuda(self) -> Any:
        machine = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing
                self.at = 0.0

            def record(self) -> None:
                machine.queue(0.0)
                self.at = machine.device

            def query(self) -> bool:
                return machine.host >= self.at

            def synchronize(self) -> None:
                machine.host = max(machine.host, self.at)

            def elapsed_time(self, end: "Event") -> float:
                return 1000.0 * (end.at - self.at)

        return SimpleNamespace(
            is_available=lambda: True,
            get_device_properties=lambda index: SimpleNamespace(L2_cache_size=50 * 2**20),
            Event=Event,
            _sleep=lambda cycles: machine.queue(cycles / CYCLES_PER_S),
            synchronize=machine.wait,
            memory_allocated=lambda: 100,
            max_memory_allocated=lambda: 350,
            reset_peak_memory_stats=lambda: None,
            empty_cache=lambda: None,
            mem_get_info=lambda: (2 * COPY_BYTES + 2**20, 2**40),
        )

    def empty(self, count: int) -> Any:
        def zero() -> None:
            self.flushed.append(count)
            self.queue(FLUSH_S)

        return SimpleNamespace(
            zero_=zero, random_=zero, copy_=lambda source: self.queue(count / 1e12)
        )


def kernels(machine: Machine, *seconds: float) -> Callable[[], None]:
    """A call that launches kernels of these lengths."""

    def call() -> None:
        for each in seconds:
            machine.queue(each)

    return call


# A single short kernel; many of them, whose launches alone take longer than they do; a long one.
@pytest.mark.parametrize("lengths", [(2e-6,), (1e-6,) * 40, (5e-3, 1e-6)])
def test_device_time_without_the_launches(lengths: tuple[float, ...]) -> None:
    """The sum of the kernels' lengths, though the host needs 10 us to launch each of them."""
    machine = Machine()
    clock = CudaClock(machine.torch_cuda(), empty=machine.empty)
    timer = clock.timer(lambda: None, kernels(machine, *lengths))
    assert timer.seconds() == pytest.approx(sum(lengths), rel=1e-6)
    assert not timer.waits_for_host


def test_without_the_wait_the_launches_would_be_timed() -> None:
    """The same events around the same kernels, nothing queued before: the made-up GPU shows it."""
    machine = Machine()
    cuda = machine.torch_cuda()
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    start.record()
    kernels(machine, *(1e-6,) * 40)()
    end.record()
    assert start.elapsed_time(end) / 1000.0 > 10 * 40e-6


def test_what_a_call_is_arranged_with_is_not_timed() -> None:
    """A forward of 3 ms before the wait, a backward of 1 ms: 1 ms."""
    machine = Machine()
    clock = CudaClock(machine.torch_cuda(), empty=machine.empty)
    timer = clock.timer(kernels(machine, 3e-3), kernels(machine, 1e-3))
    assert timer.seconds() == pytest.approx(1e-3, rel=1e-6)


def test_a_path_that_waits_for_the_device_is_told() -> None:
    """Its samples hold the host's time, and say so; later ones are taken at once, with one try."""
    machine, tries = Machine(), []
    clock = CudaClock(machine.torch_cuda(), empty=machine.empty)

    def call() -> None:
        tries.append(1)
        machine.queue(1e-6)
        machine.wait()
        machine.queue(1e-6)

    timer = clock.timer(lambda: None, call)
    assert timer.seconds() > 10e-6
    assert timer.waits_for_host
    before = len(tries)
    timer.seconds()
    assert len(tries) == before + 1


def test_the_cache_is_written_over_before_every_sample() -> None:
    """By a buffer of at least four times the L2 of this device."""
    machine = Machine()
    clock = CudaClock(machine.torch_cuda(), empty=machine.empty)
    timer = clock.timer(lambda: None, kernels(machine, 1e-3))
    for _ in range(3):
        timer.seconds()
    assert len(machine.flushed) >= 3
    assert min(machine.flushed) >= 4 * 50 * 2**20


def test_memory_and_copy() -> None:
    """The peak counts from what was allocated before; a copy counts bytes read and written."""
    machine = Machine()
    clock = CudaClock(machine.torch_cuda(), empty=machine.empty)
    assert clock.peak_bytes(lambda: None, lambda: None) == 250
    assert clock.free_bytes() == 2**20
    copy, moved = clock.copier()
    timer = clock.timer(lambda: None, copy)
    assert moved / timer.seconds() == pytest.approx(2e12, rel=1e-3)


def test_a_whole_group_on_it() -> None:
    """Paths that launch kernels, through inputs, checks, rounds and records: their device time, the
    copy's rate, the peak, the card, and the ratio, as planted.
    """
    machine = Machine()
    state = CardState(sm_mhz=1980, reasons=("power_cap",))
    clock = CudaClock(machine.torch_cuda(), empty=machine.empty, card=lambda: state)
    clock.device = "cpu"  # where this test's tensors are

    def launching(*seconds: float) -> Callable[[Tensor], Tensor]:
        def function(input: Tensor) -> Tensor:
            kernels(machine, *seconds)()
            return input * 1.0

        return function

    paths = (Path("naive", launching(*(2e-6,) * 10)), Path("fused", launching(5e-6)))
    size = Size(40, 8, "quick")
    group = group_of(
        SIZED, FORMATS["bf16"], "normal", 1.0, size, "both", device="cuda", level="default"
    )
    result = measure(group, paths, clock, draw(group, seed=0), seed=0)
    naive, fused = (speed_record(SpeedCase(group, path), result) for path in paths)
    assert fused["median_seconds"] == pytest.approx(5e-6, rel=1e-6)
    assert naive["median_seconds"] == pytest.approx(20e-6, rel=1e-6)
    assert fused["price_of_safety"] == pytest.approx(0.25, rel=1e-6)
    assert fused["copy_gigabytes_per_second"] == pytest.approx(2000.0, rel=1e-3)
    assert (fused["peak_bytes"], fused["timer"]) == (250, "cuda")
    assert fused["rounds"]["throttle"] == ["power_cap"] * len(fused["samples"])
    assert (fused.verdict, fused["repeated_rounds"]) == (Verdict.OK, 0)


def test_no_gpu_no_clock() -> None:
    """Where torch sees no CUDA device the clock refuses, in words."""
    with pytest.raises(InputError, match="needs a CUDA device"):
        CudaClock(SimpleNamespace(is_available=lambda: False), empty=lambda count: None)
