"""The frontier search on evaluators made by hand: it must find the very float, in few launches."""

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import Frontier, Verdict
from harness.formats import FORMATS, Format
from harness.judge import Judgement
from harness.magnitudes import grid
from harness.search import Side, measured_frontier, search_frontier

FP16, FP32 = FORMATS["fp16"], FORMATS["fp32"]
OK, INACCURATE, INF, NAN = Verdict.OK, Verdict.INACCURATE, Verdict.INF, Verdict.NAN
UNREPRESENTABLE = Verdict.UNREPRESENTABLE

Rule = Callable[[float], Verdict]


class Evaluator:
    """Judges by a rule, and remembers which magnitudes it was asked for in each launch."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.launches: list[list[float]] = []

    def __call__(self, magnitudes: Sequence[float]) -> list[Judgement]:
        self.launches.append(list(magnitudes))
        verdicts = [self.rule(each) for each in magnitudes]
        return [Judgement(each, each is not UNREPRESENTABLE) for each in verdicts]


def whole_grid(fmt: Format) -> list[float]:
    return grid(fmt, (fmt.smallest, fmt.largest))


def search(rule: Rule, fmt: Format, side: Side = "high", width: int = 7) -> Frontier:
    return search_frontier(Evaluator(rule), fmt, whole_grid(fmt), side=side, width=width)


@st.composite
def searches(draw: st.DrawFn) -> tuple[Format, Side, int, int, int]:
    """A format, a side, a width, and the ordinals of the last finite and last accurate float."""
    fmt = draw(st.sampled_from(list(FORMATS.values())))
    side: Side = draw(st.sampled_from(["high", "low"]))
    one, end = fmt.ordinal(1.0), fmt.ordinal(fmt.largest) if side == "high" else 1
    low, high = sorted((one, end))
    finite = draw(st.integers(low, high))
    low, high = sorted((one, finite))
    return fmt, side, draw(st.integers(1, 40)), finite, draw(st.integers(low, high))


@given(searches())
def test_any_threshold_is_found_to_the_float(
    asked: tuple[Format, Side, int, int, int],
) -> None:
    """Whatever float a path breaks at, `until` is it and `from` its outward neighbour."""
    fmt, side, width, finite, accurate = asked
    outwards = 1 if side == "high" else -1

    def rule(magnitude: float) -> Verdict:
        place = outwards * fmt.ordinal(magnitude)
        if place > outwards * finite:
            return NAN
        return INACCURATE if place > outwards * accurate else OK

    evaluate = Evaluator(rule)
    found = search_frontier(evaluate, fmt, whole_grid(fmt), side=side, width=width)

    end = fmt.ordinal(fmt.largest) if side == "high" else 1
    beyond_finite = fmt.from_ordinal(finite + outwards) if finite != end else None
    beyond_accurate = fmt.from_ordinal(accurate + outwards) if accurate != end else None
    verdict = NAN if finite != end else INACCURATE if accurate != end else OK
    assert found == Frontier(
        fmt.from_ordinal(finite),
        beyond_finite,
        fmt.from_ordinal(accurate),
        beyond_accurate,
        verdict,
    )
    # For finiteness and for accuracy: the grid, then launches of `width` that divide the gap by
    # `width + 1` each, a fraction rounded up; last, once more, the verdict.
    sizes = [len(each) for each in evaluate.launches]
    assert all(size <= width for size in sizes if size != sizes[0])
    assert len(sizes) <= 2 * (1 + 2 + math.ceil(fmt.bits / math.log2(width + 1))) + 1


def test_a_finite_answer_between_infinities_does_not_hide_them() -> None:
    """Finiteness need not be monotone: the first failure outwards on the grid is bracketed."""

    def rule(magnitude: float) -> Verdict:
        return INF if 300 <= magnitude < 5000 or magnitude > 50000 else OK

    found = search(rule, FP16)
    assert (found.finite_until, found.nonfinite_from) == (299.75, 300.0)
    assert found.verdict is INF


# Both sides, from 1 at once: there is no float that holds, and the search says so.
@pytest.mark.parametrize("side", ["high", "low"])
def test_failing_at_one_leaves_no_until(side: Side) -> None:
    """`until` is None and `from` is 1 itself."""
    assert search(lambda m: NAN, FP16, side) == Frontier(None, 1.0, None, 1.0, NAN)
    inaccurate = search(lambda m: INACCURATE, FP16, side)
    end = FP16.largest if side == "high" else FP16.smallest
    assert inaccurate == Frontier(end, None, None, 1.0, INACCURATE)


@pytest.mark.parametrize("side", ["high", "low"])
def test_a_path_that_holds_to_the_end_has_no_from(side: Side) -> None:
    """`until` is the format's last float and the verdict ok."""
    end = FP32.largest if side == "high" else FP32.smallest
    assert search(lambda m: OK, FP32, side) == Frontier(end, None, end, None, OK)


