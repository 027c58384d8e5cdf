"""Is the truth true? Float64 formulas and certified ball arithmetic must tell the same story."""

import flint
import pytest
import torch

from harness.environment import choose_device
from harness.formats import FORMATS
from harness.inputs import build_batch
from harness.operation import Operation, Regime
from harness.truth import expected_of

choose_device(None)

from suites.catalog import OPERATIONS  # noqa: E402 - after Triton's interpreter was chosen

CASES = [(operation, regime) for operation in OPERATIONS for regime in operation.regimes]


@pytest.mark.parametrize(
    ("operation", "regime"), CASES, ids=[f"{o.name}-{r.name}" for o, r in CASES]
)
def test_float64_and_ball_arithmetic_agree(operation: Operation, regime: Regime) -> None:
    """On fp32 inputs the float64 truth is within 2**-46 of the balls, relative to the terms.

    2**-46 is a hundred roundings of float64 and still 2**-22 units in the last place of fp32, so
    the float64 truth decides every verdict on fp32, bf16 and fp16 inputs.
    """
    fmt = FORMATS["fp32"]
    low, high = regime.magnitudes(fmt)
    # Subnormal, ordinary, where exponentials saturate, and near the top of the range.
    magnitudes = [m for m in (1e-40, 1e-3, 1.0, 30.0, 1e4, 1e38) if low <= m <= high] or [0.0]
    batch = build_batch(operation, regime, fmt, magnitudes, seed=3)
    plain = expected_of(operation, fmt, batch)
    certified = expected_of(operation, FORMATS["fp64"], batch)  # exact inputs, ball arithmetic
    for name in ("forward", "backward"):
        one, other = plain[name].high, certified[name].high
        error = (one - other).abs()
        scale = other.abs() + plain[name].slack
        # Terms below the smallest float64 normal are not felt by any narrower format.
        close = error <= 2.0**-46 * scale + 1e-300
        assert bool((close | (one == other) | (one.isnan() & other.isnan())).all())


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_certified_truth_is_exact_to_a_double_and_its_remainder(operation: Operation) -> None:
    """high + low fixes the truth to 2**-70: the same balls at 4096 bits say no different."""
    fmt = FORMATS["fp64"]
    batch = build_batch(operation, operation.regime("normal"), fmt, [1e-300, 1.0, 20.0], seed=5)
    expected = expected_of(operation, fmt, batch)
    before, flint.ctx.prec = flint.ctx.prec, 4096
    try:
        for row in range(batch.roles["input"].shape[0]):
            inputs = {
                role: (value if role in batch.shared else value[row]).tolist()
                for role, value in batch.widened().items()
            }
            for name, balls in operation.certified(inputs, **batch.options).items():
                highs = expected[name].high[row].reshape(-1).tolist()
                lows = expected[name].low[row].reshape(-1).tolist()
                slack = expected[name].slack[row].reshape(-1).tolist()
                for ball, high, low, terms in zip(balls, highs, lows, slack, strict=True):
                    rest = abs((ball - high) - low)
                    assert rest <= 2.0**-70 * (abs(high) + terms) + 2.0**-1074
    finally:
        flint.ctx.prec = before


def test_truth_beyond_a_double_is_marked_and_not_infinite_by_definition() -> None:
    """A loss of 3.4e308 overflows float64: finite in truth, representable in no format here."""
    operation = next(o for o in OPERATIONS if o.name == "cross_entropy")
    fmt = FORMATS["fp64"]
    batch = build_batch(operation, operation.regime("normal"), fmt, [fmt.largest], seed=0)
    forward = expected_of(operation, fmt, batch)["forward"]
    spread = (
        batch.roles["input"].amax(1).double() / 2
        - batch.roles["input"].gather(1, batch.roles["target"][:, None]).squeeze(1) / 2
    )
    beyond = spread > fmt.largest / 2
    assert bool(beyond.any())
    assert torch.equal(forward.overflows, beyond)
