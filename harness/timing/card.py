"""What the GPU says of itself in each round: clocks, temperature, power, and why it slows down."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# NVML's reasons for clocks below the highest (nvmlClocksEventReasons), by bit.
_REASONS = {
    0x001: "idle",
    0x002: "application_clocks",
    0x004: "power_cap",
    0x008: "hardware_slowdown",
    0x010: "sync_boost",
    0x020: "thermal",
    0x040: "hardware_thermal",
    0x080: "power_brake",
    0x100: "display_clocks",
}
# Those after which a round is no fair sample: the card was too hot, or its supply made it brake.
# The power cap is not one: a data-centre GPU under memory or matrix load runs at it for good, so it
# is the steady state, and every round would be repeated. It is recorded. Idle is what the card says
# between two short kernels.
THROTTLING = frozenset({"hardware_slowdown", "thermal", "hardware_thermal", "power_brake"})


@dataclass(frozen=True, slots=True)
class CardState:
    """One reading; None where the card or its driver does not tell."""

    sm_mhz: int | None = None
    memory_mhz: int | None = None
    celsius: int | None = None
    watts: float | None = None
    reasons: tuple[str, ...] = ()
    told_reasons: bool = True

    @property
    def throttled(self) -> bool:
        """Whether a round measured in this state should be measured again."""
        return not THROTTLING.isdisjoint(self.reasons)


def reasons_of(bits: int) -> tuple[str, ...]:
    """The names of the set bits; one that this list does not know stands as a number."""
    named = [name for bit, name in _REASONS.items() if bits & bit]
    rest = bits & ~sum(_REASONS)
    return (*named, *([hex(rest)] if rest else []))


def rounds_fields(states: Sequence[CardState]) -> dict[str, list[Any]] | None:
    """The readings as a record keeps them: a list a quantity, one entry a round.

    A quantity that a round lacks is left out whole, so that no list has holes.
    """
    if not states:
        return None
    lists: dict[str, list[Any]] = {
        "sm_mhz": [each.sm_mhz for each in states],
        "memory_mhz": [each.memory_mhz for each in states],
        "celsius": [each.celsius for each in states],
        "watts": [each.watts for each in states],
        "throttle": ["+".join(each.reasons) if each.told_reasons else None for each in states],
    }
    return {name: found for name, found in lists.items() if None not in found} or None


@contextmanager
def card_reader(uuid: str) -> Iterator[Callable[[], CardState | None]]:
    """A function that reads the card of that UUID; it gives None where NVML cannot be used."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001 - no library, no driver, no permission: timings go on without
        yield lambda: None
        return
    try:
        card = _Card(pynvml, uuid)
        yield card.read if card.found else lambda: None
    finally:
        pynvml.nvmlShutdown()


class _Card:
    """NVML's answers, each asked for by itself: cards and drivers differ in what they tell."""

    def __init__(self, nvml: Any, uuid: str) -> None:
        self._nvml = nvml
        name = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
        self._handle = self._ask("nvmlDeviceGetHandleByUUID", name)
        self.found = self._handle is not None

    def read(self) -> CardState:
        handle, nvml = self._handle, self._nvml
        # The name before driver 535 and after; the bits are the same.
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
        if reasons is None:
            reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        milliwatts = self._ask("nvmlDeviceGetPowerUsage", handle)
        return CardState(
            self._ask("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM),
            self._ask("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_MEM),
            self._ask("nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
            None if milliwatts is None else milliwatts / 1000.0,
            reasons_of(reasons or 0),
            reasons is not None,
        )

    def _ask(self, function: str, *arguments: Any) -> Any:
        asked = getattr(self._nvml, function, None)
        if asked is None:
            return None
        try:
            return asked(*arguments)
        except self._nvml.NVMLError:
            return None
