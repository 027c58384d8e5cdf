"""The judge on outputs made by hand: each verdict, which one wins, and where tolerances end."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from harness import Expected, Operation, Path, Verdict
from harness.case import Pass
from harness.execute import Output
from harness.formats import FORMATS, Format
from harness.judge import Judgement, judge

INF, NAN = math.inf, math.nan
FP16, FP32, FP64 = FORMATS["fp16"], FORMATS["fp32"], FORMATS["fp64"]
PATH = Path("by_hand", abs)


def operation(*, max_ulp: float = 2.0, slack_factor: float = 0.0) -> Operation:
    """One whose truths and inputs are never asked for."""
    return Operation("toy", "", len, len, len, (), (), max_ulp=max_ulp, slack_factor=slack_factor)


def doubles(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def judged(
    values: list[float],
    truths: list[float],
    *,
    returned: Format = FP32,
    low: list[float] | None = None,
    slack: list[float] | None = None,
    rows: int | None = None,
    pass_: Pass = "forward",
    path: Path = PATH,
    by: Operation | None = None,
    **flags: Tensor | None,
) -> list[Judgement]:
    """Judge single-column rows, by default all of one case."""
    zeros = [0.0] * len(truths)
    expected = Expected(
        doubles(truths),
        doubles(low or zeros),
        doubles(slack or zeros),
        torch.zeros(len(truths), dtype=torch.bool),
    )
    output = Output(doubles(values).to(returned.dtype), **flags)
    rows = rows or len(values)
    return judge(by or operation(), path, returned, pass_, output, expected, rows=rows)


def flag(*marked: bool) -> Tensor:
    return torch.tensor(marked)


# One element against one truth. Non-finite values first: right where the truth is the same or
# rounds to it, by sign; then unrepresentable truths (fp16 ends at 65504 and rounds to inf from
# 65520), then zeros, which are faithful only below the smallest subnormal.
@pytest.mark.parametrize(
    ("value", "truth", "verdict"),
    [
        (1.0, 1.0, "ok"),
        (NAN, 1.0, "nan"),
        (INF, 1.0, "inf"),
        (-INF, 1.0, "inf"),
        (NAN, NAN, "ok"),
        (INF, INF, "ok"),
        (-INF, INF, "inf"),
        (NAN, INF, "nan"),
        (INF, NAN, "inf"),
        (1.0, INF, "masked_nonfinite"),
        (0.0, NAN, "masked_nonfinite"),
        (65504.0, -INF, "masked_nonfinite"),
        (INF, 65520.0, "unrepresentable"),
        (65504.0, 65520.0, "unrepresentable"),
        (-INF, 65520.0, "inf"),
        (NAN, 65520.0, "nan"),
        (INF, 65519.0, "inf"),
        (65504.0, 65519.0, "ok"),
        (0.0, 0.0, "ok"),
        (-0.0, 0.0, "ok"),
        (0.0, 1.0, "underflow"),
        (0.0, 2.0**-24, "underflow"),
        (0.0, 0.99 * 2.0**-24, "ok"),
        (2.0**-24, 0.0, "ok"),
        (3 * 2.0**-24, 0.0, "inaccurate"),
        (1e-4, 0.0, "inaccurate"),
        (1.5, 1.0, "inaccurate"),
        (-1.0, 1.0, "inaccurate"),
    ],
)
def test_one_element_of_fp16(value: float, truth: float, verdict: str) -> None:
    """A single fp16 output gets the verdict that its definition says."""
    found = judged([value], [truth], returned=FP16)[0]
    assert found.verdict.word == verdict
    wrong = verdict not in ("ok", "unrepresentable")
    assert (found.bad, found.first_bad) == ((1, (0,)) if wrong else (0, None))
    assert found.representable == (truth != 65520.0)


def test_gradients_have_their_own_words() -> None:
    """In the backward pass NaN and infinity are a gradient's; the rest is called the same."""
    words = [
        judged([value], [1.0], pass_="backward")[0].verdict.word for value in (NAN, INF, 0.0, 2.0)
    ]
    assert words == ["nan_gradient", "inf_gradient", "underflow", "inaccurate"]


