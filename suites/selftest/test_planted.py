"""Planted defects that the harness must find, by verdict, and sound code that it must clear."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import harness
from harness.case import Pass
from harness.catalog import operation_named
from harness.environment import choose_device
from harness.execute import Output
from harness.formats import FORMATS
from harness.judge import judge_elements
from harness.operation import ALL_CLAIMS, Expected, Path
from harness.plan import Item
from harness.record import Record
from harness.sweep import sweep_item
from suites.selftest import planted

DEVICE = choose_device(None)


def records_of(
    function: Callable[..., Tensor],
    operation: str,
    dtype: str,
    regime: str,
    magnitudes: tuple[float, ...],
    passes: tuple[Pass, ...] = ("forward",),
) -> list[Record]:
    """Sweep a planted path as the suite does, with every claim."""
    chosen = operation_named(operation)
    path = Path(function.__name__, function, claims=ALL_CLAIMS)
    item = Item(chosen, path, FORMATS[dtype], chosen.regime(regime), magnitudes, passes)
    return sweep_item(item, seed=0, device=DEVICE, refine=False)


CE, NORM = "cross_entropy", "normalize"


@pytest.mark.parametrize(
    # Each defect where it must show, at the smallest magnitude that theory gives for it: 89 is past
    # ln(largest fp32), 1 is ordinary, 0 is the zero vector.
    ("function", "operation", "dtype", "regime", "magnitude", "word"),
    [
        (planted.no_maximum_subtraction, CE, "fp32", "peak", 89.0, "inf"),
        (planted.unguarded_masked_block, CE, "fp32", "masked", 1.0, "nan"),
        (planted.epsilon_rounds_to_zero, NORM, "fp16", "zeros", 0.0, "nan"),
        (planted.returns_zeros, NORM, "fp32", "normal", 1.0, "underflow"),
        (planted.tail_left_unwritten, NORM, "bf16", "normal", 1.0, "unwritten"),
        (planted.overwrites_its_input, NORM, "fp32", "normal", 1.0, "mutated_input"),
        (planted.differs_from_run_to_run, NORM, "fp32", "normal", 1.0, "nondeterministic"),
        (planted.unguarded_wide_block, CE, "fp32", "masked_blocks", 1.0, "nan"),
        (planted.swallows_nan, CE, "fp32", "nonfinite", 1.0, "masked_nonfinite"),
        (planted.returns_every_logit, CE, "fp32", "normal", 1.0, "error"),
        (planted.returns_too_few_bits, NORM, "fp32", "normal", 1.0, "inaccurate"),
    ],
)
def test_a_planted_defect_gets_its_verdict(
    function: Callable[..., Tensor],
    operation: str,
    dtype: str,
    regime: str,
    magnitude: float,
    word: str,
) -> None:
    """The verdict names the defect, and the path's claims are broken by it."""
    (record,) = records_of(function, operation, dtype, regime, (magnitude,))
    assert record.verdict.word == word
    assert record["broken"]


@pytest.mark.parametrize(
    # The same kernels where their defect cannot show: below the overflow, without masks, away from
    # zero, in a dtype that holds the epsilon.
    ("function", "operation", "dtype", "regime", "magnitude"),
    [
        (planted.no_maximum_subtraction, CE, "fp32", "trough", 1.0),
        (planted.unguarded_masked_block, CE, "fp32", "normal", 1.0),
        (planted.epsilon_rounds_to_zero, NORM, "fp32", "zeros", 0.0),
        (planted.returns_zeros, NORM, "fp32", "zeros", 0.0),
    ],
)
def test_a_planted_kernel_is_not_accused_where_it_is_right(
    function: Callable[..., Tensor], operation: str, dtype: str, regime: str, magnitude: float
) -> None:
    """A detector is tested by what it must not report, too."""
    (record,) = records_of(function, operation, dtype, regime, (magnitude,))
    assert (record.verdict.word, record.get("broken")) == ("ok", None)