def test_unrepresentable_magnitudes_are_stepped_over() -> None:
    """They neither pass nor fail: a later failure counts, with the last judged float before it."""

    def rule(magnitude: float) -> Verdict:
        if 64 <= magnitude < 2048:
            return UNREPRESENTABLE
        return NAN if magnitude >= 4096 else OK

    found = search(rule, FP16)
    assert (found.finite_until, found.nonfinite_from) == (4094.0, 4096.0)


@st.composite
def blanks(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """fp16 ordinals above 1: the last that holds, an unrepresentable block, and a width."""
    one, end = FP16.ordinal(1.0), FP16.ordinal(FP16.largest)
    first, last = sorted(draw(st.integers(one + 1, end - 1)) for _ in range(2))
    return draw(st.integers(one, end - 1)), first, last, draw(st.integers(1, 40))


@given(blanks())
def test_a_threshold_beside_an_unrepresentable_block_is_found(
    asked: tuple[int, int, int, int],
) -> None:
    """Wherever the block lies: until it comes nothing else, after it the first that can fail."""
    holds, first, last, width = asked

    def rule(magnitude: float) -> Verdict:
        place = FP16.ordinal(magnitude)
        if first <= place <= last:
            return UNREPRESENTABLE
        return NAN if place > holds else OK

    found = search(rule, FP16, width=width)
    until = first - 1 if first <= holds <= last else holds
    beyond = last + 1 if first <= holds + 1 <= last else holds + 1
    assert found.finite_until == FP16.from_ordinal(until)
    assert found.nonfinite_from == FP16.from_ordinal(beyond)


def test_unrepresentable_to_the_end_is_no_failure() -> None:
    """Nobody's fault: the path holds as far as it could be judged."""
    found = search(lambda m: UNREPRESENTABLE if m > 100 else OK, FP16)
    assert found.nonfinite_from is None
    assert found.inaccurate_from is None
    assert found.verdict is OK


def test_the_verdict_is_that_of_the_first_nonfinite() -> None:
    """Not of an earlier inaccuracy, nor of something worse further out."""

    def rule(magnitude: float) -> Verdict:
        steps = ((1000, NAN), (100, INF), (10, INACCURATE))
        return next((verdict for start, verdict in steps if magnitude >= start), OK)

    found = search(rule, FP16)
    assert found == Frontier(99.9375, 100.0, 9.9921875, 10.0, INF)


def test_measured_frontier_reads_the_recorded_points_alone() -> None:
    """Recorded in any order: the last that holds before the first that does not, on each side."""
    verdicts = {8.0: NAN, 1.0: OK, 4.0: INACCURATE, 0.25: INF, 2.0: OK, 0.5: OK, 16.0: OK}
    judgements = [Judgement(each, True) for each in verdicts.values()]
    high = measured_frontier(list(verdicts), judgements, side="high")
    low = measured_frontier(list(verdicts), judgements, side="low")
    assert high == Frontier(4.0, 8.0, 2.0, 4.0, NAN)
    assert low == Frontier(0.5, 0.25, 0.5, 0.25, INF)
