"""The four formats against independent sources: torch.finfo, torch.nextafter, NumPy, fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from harness import InputError
from harness.formats import FORMATS, Format, format_named, format_of, statistics_format

# All four: each has its own significand and exponent, and bf16 its own way through struct.
every_format = pytest.mark.parametrize("fmt", FORMATS.values(), ids=list(FORMATS))
formats = st.sampled_from(list(FORMATS.values()))


@st.composite
def formats_and_ordinals(draw: st.DrawFn, *, below_largest: int = 0) -> tuple[Format, int]:
    """A format and the ordinal of one of its finite floats."""
    fmt = draw(formats)
    return fmt, draw(st.integers(0, fmt.ordinal(fmt.largest) - below_largest))


@every_format
def test_limits_are_those_of_torch(fmt: Format) -> None:
    """Largest, smallest normal, smallest subnormal and unit roundoff agree with torch.finfo."""
    limits = torch.finfo(fmt.dtype)
    assert fmt.largest == limits.max
    assert fmt.smallest_normal == limits.smallest_normal
    assert fmt.smallest == limits.smallest_normal * limits.eps
    assert fmt.unit_roundoff == limits.eps / 2
    assert fmt.bits == limits.bits


@every_format
def test_overflow_begins_half_an_ulp_beyond_the_largest(fmt: Format) -> None:
    """A sum at the threshold becomes infinite in the format's own arithmetic, just less not."""
    largest, half_ulp = (torch.tensor(part, dtype=fmt.dtype) for part in fmt.overflow_threshold)
    assert torch.isinf(largest + half_ulp)
    just_less = torch.tensor(fmt.from_ordinal(fmt.ordinal(half_ulp.item()) - 1), dtype=fmt.dtype)
    assert (largest + just_less).item() == fmt.largest


@given(formats_and_ordinals())
def test_ordinal_and_from_ordinal_are_inverse(at: tuple[Format, int]) -> None:
    """Counting a float and reading the count back give the same float, and the same count."""
    fmt, ordinal = at
    value = fmt.from_ordinal(ordinal)
    assert torch.tensor(value, dtype=torch.float64).to(fmt.dtype).item() == value
    assert fmt.ordinal(value) == ordinal


@given(formats_and_ordinals(below_largest=1))
def test_consecutive_ordinals_are_adjacent_floats(at: tuple[Format, int]) -> None:
    """Ordinals grow with the floats and skip none: the next one is torch.nextafter's."""
    fmt, ordinal = at
    value, above = fmt.from_ordinal(ordinal), fmt.from_ordinal(ordinal + 1)
    assert value < above
    here, top = (torch.tensor(each, dtype=fmt.dtype) for each in (value, math.inf))
    assert torch.nextafter(here, top).item() == above


@every_format
def test_ordinals_of_the_landmarks(fmt: Format) -> None:
    """0 is zero, 1 the smallest subnormal, and the largest float is the last before infinity."""
    assert fmt.ordinal(0.0) == 0
    assert fmt.ordinal(fmt.smallest) == 1
    assert fmt.ordinal(fmt.smallest_normal) == 2 ** (fmt.precision - 1)
    assert math.isinf(fmt.from_ordinal(fmt.ordinal(fmt.largest) + 1))


def ulp(fmt: Format, value: float) -> float:
    return fmt.ulp(torch.tensor([value], dtype=torch.float64)).item()


@given(formats_and_ordinals(below_largest=1), st.sampled_from([1.0, -1.0]))
def test_ulp_is_the_distance_to_the_next_float(at: tuple[Format, int], sign: float) -> None:
    """At every float, zero and subnormals included, whatever the sign."""
    fmt, ordinal = at
    value = fmt.from_ordinal(ordinal)
    assert ulp(fmt, sign * value) == fmt.from_ordinal(ordinal + 1) - value


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(0.0)
@example(5e-324)
@example(math.nextafter(2.0**-1022, 0.0))
@example(math.nextafter(math.inf, 0.0))
def test_ulp_of_doubles_is_that_of_math(value: float) -> None:
    """math.ulp is the reference for fp64; np.spacing for the formats that NumPy has."""
    assert ulp(FORMATS["fp64"], value) == math.ulp(value)
    single = float(np.float32(np.clip(value, -3e38, 3e38)))
    assert ulp(FORMATS["fp32"], single) == abs(float(np.spacing(np.float32(abs(single)))))
    half = float(np.float16(np.clip(value, -6e4, 6e4)))
    assert ulp(FORMATS["fp16"], half) == abs(float(np.spacing(np.float16(abs(half)))))


@every_format
def test_ulp_at_the_ends(fmt: Format) -> None:
    """At zero the spacing of subnormals; at the largest float and beyond, of the last binade."""
    assert ulp(fmt, 0.0) == fmt.smallest
    last = fmt.largest - fmt.from_ordinal(fmt.ordinal(fmt.largest) - 1)
    assert ulp(fmt, fmt.largest) == last
    assert ulp(fmt, math.inf) == last
    assert ulp(fmt, math.nextafter(1.0, 0.0)) == fmt.unit_roundoff


@given(formats, st.floats(allow_nan=False))
@example(FORMATS["fp16"], 1 + 2.0**-11 + 2.0**-40)  # by way of fp32 this would fall to 1
@example(FORMATS["bf16"], 1 + 2.0**-8)  # a tie, to the even neighbour
@example(FORMATS["fp16"], 65520.0)  # rounds to infinity, is kept finite
def test_round_gives_the_nearest_float(fmt: Format, value: float) -> None:
    """No neighbour of the result is nearer, a tie goes to the even one, the range is kept."""
    rounded = fmt.round(value)
    assert rounded == -fmt.round(-value)
    if abs(value) >= fmt.largest:
        assert rounded == math.copysign(fmt.largest, value)
        return
    exact, ordinal = Fraction(abs(value)), fmt.ordinal(abs(rounded))
    distance = abs(Fraction(abs(rounded)) - exact)
    for neighbour in (max(ordinal - 1, 0), min(ordinal + 1, fmt.ordinal(fmt.largest))):
        other = abs(Fraction(fmt.from_ordinal(neighbour)) - exact)
        assert distance < other or neighbour == ordinal or (distance == other and ordinal % 2 == 0)


def test_round_refuses_nan() -> None:
    """NaN is no magnitude."""
    with pytest.raises(InputError, match="NaN"):
        FORMATS["fp32"].round(math.nan)


def test_names() -> None:
    """People's names and torch's dtypes find the same formats; others are refused with the list."""
    assert [format_of(fmt.dtype) is format_named(name) for name, fmt in FORMATS.items()] == [
        True
    ] * 4
    with pytest.raises(InputError, match="'float16'; choose from: bf16, fp16, fp32, fp64"):
        format_named("float16")
    with pytest.raises(InputError, match=r"torch\.int64"):
        format_of(torch.int64)


def test_statistics_are_kept_in_fp32_or_fp64() -> None:
    """Sums of halves are kept in fp32, sums of doubles in fp64."""
    kept = {name: statistics_format(fmt).name for name, fmt in FORMATS.items()}
    assert kept == {"fp16": "fp32", "bf16": "fp32", "fp32": "fp32", "fp64": "fp64"}
