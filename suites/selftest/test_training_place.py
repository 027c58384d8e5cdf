"""Where a run went bad: operation, module and line of its bad step, by running that again."""

import mmap

import pytest
import torch
from torch import Tensor, nn

from harness.training.alone import Job, Losses, run_alone
from harness.training.lanes import run_lanes
from harness.training.memory import PeakMemory
from harness.training.outcome import training_record
from harness.training.precision import PRECISIONS
from harness.training.sequential import run_sequential
from harness.training.setting import Lane, Setting
from harness.training.watch import FirstBad
from suites.selftest.training_toy import TOY


class Root(nn.Module):
    """The square root of a weight: its slope is infinite once the weight is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 4.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sqrt(self.weight)


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def trained(model: nn.Module, rate: float) -> FirstBad | None:
    """Plain SGD on the sum of the outputs for inputs of 1."""

    def loss(module: nn.Module, batch: tuple[Tensor, ...]) -> Losses:
        return Losses(module(*batch).sum())

    job = Job(model, lambda step: (torch.ones(2),), loss)
    found = run_alone(job, Setting("own"), Lane(rate, 0), PRECISIONS["fp32"], 9, device="cpu")
    return found.notes.first_bad


@pytest.mark.parametrize("engine", [run_lanes, run_sequential])
def test_the_cost_is_named_with_its_line(engine: object) -> None:
    """exp of the toy's naive cost overflows: outside of the model, in the toy's own file."""
    setting = Setting("toy", "naive", "fp16")
    outcomes, conditions = engine(TOY, setting, [Lane(1000.0, 0)], 30, device="cpu")  # type: ignore[operator]
    record = training_record(
        setting, "cross_entropy", 30, outcomes[0], conditions, roles=(), refined=False
    )
    assert (record["phase"], record["module"], record["op"]) == ("forward", "cost", "aten.exp")
    assert record["cause"] == "overflow"
    assert record["location"].startswith("training_toy.py:")


def test_a_module_is_named() -> None:
    """At a rate of 2 the first update takes the weight from 1 to 0, where the root has no slope."""
    bad = trained(nn.Sequential(nn.Identity(), Root()), 2.0)
    assert bad is not None
    assert bad.place is not None
    assert (bad.step, bad.phase, bad.place.op, bad.place.module) == (
        1,
        "backward",
        "aten.sqrt",
        "1",
    )
    assert bad.cause == "singular_gradient"


def test_the_optimiser_is_named() -> None:
    """A gradient of 2 times the largest rate: the parameter is the first not to be finite."""
    bad = trained(nn.Sequential(nn.Linear(2, 1), Twice()), 3e38)
    assert bad is not None
    assert bad.place is not None
    assert (bad.phase, bad.place.op, bad.place.module) == ("optimizer", "sgd.step", "0")


def test_a_run_that_stays_finite_has_no_place() -> None:
    assert trained(nn.Sequential(nn.Linear(2, 1)), 1e-3) is None


def test_no_step_is_kept_after_its_place_is_known() -> None:
    """The parameters of a bad step are forgotten, whatever their size."""
    outcomes, _ = run_lanes(
        TOY, Setting("toy", "naive", "fp16"), [Lane(1e3, 0), Lane(0.1, 0)], 9, device="cpu"
    )
    assert outcomes[0].notes.first_bad is not None
    assert outcomes[0].notes.first_bad.before is None
    assert outcomes[1].notes.first_bad is None


def test_memory_begins_anew() -> None:
    """64 MiB that are written to and freed again count, in this group of runs and no later one.

    Fresh pages from the kernel: what the allocator has kept of earlier tests raises no peak.
    """
    before = PeakMemory("cpu").bytes()
    memory = PeakMemory("cpu")
    with mmap.mmap(-1, 64 << 20) as block:
        block.write(b"x" * len(block))
    assert memory.bytes() >= before + (48 << 20)
    assert PeakMemory("cpu").bytes() < before + (48 << 20)
