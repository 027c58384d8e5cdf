"""The naive formulas must break exactly where theory says: proof that the harness measures truly.

Each test derives, from the limits of a format and in exact arithmetic, the very float at which a
formula must stop being finite or accurate, and asks the harness to find that float.
The regimes `peak`, `trough` and `constant` have 64 columns, all zero but one, or all equal.
"""

import math
from fractions import Fraction

import pytest

import harness
from harness.formats import FORMATS, Format
from suites.selftest.ieee import (
    exponential,
    first_above,
    first_below,
    logarithm,
    nearest,
    square_root,
)

N = 64
ALL = list(FORMATS.values())
named = pytest.mark.parametrize("fmt", ALL, ids=lambda fmt: fmt.name)


def before(fmt: Format, value: float) -> float:
    """The next float towards zero."""
    return fmt.from_ordinal(fmt.ordinal(value) - 1)


def after(fmt: Format, value: float) -> float:
    """The next float away from zero."""
    return fmt.from_ordinal(fmt.ordinal(value) + 1)


def rounded_exp(fmt: Format, x: float) -> float:
    # Beyond 800 every format overflows; exp of 1e308 has no 300-bit Fraction worth making.
    return math.inf if x > 800 else nearest(fmt, exponential(x))


def rounded_sum(fmt: Format, zeros: int, terms: int, power: float) -> float:
    """`zeros` ones and `terms` equal powers, added exactly and rounded once."""
    return math.inf if math.isinf(power) else nearest(fmt, zeros + terms * Fraction(power))


@named
@pytest.mark.parametrize(
    # One exponential among 63 ones overflows by itself (in fp16 the 63 tip it over a little
    # sooner), 64 equal ones already at a 64th of the largest float.
    ("regime", "zeros", "terms"),
    [("peak", N - 1, 1), ("trough", N - 1, 1), ("constant", 0, N)],
)
def test_naive_cross_entropy_overflows_at_the_log_of_the_largest_float(
    fmt: Format, regime: str, zeros: int, terms: int
) -> None:
    """exp(x), or the sum of such, first rounds to infinity at the float that the search finds."""
    breaks = first_above(
        fmt, lambda x: math.isinf(rounded_sum(fmt, zeros, terms, rounded_exp(fmt, x)))
    )
    found = harness.frontier("cross_entropy", "naive", fmt.name, regime)
    assert (found.finite_until, found.nonfinite_from) == (before(fmt, breaks), breaks)
    # inf/inf where the peak itself is asked for, 1/inf = 0 and log(0) where another entry is.
    overflowed = math.isinf(rounded_exp(fmt, breaks))
    assert found.verdict.word == ("nan" if regime == "peak" and overflowed else "inf")


@named
def test_log_of_softmax_meets_zero_where_the_probability_underflows(fmt: Format) -> None:
    """-log(softmax) is infinite from where exp(-x)/(1 + 63 exp(-x)) rounds to zero."""

    def vanishes(x: float) -> bool:
        if x > 800:
            return True
        power = exponential(-x)
        return nearest(fmt, power / (1 + (N - 1) * power)) == 0

    breaks = first_above(fmt, vanishes)
    found = harness.frontier("cross_entropy", "softmax_log", fmt.name, "trough")
    assert (found.finite_until, found.nonfinite_from) == (before(fmt, breaks), breaks)
    assert found.verdict.word == "inf"