# All formats: the ULP is the returned dtype's, at the truth; 1.5 lies inside a binade.
@pytest.mark.parametrize("fmt", FORMATS.values(), ids=list(FORMATS))
def test_exactly_two_ulp_are_allowed(fmt: Format) -> None:
    """2 ULP are ok and a hair more is not, the hair being in the part a double cannot hold."""
    ulp = 2 * fmt.unit_roundoff
    hair = ulp * 2.0**-40
    at, beyond, within = (
        judged([1.5 + 2 * ulp], [1.5], low=[low], returned=fmt)[0] for low in (0.0, -hair, hair)
    )
    assert (at.verdict, at.max_ulp) == (Verdict.OK, 2.0)
    assert (beyond.verdict, within.verdict) == (Verdict.INACCURATE, Verdict.OK)
    assert judged([1.5 + 3 * ulp], [1.5], returned=fmt)[0].max_ulp == 3.0


def test_an_operation_sets_its_own_bound() -> None:
    """max_ulp is the operation's: what one accepts another does not."""
    value = [1.5 + 2 * 2.0**-23]
    assert judged(value, [1.5], by=operation(max_ulp=2.0))[0].verdict is Verdict.OK
    assert judged(value, [1.5], by=operation(max_ulp=1.0))[0].verdict is Verdict.INACCURATE


def test_slack_is_what_cancellation_may_cost() -> None:
    """k * u * slack is added to 2 ULP: exactly that is ok, and a zero within it is no underflow."""
    four = operation(slack_factor=4.0)
    allowed = 4 * 2.0**-24 * 1000.0  # u of fp32, in which sums over fp16 are kept, too
    edge = allowed + 2 * 2.0**-24  # 2 ULP of fp16 subnormals
    for returned in (FP32, FP64):
        k = operation(slack_factor=4.0 * returned.unit_roundoff**-1 * 2.0**-24)
        assert judged([allowed], [0.0], slack=[1000.0], returned=returned, by=k)[0].bad == 0
    values, truths = [0.0, 0.0], [edge, edge * 1.001]
    words = [
        judged([value], [truth], slack=[1000.0], returned=FP16, by=four)[0].verdict.word
        for value, truth in zip(values, truths, strict=True)
    ]
    assert words == ["underflow", "underflow"]
    assert judged([0.0], [allowed], slack=[1000.0], returned=FP16, by=four)[0].bad == 0
    assert judged([0.0], [allowed], slack=[0.0], returned=FP16, by=four)[0].bad == 1


def test_opposite_ends_of_fp64_have_no_distance() -> None:
    """The error overflows a double: inaccurate, and no number rather than infinity."""
    found = judged([-FP64.largest], [FP64.largest], returned=FP64)[0]
    assert (found.verdict, found.max_ulp) == (Verdict.INACCURATE, None)


def test_a_truth_beyond_doubles_is_unrepresentable() -> None:
    """Where no double holds the truth, an infinity of its sign is right, another is not."""
    expected = Expected(doubles([INF]), doubles([0]), doubles([0]), flag(True))
    found = [
        judge(operation(), PATH, FP64, "forward", Output(doubles([value])), expected, rows=1)[0]
        for value in (INF, FP64.largest, -INF, NAN)
    ]
    assert [each.verdict.word for each in found] == ["unrepresentable"] * 2 + ["inf", "nan"]
    assert not any(each.representable for each in found)


# In order of precedence, each by the one element that earns it; the flags mark elements 4 to 6 of a
# row of outputs, and the input as changed.
EARNED = (Verdict.UNWRITTEN, Verdict.MUTATED_INPUT, Verdict.NAN, Verdict.INF)
EARNED += (Verdict.MASKED_NONFINITE, Verdict.UNREPRESENTABLE, Verdict.UNDERFLOW)
EARNED += (Verdict.INACCURATE, Verdict.NONDETERMINISTIC)
VALUES = {
    Verdict.NAN: (NAN, 1.0),
    Verdict.INF: (INF, 1.0),
    Verdict.MASKED_NONFINITE: (1.0, INF),
    Verdict.UNREPRESENTABLE: (INF, 65520.0),
    Verdict.UNDERFLOW: (0.0, 1.0),
    Verdict.INACCURATE: (2.0, 1.0),
}


