"""Lanes: each follows the run alone, and none hears of another."""

import math

import pytest
import torch

from harness.training.lanes import run_lanes
from harness.training.optimizers import UPDATES, new_state, torch_optimizer
from harness.training.outcome import Outcome
from harness.training.schedules import SCHEDULES
from harness.training.sequential import run_sequential
from harness.training.setting import Lane, Setting
from suites.selftest.training_toy import TOY
from suites.training.workloads import WORKLOADS

LANES = [Lane(rate, seed) for rate in (0.05, 0.5) for seed in (0, 1)]


def losses(outcome: Outcome) -> list[float | None]:
    return outcome.notes.history["loss"]


def both(setting: Setting, lanes: list[Lane]) -> list[tuple[Outcome, Outcome]]:
    """Each lane's outcome beside the others, and alone by torch.optim and GradScaler."""
    beside, _ = run_lanes(TOY, setting, lanes, 30, device="cpu", dense=True)
    alone, _ = run_sequential(TOY, setting, lanes, 30, device="cpu", dense=True)
    return list(zip(beside, alone, strict=True))


def assert_same(setting: Setting, lanes: list[Lane], tolerance: float) -> None:
    for beside, alone in both(setting, lanes):
        assert len(losses(beside)) == 30
        assert losses(beside) == pytest.approx(losses(alone), rel=tolerance, abs=tolerance)
        assert beside.final_loss == pytest.approx(alone.final_loss, rel=tolerance, abs=tolerance)