@named
def test_clamp_is_wrong_where_it_takes_over_and_useless_in_fp16(fmt: Format) -> None:
    """log(max(p, 1e-9)) sticks at 20.7, 2 ulp off at a derived float; in fp16 1e-9 is zero."""
    floor = nearest(fmt, Fraction(1e-9))
    found = harness.frontier("cross_entropy", "clamped", fmt.name, "trough")
    if floor == 0:
        bare = harness.frontier("cross_entropy", "softmax_log", fmt.name, "trough")
        assert fmt.name == "fp16"
        assert (found.finite_until, found.nonfinite_from) == (
            bare.finite_until,
            bare.nonfinite_from,
        )
        return
    stuck = Fraction(nearest(fmt, -logarithm(Fraction(floor))))

    def wrong(x: float) -> bool:
        if x > 800:
            return True
        loss = Fraction(x) + logarithm(1 + (N - 1) * exponential(-x))
        ulp = Fraction(2) ** (math.floor(math.log2(loss)) - fmt.precision + 1)
        return loss - stuck > 2 * ulp

    breaks = first_above(fmt, wrong)
    assert (found.finite_until, found.nonfinite_from) == (fmt.largest, None)
    assert (found.accurate_until, found.inaccurate_from) == (before(fmt, breaks), breaks)
    assert found.verdict.word == "inaccurate"


@named
@pytest.mark.parametrize(
    # At the peak with target 1 the vanishing term is 0 * log(0); with target 0 it is log(0) itself.
    ("regime", "word"),
    [("peak", "nan"), ("trough", "inf")],
)
def test_naive_binary_cross_entropy_breaks_where_the_sigmoid_rounds_to_one(
    fmt: Format, regime: str, word: str
) -> None:
    """log(1 - h) is log(0) from the first x whose 1/(1 + exp(-x)) rounds to 1."""
    computed = FORMATS["fp64"] if fmt.name == "fp64" else FORMATS["fp32"]  # as torch computes it

    def saturates(x: float) -> bool:
        if x > 800:
            return True
        power = Fraction(nearest(computed, exponential(-x)))
        below = Fraction(nearest(computed, 1 + power))
        return nearest(fmt, Fraction(nearest(computed, 1 / below))) == 1

    breaks = first_above(fmt, saturates)
    found = harness.frontier("binary_cross_entropy_with_logits", "naive", fmt.name, regime)
    assert (found.finite_until, found.nonfinite_from) == (before(fmt, breaks), breaks)
    assert found.verdict.word == word


def squares(fmt: Format, x: float, terms: int) -> float:
    """The sum of `terms` squares, each rounded, the sum rounded again."""
    return rounded_sum(fmt, 0, terms, nearest(fmt, Fraction(x) ** 2))


@named
@pytest.mark.parametrize(
    # A single square overflows at sqrt(largest); 64 equal ones sum to infinity at sqrt(largest/64).
    ("regime", "terms"),
    [("peak", 1), ("constant", N)],
)
def test_naive_norm_is_silently_zero_where_the_sum_of_squares_overflows(
    fmt: Format, regime: str, terms: int
) -> None:
    """x/inf = 0: finite to the end of the range, wrong from the float where sum x^2 is infinite."""
    breaks = first_above(fmt, lambda x: math.isinf(squares(fmt, x, terms)))
    found = harness.frontier("normalize", "naive", fmt.name, regime)
    assert (found.finite_until, found.nonfinite_from) == (fmt.largest, None)
    assert (found.accurate_until, found.inaccurate_from) == (before(fmt, breaks), breaks)
    assert found.verdict.word == "underflow"


@named
@pytest.mark.parametrize(
    # The other 63 entries of the peak are 0/0; a constant vector is x/0 everywhere.
    ("regime", "word"),
    [("peak", "nan"), ("constant", "inf")],
)
def test_naive_norm_divides_by_zero_where_the_square_underflows(
    fmt: Format, regime: str, word: str
) -> None:
    """Going down, the norm is first zero at the largest x whose square rounds to zero."""
    breaks = first_below(fmt, lambda x: squares(fmt, x, 1) == 0)
    found = harness.frontier("normalize", "naive", fmt.name, regime, side="low")
    assert (found.finite_until, found.nonfinite_from) == (after(fmt, breaks), breaks)
    assert found.verdict.word == word


