"""What measuring asks of a machine: a clock, its memory, its card. Tests bring a made-up one."""

from collections.abc import Callable
from typing import Protocol

from harness.timing.card import CardState


class Timer(Protocol):
    """One call, ready to be timed again and again."""

    # The host could not queue the whole call before the device reached it: times hold its waiting.
    waits_for_host: bool

    def seconds(self) -> float:
        """Arrange, untimed, then time one call."""


class Clock(Protocol):
    """A machine that calls can be timed on; `device` is where tensors go, and the timer's name."""

    device: str
    threads: int | None  # on a CPU, those that a call may use

    def timer(self, arrange: Callable[[], None], call: Callable[[], object]) -> Timer:
        """A timer of a call that is arranged anew before each sample."""

    def settle(self) -> None:
        """Wait until everything that was started has ended; raises what went wrong in it."""

    def peak_bytes(self, arrange: Callable[[], None], call: Callable[[], object]) -> int | None:
        """Device memory that one call needs at its peak beyond what was taken; None: unknown."""

    def free_bytes(self) -> int:
        """Memory that can be had now."""

    def release(self) -> None:
        """Give back memory that nobody uses."""

    def card(self) -> CardState | None:
        """The card's state now; None where there is none to ask."""

    def copier(self) -> tuple[Callable[[], object], int]:
        """A call that copies memory, and the bytes that it reads and writes."""