@pytest.mark.parametrize(
    # p rounds to 1 in fp16 from about 8 on; ignored rows are a regime of their own.
    ("function", "regime", "magnitude", "words"),
    [
        (planted.gradient_cancels, "peak", 20.0, {"underflow", "inaccurate"}),
        (planted.ignored_gradient_unwritten, "all_ignored", 1.0, {"unwritten"}),
    ],
)
def test_a_planted_gradient_is_caught_though_its_forward_is_right(
    function: Callable[..., Tensor], regime: str, magnitude: float, words: set[str]
) -> None:
    """Forward and backward have verdicts of their own."""
    forward, backward = records_of(
        function, CE, "fp32", regime, (magnitude,), ("forward", "backward")
    )
    assert forward.verdict.word == "ok"
    assert backward.verdict.word in words
    assert backward["broken"]


def test_an_exception_condemns_only_the_magnitudes_that_raise() -> None:
    """The launch of all fails; each magnitude alone bears its own verdict."""
    found = records_of(
        planted.raises_at_large_input, NORM, "fp32", "peak", (1.0, 1e4, 10001.0, 1e6)
    )
    assert [record.verdict.word for record in found] == ["ok", "ok", "error", "error"]


def test_each_pass_answers_for_what_it_changed() -> None:
    """An input overwritten in backward is the backward's fault and not the forward's."""
    forward, backward = records_of(
        planted.overwrites_in_backward, NORM, "fp32", "normal", (1.0,), ("forward", "backward")
    )
    assert (forward.verdict.word, backward.verdict.word) == ("ok", "mutated_input")


@pytest.mark.parametrize(
    # Nothing to measure must not read as nothing wrong.
    ("dtypes", "magnitudes"),
    [((), None), (("fp16",), (1e5, 1e9)), (("fp32",), ("a",))],
)
def test_nothing_measured_is_bad_input(dtypes: tuple[str, ...], magnitudes: object) -> None:
    """No dtype, or no magnitude that the dtype holds: an error and not a pass."""
    with pytest.raises(harness.InputError):
        harness.assert_stable(
            planted.sound_forward_alone,
            "normalize",
            dtypes=dtypes,
            magnitudes=magnitudes,  # type: ignore[arg-type]
        )


def test_a_swallowed_infinity_is_found() -> None:
    """A masked target has an infinite loss; a finite answer there is `masked_nonfinite`."""
    logits = torch.tensor([[0.0, float("-inf")]])
    target = torch.tensor([1])
    truth = Expected.of(
        operation_named(CE).truth({"input": logits.double(), "target": target})["forward"]
    )
    codes, _ = judge_elements(
        Output(planted.swallows_nan(logits, target)),
        truth,
        FORMATS["fp32"],
        "forward",
        unit=FORMATS["fp32"],
        max_ulp=2.0,
        allowance=torch.zeros(1, dtype=torch.float64),
    )
    assert codes.tolist() == [harness.Verdict.MASKED_NONFINITE.precedence]


def test_sound_code_passes_every_regime_and_magnitude() -> None:
    """An independent float64 implementation breaks no claim anywhere in fp16, bf16 and fp32."""
    harness.assert_stable(
        planted.sound_cross_entropy, "cross_entropy", dtypes=("fp16", "bf16", "fp32")
    )


def test_a_result_without_a_gradient_is_judged_forward_alone() -> None:
    """A sound kernel that has no backward is cleared, one with a defect is still caught."""
    harness.assert_stable(planted.sound_forward_alone, "normalize", dtypes=[torch.bfloat16, "fp16"])
    with pytest.raises(AssertionError, match="underflow in 256 of 256"):
        harness.assert_stable(
            planted.returns_zeros, "normalize", dtypes=("fp32",), magnitudes="1:10:1"
        )


def test_assert_stable_names_the_case_and_how_to_see_it_again() -> None:
    """One line in anyone's test-suite fails with case id, verdict, meaning and a command."""
    with pytest.raises(AssertionError) as caught:
        harness.assert_stable(
            planted.unguarded_masked_block, "cross_entropy", dtypes=("fp32",), magnitudes=(1.0,)
        )
    text = str(caught.value)
    assert "cross_entropy/unguarded_masked_block/fp32/masked@1/4x64/forward: nan in 1 of 4" in text
    assert "NaN where the truth is a number" in text
    assert "harness.assert_stable(unguarded_masked_block, 'cross_entropy', dtypes=('fp32',)" in text
