"""The magnitude axis: logarithmic grids over a format's whole range, and ranges people type."""

import math
import re
from dataclasses import dataclass

from harness.errors import InputError
from harness.formats import Format

# Decades at which the default grid has points: each one as far as 20, where squares overflow fp32,
# every fifth to the ends of fp32, every twentieth to those of fp64, which alone spans 632 decades.
# Where a path breaks in between, the bisection of the frontier finds it, to the float.
_DENSE = range(-20, 21)
_SPARSE = (25, 30, 35, 38, 40, 45, *range(60, 301, 20), 308)
QUICK_STRIDE = 3  # --quick keeps every third point of the grid, and both ends and 1


@dataclass(frozen=True, slots=True)
class MagnitudeRange:
    """A range as typed, `A:B[:PER_DECADE]` or a single `A`; bounds are positive and finite."""

    low: float
    high: float
    per_decade: int = 1

    @property
    def single(self) -> bool:
        return self.low == self.high


def parse_range(text: str) -> MagnitudeRange:
    """Read `A:B[:PER_DECADE]` or `A`.

    >>> parse_range("1e-3:1e3:2")
    MagnitudeRange(low=0.001, high=1000.0, per_decade=2)

    Raises:
        InputError: if it is malformed, a bound is not a non-negative finite number, A > B, or
            PER_DECADE is not a whole number from 1 to 1000.
    """
    wanted = "expected A:B[:PER_DECADE] or A, as in 1e-3:65504:4"
    parts = text.split(":")
    if not 1 <= len(parts) <= 3:
        raise InputError(f"malformed magnitude range {text!r}; {wanted}")
    try:
        bounds = [float(part) for part in parts[:2]]
    except ValueError:
        raise InputError(f"malformed magnitude range {text!r}; {wanted}") from None
    low, high = bounds[0], bounds[-1]
    if not all(math.isfinite(bound) and bound >= 0 for bound in bounds):
        raise InputError(f"magnitude range {text!r} needs finite, non-negative bounds; {wanted}")
    if low > high:
        raise InputError(f"magnitude range {text!r} is upside down: {low:g} > {high:g}")
    if low == 0 < high:
        raise InputError(f"magnitude range {text!r} is logarithmic and cannot start at 0; {wanted}")
    per_decade = 1
    if len(parts) == 3:
        if not re.fullmatch(r"[1-9][0-9]{0,3}", parts[2]) or int(parts[2]) > 1000:
            raise InputError(
                f"magnitude range {text!r}: points a decade must be from 1 to 1000; {wanted}"
            )
        per_decade = int(parts[2])
    return MagnitudeRange(low, high, per_decade)


def grid(
    fmt: Format,
    bounds: tuple[float, float],  # what the regime allows
    asked: MagnitudeRange | None = None,
    *,
    quick: bool = False,
) -> list[float]:  # ascending floats of the format, without repeats; may be empty
    """The magnitudes of one item, each a float of the format within the regime's bounds."""
    low, high = bounds
    if high == 0:
        return [0.0] if asked is None or asked.low == 0 else []
    if asked is None:
        wanted = _default_points(fmt, low, high, quick=quick)
    elif asked.single:
        wanted = [asked.low]
    else:
        wanted = _logarithmic(asked)
    # Points outside are dropped, not moved: a range that misses a format leaves it out.
    inside = {fmt.round(each) for each in wanted if 0 < each <= fmt.largest}
    return sorted(each for each in inside if low <= each <= high)


def _default_points(fmt: Format, low: float, high: float, *, quick: bool) -> list[float]:
    decades = sorted({*_DENSE, *_SPARSE, *(-each for each in _SPARSE), -320})
    points = [float(f"1e{decade}") for decade in decades]
    inside = [each for each in points if low <= each <= high]
    kept = inside[::QUICK_STRIDE] if quick else inside
    # The ends of the range, the top of the half decade fp16 ends in, and where the search starts.
    ends = [low, high, min(max(fmt.smallest_normal, low), high)]
    one = [1.0] if low <= 1.0 <= high else []
    return kept + ends + one


def _logarithmic(asked: MagnitudeRange) -> list[float]:
    low, high = math.log10(asked.low), math.log10(asked.high)
    steps = max(1, round((high - low) * asked.per_decade))
    inner = [10 ** (low + (high - low) * k / steps) for k in range(1, steps)]
    return [asked.low, *inner, asked.high]
