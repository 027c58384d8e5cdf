"""Case ids: readable, stable, and read back to the same case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import InputError
from harness.case import PASSES, Case, decimal, parse_case
from harness.formats import FORMATS

# Names as catalogs give them; "/" and "=" separate, so they cannot be part of a name.
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-.", min_size=1, max_size=12)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any case, its magnitude any non-negative float of its dtype."""
    fmt = draw(st.sampled_from(list(FORMATS.values())))
    magnitude = fmt.from_ordinal(draw(st.integers(0, fmt.ordinal(fmt.largest))))
    shape = tuple(draw(st.lists(st.integers(1, 10**6), min_size=1, max_size=3)))
    options = tuple(sorted(draw(st.dictionaries(names, names, max_size=3)).items()))
    operation, path, regime = draw(names), draw(names), draw(names)
    pass_ = draw(st.sampled_from(PASSES))
    return Case(operation, path, fmt.name, regime, magnitude, shape, pass_, options)


@given(cases())
def test_an_id_reads_back_to_its_case(case: Case) -> None:
    """Nothing is lost: the case, and so its id, comes back, the magnitude to the last bit."""
    back = parse_case(case.id)
    assert back == case
    assert back.id == case.id


def test_the_documented_example() -> None:
    """The id in the contract, with and without an option, is what the code writes and reads."""
    text = "cross_entropy/triton/bf16/peak@9984/8x32000/backward"
    case = Case("cross_entropy", "triton", "bf16", "peak", 9984.0, (8, 32000), "backward")
    assert case.id == text
    assert parse_case(text) == case
    smoothed = parse_case(text + "/label_smoothing=0.1")
    assert smoothed.options == (("label_smoothing", "0.1"),)
    assert smoothed.id == text + "/label_smoothing=0.1"


def test_options_are_sorted() -> None:
    """Two ways to say the same options give one id."""
    first, second = ("a", "1"), ("b", "2")
    ids = {
        Case("op", "path", "fp32", "normal", 1.0, (4, 64), "forward", options).id
        for options in ((first, second), (second, first))
    }
    assert ids == {"op/path/fp32/normal@1/4x64/forward/a=1/b=2"}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_decimal_reads_back(value: float) -> None:
    """The shortest decimal is the same double again, and says no `.0`."""
    assert float(decimal(value)) == value
    assert not decimal(value).endswith(".0")


# One defect each: too few or empty segments, no magnitude, an option without "=", unknown dtype or
# pass, sizes and numbers that are none, a magnitude that is not finite or no float of the dtype.
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "malformed"),
        ("op/path/fp32/normal@1/4x64", "malformed"),
        ("op//fp32/normal@1/4x64/forward", "malformed"),
        ("op/path/fp32/normal/4x64/forward", "malformed"),
        ("op/path/fp32/@1/4x64/forward", "malformed"),
        ("op/path/fp32/normal@1/4x64/forward/option", "malformed"),
        ("op/path/fp32/normal@1/4x64/forward/=1", "malformed"),
        ("op/path/fp8/normal@1/4x64/forward", "choose from: bf16, fp16, fp32, fp64"),
        ("op/path/fp32/normal@1/4x64/sideways", "choose from: backward, forward"),
        ("op/path/fp32/normal@big/4x64/forward", "malformed"),
        ("op/path/fp32/normal@1/4x/forward", "malformed"),
        ("op/path/fp32/normal@1/4x-64/forward", "negative extent"),
        ("op/path/fp32/normal@inf/4x64/forward", "not a finite fp32 value"),
        ("op/path/fp32/normal@nan/4x64/forward", "NaN"),
        ("op/path/fp16/normal@70000/4x64/forward", "not a finite fp16 value"),
        ("op/path/bf16/normal@9999/4x64/forward", "not a finite bf16 value"),
    ],
)
def test_a_malformed_id_is_refused(text: str, says: str) -> None:
    """With an InputError that says what is wrong, never another exception."""
    with pytest.raises(InputError, match=says):
        parse_case(text)