# Adam differs from AdamW in its weight decay alone: nightly.
@pytest.mark.parametrize(
    "optimizer",
    [pytest.param(name, marks=[pytest.mark.full] * (name == "adam")) for name in UPDATES],
)
def test_a_lane_is_the_run_alone(optimizer: str) -> None:
    """In fp64, 30 steps agree with torch.optim's to 1e-10: what the order of sums explains."""
    rates = [Lane(each.rate / 50, each.seed) for each in LANES] if "adam" in optimizer else LANES
    # Losses in a history are rounded to eight digits.
    assert_same(Setting("toy", "torch", "fp64", optimizer=optimizer), rates, 1e-7)
    for beside, alone in both(Setting("toy", "torch", "fp64", optimizer=optimizer), rates[:1]):
        assert beside.final_loss == pytest.approx(alone.final_loss, rel=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules(schedule: str) -> None:
    """A schedule's factor reaches lanes and runs alone at the same steps."""
    assert_same(Setting("toy", "torch", "fp64", schedule=schedule), LANES, 1e-7)


def test_clipping() -> None:
    """A limit that bites clips each lane by its own norm, as clip_grad_norm_ does."""
    clipped = Setting("toy", "torch", "fp64", clip=0.1)
    assert_same(clipped, LANES, 1e-7)
    free = run_lanes(TOY, Setting("toy", "torch", "fp64"), LANES, 30, device="cpu")[0]
    tight = run_lanes(TOY, clipped, LANES, 30, device="cpu")[0]
    assert tight[2].final_loss != pytest.approx(free[2].final_loss, rel=1e-3)


@pytest.mark.parametrize(
    # A few units of roundoff a step: 2**-24 of fp32, 2**-11 and 2**-8 of the half formats.
    ("precision", "tolerance"),
    [
        ("fp32", 1e-5),
        ("fp16", 1e-2),
        ("bf16", 8e-2),
        ("autocast_fp16", 1e-2),
        ("autocast_bf16", 8e-2),
    ],
)
def test_precisions(precision: str, tolerance: float) -> None:
    """In every precision, a lane follows torch's own loop within that format's roundings."""
    assert_same(Setting("toy", "torch", precision), LANES, tolerance)


def test_scaling_skips_the_same_steps() -> None:
    """With a loss that overflows, a lane skips and halves its scale where GradScaler does."""
    setting = Setting("toy", "naive", "autocast_fp16")
    ((beside, alone),) = both(setting, [Lane(300.0, 0)])
    assert beside.notes.skipped == alone.notes.skipped > 0
    assert beside.notes.history["loss_scale"] == alone.notes.history["loss_scale"]


def test_a_lane_that_goes_nan_touches_no_other() -> None:
    """Its neighbours' trajectories are, digit by digit, those of a batch without it."""
    setting = Setting("toy", "naive", "fp32")
    good, bad = [Lane(0.1, 0), Lane(0.2, 1)], Lane(1e6, 2)
    without, _ = run_lanes(TOY, setting, good, 30, device="cpu", dense=True)
    mixed, _ = run_lanes(TOY, setting, [good[0], bad, good[1]], 30, device="cpu", dense=True)
    assert mixed[1].notes.first_bad is not None
    assert mixed[1].final_loss is None
    for one, other in zip(without, (mixed[0], mixed[2]), strict=True):
        assert losses(one) == pytest.approx(losses(other), rel=1e-6)
        assert all(each is not None and math.isfinite(each) for each in losses(other))


def test_the_first_bad_step_says_where_and_why() -> None:
    """At a rate beyond all reason exp overflows in the forward pass, after the first update."""
    (found,), _ = run_lanes(
        TOY, Setting("toy", "naive", "fp16"), [Lane(1000.0, 0)], 30, device="cpu"
    )
    bad = found.notes.first_bad
    assert bad is not None
    assert (bad.step, bad.phase, bad.quantity, bad.cause) == (1, "forward", "loss", "overflow")
    assert found.notes.history["step"][-1] == 1
    assert found.notes.history["largest_logit"][-1] > 11.09  # ln(65504)


def test_adam_in_half_precision_loses_its_epsilon() -> None:
    """1e-8 is 0 in fp16: a zero gradient makes 0 / 0, in a lane as in torch.optim.Adam."""
    start = torch.ones(1, 2, dtype=torch.half)
    gradient = torch.tensor([[0.0, 1.0]], dtype=torch.half)
    mine = UPDATES["adam"](start, gradient, torch.tensor([[0.1]]), new_state("adam", start))
    parameter = torch.nn.Parameter(start.clone())
    parameter.grad = gradient.clone()
    torch_optimizer("adam", [parameter], 0.1).step()
    assert mine.isnan().tolist() == parameter.isnan().tolist() == [[True, False]]
    assert mine[0, 1].item() == pytest.approx(parameter[0, 1].item(), rel=2**-10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="times a GPU")
def test_a_sweep_of_256_lanes_costs_a_few_runs() -> None:
    """On a GPU the perceptron's steps for 256 lanes take at most five times those of one run."""
    (workload,) = (each for each in WORKLOADS if each.name == "digits_relu")
    setting = Setting("digits_relu", "torch", "fp32")
    lanes = [Lane(0.001 * 1.02**place, place % 8) for place in range(256)]

    def least(some: list[Lane], steps: int) -> float:
        ran = (run_lanes(workload, setting, some, steps, device="cuda")[1] for _ in range(3))
        return min(each.training for each in ran)

    least(lanes, 3)
    assert least(lanes, 200) <= 5 * least(lanes[:1], 200)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "autocast_fp16", "autocast_bf16"])
def test_a_lane_is_the_run_alone_on_a_gpu(precision: str) -> None:
    """There, too, in every precision, within that format's roundings."""
    tolerance = {"fp32": 1e-5, "autocast_bf16": 8e-2}.get(precision, 1e-2)
    setting = Setting("toy", "torch", precision)
    beside, _ = run_lanes(TOY, setting, LANES, 30, device="cuda", dense=True)
    alone, _ = run_sequential(TOY, setting, LANES, 30, device="cuda", dense=True)
    for one, other in zip(beside, alone, strict=True):
        assert losses(one) == pytest.approx(losses(other), rel=tolerance, abs=tolerance)
