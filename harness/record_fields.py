"""What each suite's records must hold, so that readers of a stranger's run need not ask again."""

from collections.abc import Callable, Iterable
from typing import Any

from harness.case import PASSES
from harness.formats import FORMATS
from harness.verdict import verdict_named

# A round takes at least microseconds and is one number: far more is no measurement, but a file that
# somebody made to fill memory.
MOST_SAMPLES = 100_000
_LARGEST = 1.7976931348623157e308  # double
_LARGEST_OF = {name: fmt.largest for name, fmt in FORMATS.items()}


def check_fields(raw: dict[str, Any]) -> None:
    """Check the fields of the suite that a record is of; an unknown suite's are its own affair.

    Raises:
        ValueError: naming the field and what it must be.
    """
    for name in ("magnitude", "max_ulp", "seconds"):
        value = raw.get(name)
        if type(value) is not float or not -_LARGEST <= value <= _LARGEST:
            _optional(raw, name, _is_finite, "a finite number")
    check = _CHECKS.get(raw["suite"])
    if check is not None:
        check(raw)


def _check_stability(raw: dict[str, Any]) -> None:
    """The fields without which a stability record has no place in a table."""
    if not isinstance(raw.get("regime"), str) or raw.get("pass") not in PASSES:
        raise ValueError("a stability record needs a regime and a pass, forward or backward")
    if raw.get("magnitude") is None:
        raise ValueError("a stability record needs the number 'magnitude'")
    if not 0 <= raw["magnitude"] <= _LARGEST_OF.get(raw["dtype"], _LARGEST):
        told = f"the magnitude {raw['magnitude']:.9g} is no {raw['dtype'][:20]} number, 0 or more"
        raise ValueError(told)


def _check_speed(raw: dict[str, Any]) -> None:
    """Raw samples wherever all went well; derived numbers, where they are given, are numbers."""
    if not isinstance(raw.get("regime"), str) or raw.get("pass") not in (*PASSES, "both"):
        raise ValueError("a speed record needs a regime and a pass, forward, backward or both")
    if verdict_named(raw["verdict"]).is_accurate:  # what failed may have been left untimed
        _required(raw, "samples", _are_samples, f"1 to {MOST_SAMPLES} positive finite seconds")
    _optional(raw, "samples", _are_samples, f"1 to {MOST_SAMPLES} positive finite seconds")
    _optional(raw, "shape", _are(_is_count), "a list of whole numbers")
    _optional(raw, "timer", _is_text, "text")
    for name in _SPEED_NUMBERS:
        _optional(raw, name, _is_finite, "a finite number")
    _optional(raw, "ratios", _maps_to(_is_positive), "positive numbers by path")
    _optional(raw, "rounds", _maps_to(_is_bounded_list), "lists by name, an entry a round")


_SPEED_NUMBERS = (
    *("median_seconds", "low_seconds", "high_seconds"),
    *("bytes_least", "gigabytes_per_second", "copy_gigabytes_per_second", "share_of_copy"),
    *("peak_bytes", "repeated_rounds", "price_of_safety"),
)


def _check_training(raw: dict[str, Any]) -> None:
    """The axes of a learning-rate curve, and where it went wrong."""
    _required(raw, "workload", _is_text, "text")
    _required(raw, "learning_rate", _is_positive, "a positive finite number")
    _required(raw, "seed", _is_integer, "a whole number")
    for name in ("precision", "normalization", "initialization", "optimizer", "schedule"):
        _optional(raw, name, _is_text, "text")
    for name in ("steps", "first_bad_step"):
        _optional(raw, name, _is_count, "a whole number, 0 or more")
    for name in ("first_bad_epoch", "final_loss", "initial_loss", "final_metric"):
        _optional(raw, name, _is_finite, "a finite number")
    _optional(raw, "diverged", _is_truth, "true or false")
    _optional(raw, "measured", _maps_to(_is_finite), "finite numbers by name")
    for name in ("module", "op", "cause", "phase"):
        _optional(raw, name, _is_text, "text")
    _optional(raw, "history", _maps_to(_is_bounded_list), "lists by name, an entry a step")


_CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "stability": _check_stability,
    "speed": _check_speed,
    "training": _check_training,
}

Test = Callable[[object], bool]


def _required(raw: dict[str, Any], name: str, passes: Test, wanted: str) -> None:
    if raw.get(name) is None:
        raise ValueError(f"a {raw['suite']} record needs the field {name!r}: {wanted}")
    _optional(raw, name, passes, wanted)


def _optional(raw: dict[str, Any], name: str, passes: Test, wanted: str) -> None:
    value = raw.get(name)
    if value is not None and not passes(value):
        raise ValueError(f"field {name!r} must be {wanted}, not {shown(value)}")


def shown(value: object) -> str:
    """A value in an error: short, whatever a file holds, and without control characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_finite(value: object) -> bool:
    # A whole number beyond the largest double has no logarithm and no place in an array.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _LARGEST


def _is_positive(value: object) -> bool:
    return _is_finite(value) and value > 0  # type: ignore[operator]  # a number, as just seen


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_count(value: object) -> bool:
    return _is_integer(value) and value >= 0  # type: ignore[operator]  # a number, as just seen


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_truth(value: object) -> bool:
    return isinstance(value, bool)


def _is_bounded_list(value: object) -> bool:
    return isinstance(value, list) and len(value) <= MOST_SAMPLES


def _are_samples(value: object) -> bool:
    return _is_bounded_list(value) and bool(value) and _all(_is_positive, value)


def _are(passes: Test) -> Test:
    return lambda value: _is_bounded_list(value) and _all(passes, value)


def _maps_to(passes: Test) -> Test:
    return lambda value: isinstance(value, dict) and _all(passes, value.values())


def _all(passes: Test, values: object) -> bool:
    return isinstance(values, Iterable) and all(passes(each) for each in values)