@named
def test_naive_norm_loses_accuracy_where_squares_become_subnormal(fmt: Format) -> None:
    """Going down, x/sqrt(x^2) leaves 2 ulp of 1 below sqrt(smallest normal), at that very float."""

    def ulps(x: float) -> Fraction:
        norm = nearest(fmt, square_root(squares(fmt, x, 1)))
        return abs(Fraction(nearest(fmt, Fraction(x) / Fraction(norm))) - 1) / (
            2 * Fraction(fmt.unit_roundoff)
        )

    found = harness.frontier("normalize", "naive", fmt.name, "peak", side="low")
    assert found.accurate_until is not None
    assert found.inaccurate_from is not None
    assert found.accurate_until == after(fmt, found.inaccurate_from)
    assert ulps(found.accurate_until) <= 2 < ulps(found.inaccurate_from)
    # Above, no float can fail: a normal square errs by half an ulp, and so does each later step.
    assert found.inaccurate_from < math.sqrt(fmt.smallest_normal)
    # Wrong by 2 ulp of 1 needs a square whose spacing is at least 4 ulp of it.
    spacing = Fraction(fmt.smallest)
    assert Fraction(found.inaccurate_from) ** 2 * Fraction(fmt.unit_roundoff) < spacing


@named
def test_epsilon_rounds_away_in_fp16_and_shifts_the_answer_elsewhere(fmt: Format) -> None:
    """x/(norm + 1e-12) leaves 2 ulp of 1 at the float where exact rounding says so.

    In fp16 the epsilon is zero and saves nothing; in fp64 it is felt at magnitude 1 already.
    """
    epsilon = Fraction(nearest(FORMATS["fp64" if fmt.name == "fp64" else "fp32"], Fraction(1e-12)))

    def ulps(x: float) -> Fraction:
        norm = Fraction(nearest(fmt, square_root(squares(fmt, x, 1))))
        shifted = Fraction(nearest(fmt, norm + epsilon))
        return abs(Fraction(nearest(fmt, Fraction(x) / shifted)) - 1) / (
            2 * Fraction(fmt.unit_roundoff)
        )

    found = harness.frontier("normalize", "epsilon", fmt.name, "peak", side="low")
    if nearest(fmt, epsilon) == 0:
        assert fmt.name == "fp16"
        assert found == harness.frontier("normalize", "naive", fmt.name, "peak", side="low")
        return
    assert (found.finite_until, found.nonfinite_from) == (fmt.smallest, None)
    if ulps(1.0) > 2:
        assert fmt.name == "fp64"
        assert (found.accurate_until, found.inaccurate_from) == (None, 1.0)
        return
    assert found.accurate_until is not None
    assert found.inaccurate_from is not None
    assert found.accurate_until == after(fmt, found.inaccurate_from)
    assert ulps(found.accurate_until) <= 2 < ulps(found.inaccurate_from)


@named
@pytest.mark.parametrize(
    # The regimes whose naive forms break above, and random inputs; both ends of the range.
    ("operation", "regime"),
    [
        ("cross_entropy", "peak"),
        ("cross_entropy", "trough"),
        ("cross_entropy", "constant"),
        ("cross_entropy", "normal"),
        ("binary_cross_entropy_with_logits", "peak"),
        ("binary_cross_entropy_with_logits", "trough"),
        ("normalize", "peak"),
        ("normalize", "constant"),
        ("normalize", "normal"),
        ("softmax", "peak"),
        ("log_softmax", "peak"),
        ("rms_norm", "peak"),
        ("layer_norm", "outlier"),
    ],
)
@pytest.mark.parametrize("side", ["high", "low"])
def test_triton_paths_have_no_frontier(fmt: Format, operation: str, regime: str, side: str) -> None:
    """Where the naive forms break, ours is finite and accurate to the last float of the range."""
    found = harness.frontier(operation, "triton", fmt.name, regime, side=side)  # type: ignore[arg-type]
    assert (found.nonfinite_from, found.inaccurate_from) == (None, None)
    assert found.verdict.word == "ok"