def output_with(verdicts: tuple[Verdict, ...]) -> list[Judgement]:
    """One case of ok elements and one element (or flag) for each of the verdicts."""
    pairs = [(1.0, 1.0), *(VALUES.get(verdict, (1.0, 1.0)) for verdict in verdicts)]
    values, truths = zip(*pairs, strict=True)
    return judged(
        list(values),
        list(truths),
        returned=FP16,
        unwritten=flag(False, *(each is Verdict.UNWRITTEN for each in verdicts)),
        unrepeatable=flag(False, *(each is Verdict.NONDETERMINISTIC for each in verdicts)),
        mutated=flag(False, *(each is Verdict.MUTATED_INPUT for each in verdicts)),
    )


def test_precedence() -> None:
    """Of any two verdicts in one case the one that the contract lists first is the case's."""
    assert list(EARNED) == [each for each in Verdict if each in EARNED]
    for first, second in itertools.combinations(EARNED, 2):
        assert output_with((first,))[0].verdict is first
        assert output_with((second, first))[0].verdict is first
    assert output_with(EARNED[::-1])[0].verdict is Verdict.UNWRITTEN
    assert output_with(())[0].verdict is Verdict.OK


def test_each_magnitude_gets_its_own_verdict() -> None:
    """Rows are grouped by magnitude: no verdict, flag or count reaches a neighbour."""
    found = judged(
        [1.0, 1.0, NAN, 1.0, 1.0, 70000.0, 1.0, 1.0],
        [1.0, 1.0, 1.0, 1.0, 1.0, 70000.0, 1.0, 1.0],
        returned=FP16,
        rows=2,
        mutated=flag(*[False] * 7, True),
    )
    words = [each.verdict.word for each in found]
    assert words == ["ok", "nan", "unrepresentable", "mutated_input"]
    assert [each.first_bad for each in found] == [None, (0,), None, None]
    assert [each.bad for each in found] == [0, 1, 0, 0]
    assert [each.elements for each in found] == [2] * 4
    assert [each.representable for each in found] == [True, True, False, True]


def test_indices_are_within_the_case() -> None:
    """The first bad element of a matrix is (row of the case, column); all bad ones are counted."""
    value = torch.ones(6, 3)
    value[4, 2] = value[5, 0] = NAN
    expected = Expected.of(torch.ones(6, 3, dtype=torch.float64))
    output = Output(value)
    found = judge(operation(), PATH, FP32, "forward", output, expected, rows=3)
    assert [(each.bad, each.first_bad) for each in found] == [(0, None), (2, (1, 2))]


def test_a_path_known_to_overwrite_its_input_is_recorded_not_blamed() -> None:
    """Without the declaration it is mutated_input, with it a note beside the verdict."""
    declared = Path("liger", abs, overwrites_input=True)
    blamed, noted = (
        judged([1.0], [1.0], path=path, mutated=flag(True))[0] for path in (PATH, declared)
    )
    assert (blamed.verdict, blamed.overwrote_clone) == (Verdict.MUTATED_INPUT, False)
    assert (noted.verdict, noted.overwrote_clone) == (Verdict.OK, True)


def test_a_fault_is_the_verdict_of_every_magnitude() -> None:
    """Nothing came out: every case bears the fault and its reason, representable as its truth."""
    expected = Expected.of(doubles([1.0, 1.0, 65520.0, 1.0]))
    output = Output(None, Verdict.OUT_OF_MEMORY, "no room")
    found = judge(operation(), PATH, FP16, "forward", output, expected, rows=2)
    assert [each.verdict for each in found] == [Verdict.OUT_OF_MEMORY] * 2
    assert [each.reason for each in found] == ["no room"] * 2
    assert [each.representable for each in found] == [True, False]
