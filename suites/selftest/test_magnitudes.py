"""The magnitude axis: ranges as typed, and grids over each format's whole range."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import InputError
from harness.formats import FORMATS, Format
from harness.magnitudes import MagnitudeRange, grid, parse_range

# All four: from fp16's twelve decades to fp64's 632.
every_format = pytest.mark.parametrize("fmt", FORMATS.values(), ids=list(FORMATS))
formats = st.sampled_from(list(FORMATS.values()))
positive = st.floats(min_value=5e-324, max_value=1.7976931348623157e308)


def whole(fmt: Format) -> tuple[float, float]:
    return fmt.smallest, fmt.largest


def is_a_grid(points: list[float], fmt: Format, low: float, high: float) -> bool:
    """Strictly ascending floats of the format within the bounds."""
    ascending = all(first < second for first, second in itertools.pairwise(points))
    return ascending and all(fmt.round(each) == each and low <= each <= high for each in points)


@given(positive, positive, st.integers(1, 1000))
def test_a_range_reads_back(one: float, other: float, per_decade: int) -> None:
    """`A:B:PER_DECADE` gives back its three numbers, to the last bit."""
    low, high = sorted((one, other))
    assert parse_range(f"{low!r}:{high!r}:{per_decade}") == MagnitudeRange(low, high, per_decade)


def test_short_forms() -> None:
    """Points a decade default to one; a lone number is a single magnitude, zero included."""
    assert parse_range("1e-3:1e3") == MagnitudeRange(1e-3, 1e3, 1)
    assert parse_range("9984") == MagnitudeRange(9984.0, 9984.0)
    assert parse_range("9984").single
    assert parse_range("0").single
    assert not parse_range("1:2").single


# One defect each: no number, too many parts, bounds that are not finite or negative, an order that
# is upside down, a logarithm of zero, and densities that are none, fractional, zero or too many.
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "malformed"),
        ("one", "malformed"),
        ("1:", "malformed"),
        ("1:2:3:4", "malformed"),
        ("nan:1", "finite"),
        ("1:inf", "finite"),
        ("1:1e400", "finite"),
        ("-1:1", "finite, non-negative"),
        ("2:1", "upside down"),
        ("0:1", "cannot start at 0"),
        ("1:2:", "1 to 1000"),
        ("1:2:x", "1 to 1000"),
        ("1:2:1.5", "1 to 1000"),
        ("1:2:0", "1 to 1000"),
        ("1:2:-3", "1 to 1000"),
        ("1:2:1001", "1 to 1000"),
    ],
)
def test_a_malformed_range_is_refused(text: str, says: str) -> None:
    """With an InputError that repeats what was typed."""
    with pytest.raises(InputError, match=says) as refused:
        parse_range(text)
    assert repr(text) in str(refused.value)


@every_format
# The default grid and its third must both reach the ends, since frontiers are looked for there.
@pytest.mark.parametrize("quick", [False, True], ids=["full", "quick"])
def test_the_default_grid_spans_the_format(fmt: Format, quick: bool) -> None:
    """From the smallest subnormal to the largest float, 1 and the smallest normal among them."""
    points = grid(fmt, whole(fmt), quick=quick)
    assert is_a_grid(points, fmt, *whole(fmt))
    assert points[0] == fmt.smallest
    assert points[-1] == fmt.largest
    assert {1.0, fmt.smallest_normal} <= set(points)
    assert set(points) <= set(grid(fmt, whole(fmt)))


@every_format
def test_quick_keeps_a_third(fmt: Format) -> None:
    """About a third of the points, the four landmarks apart."""
    full, quick = grid(fmt, whole(fmt)), grid(fmt, whole(fmt), quick=True)
    assert len(full) / 3 - 1 <= len(quick) <= len(full) / 3 + 4


@given(formats, positive, positive, st.integers(1, 6))
def test_an_asked_grid_stays_in_the_range(
    fmt: Format, one: float, other: float, per_decade: int
) -> None:
    """Ascending floats of the format within its range, both ends among them where they fit."""
    low, high = sorted((one, other))
    points = grid(fmt, whole(fmt), MagnitudeRange(low, high, per_decade))
    assert is_a_grid(points, fmt, *whole(fmt))
    for end in (low, high):
        if fmt.smallest <= end <= fmt.largest:
            assert fmt.round(end) in points


def test_an_asked_grid_is_logarithmic() -> None:
    """PER_DECADE points a decade, evenly spaced in the logarithm."""
    points = grid(FORMATS["fp64"], whole(FORMATS["fp64"]), MagnitudeRange(1e-3, 1e3, 4))
    assert len(points) == 6 * 4 + 1
    steps = [math.log10(b / a) for a, b in itertools.pairwise(points)]
    assert max(abs(step - 0.25) for step in steps) < 1e-12


def test_a_single_magnitude_is_rounded_to_the_format() -> None:
    """One point: the nearest float of the format."""
    assert grid(FORMATS["bf16"], whole(FORMATS["bf16"]), parse_range("9999")) == [9984.0]
    assert grid(FORMATS["fp64"], whole(FORMATS["fp64"]), parse_range("9999")) == [9999.0]


# Above and below fp16's range: what does not fit is left out, never moved to the nearest end.
@pytest.mark.parametrize("text", ["1e5:1e10:3", "65505", "1e-12:1e-9", "1e-9"])
def test_a_range_that_misses_a_format_leaves_it_out(text: str) -> None:
    """fp16 gets no point at all, while fp32 gets the range."""
    assert grid(FORMATS["fp16"], whole(FORMATS["fp16"]), parse_range(text)) == []
    assert grid(FORMATS["fp32"], whole(FORMATS["fp32"]), parse_range(text)) != []


@every_format
def test_bounds_of_a_regime_are_kept(fmt: Format) -> None:
    """A subnormal regime has its two ends and nothing above them; 1 is not forced in."""
    low, high = fmt.smallest, fmt.smallest_normal
    points = grid(fmt, (low, high))
    assert is_a_grid(points, fmt, low, high)
    assert (points[0], points[-1]) == (low, high)


def test_a_regime_without_magnitude_has_the_point_zero() -> None:
    """Bounds (0, 0) mean one case at 0, which a range selects only by saying 0."""
    fmt = FORMATS["fp32"]
    assert grid(fmt, (0.0, 0.0)) == [0.0]
    assert grid(fmt, (0.0, 0.0), parse_range("0")) == [0.0]
    assert grid(fmt, (0.0, 0.0), parse_range("1:2")) == []
    assert grid(fmt, whole(fmt), parse_range("0")) == []
