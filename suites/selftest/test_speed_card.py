"""What is read from the GPU's management library, and what is done where it tells nothing."""

import sys
from types import ModuleType
from typing import Any

import pytest

from harness.timing.card import CardState, card_reader, reasons_of, rounds_fields


class NVMLError(Exception):
    pass


def fake_nvml(**answers: Any) -> ModuleType:
    """A pynvml whose functions give these answers; an exception as an answer is raised."""
    module = ModuleType("pynvml")
    state = {"open": 0}

    def answering(answer: Any) -> Any:
        def function(*_: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return function

    for name, answer in answers.items():
        setattr(module, name, answering(answer))

    def opened() -> None:
        state["open"] += 1

    def closed() -> None:
        state["open"] -= 1

    module.nvmlInit, module.nvmlShutdown, module.state = opened, closed, state  # type: ignore[attr-defined]
    module.NVMLError = NVMLError  # type: ignore[attr-defined]
    module.NVML_CLOCK_SM, module.NVML_CLOCK_MEM, module.NVML_TEMPERATURE_GPU = 1, 2, 0  # type: ignore[attr-defined]
    return module


WHOLE = {
    "nvmlDeviceGetHandleByUUID": "handle",
    "nvmlDeviceGetClockInfo": 1980,
    "nvmlDeviceGetTemperature": 41,
    "nvmlDeviceGetPowerUsage": 350_500,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x4,
}


def test_a_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watts from milliwatts, reasons by name, and the library closed at the end."""
    nvml = fake_nvml(**WHOLE)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with card_reader("1234") as read:
        assert nvml.state["open"] == 1
        assert read() == CardState(1980, 1980, 41, 350.5, ("power_cap",))
    assert nvml.state["open"] == 0


def test_an_older_driver_is_asked_by_the_older_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reasons under the name that drivers before 535 know."""
    answers = WHOLE | {
        "nvmlDeviceGetCurrentClocksEventReasons": NVMLError("unknown function"),
        "nvmlDeviceGetCurrentClocksThrottleReasons": 0x20,
    }
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(**answers))
    with card_reader("GPU-1") as read:
        state = read()
    assert state is not None
    assert state.throttled
    assert state.reasons == ("thermal",)


def test_what_a_card_does_not_tell_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power, no reasons: their lists are left out, and no list has a hole."""
    answers = {key: WHOLE[key] for key in WHOLE if "Clocks" not in key}
    answers["nvmlDeviceGetPowerUsage"] = NVMLError("not supported")
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(**answers))
    with card_reader("1") as read:
        found = [state for _ in range(2) if (state := read())]
    assert rounds_fields(found) == {
        "sm_mhz": [1980, 1980],
        "memory_mhz": [1980, 1980],
        "celsius": [41, 41],
    }


# No library at all; a library without a driver; a driver that does not know the card.
@pytest.mark.parametrize("missing", ["library", "driver", "card"])
def test_timings_go_on_without_it(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Then there is no reading, no field in the record, and no exception."""
    nvml = fake_nvml(**(WHOLE | {"nvmlDeviceGetHandleByUUID": NVMLError("not found")}))
    if missing == "driver":

        def fails() -> None:
            raise NVMLError("driver not loaded")

        nvml.nvmlInit = fails
    monkeypatch.setitem(sys.modules, "pynvml", None if missing == "library" else nvml)
    with card_reader("1") as read:
        assert read() is None
    assert rounds_fields([]) is None


# Heat and supply make a round unfair; a cap, a user's clocks and idleness do not.
@pytest.mark.parametrize(
    ("bits", "throttled"),
    [
        *((bits, False) for bits in (0x0, 0x1, 0x2, 0x4, 0x10, 0x100, 0x400)),
        *((bits, True) for bits in (0x8, 0x20, 0x40, 0x80, 0x84)),
    ],
)
def test_which_reasons_repeat_a_round(bits: int, throttled: bool) -> None:
    """Each bit by itself, two at once, and one that no list knows."""
    assert CardState(reasons=reasons_of(bits)).throttled is throttled
    assert len(reasons_of(bits)) == bits.bit_count()
