"""Where a run went bad: its bad step once more, alone, from the parameters it began with.

`harness.watch` finds the first operation whose output is not finite while its inputs are. A run as
a lane and the same run alone may differ in the last bit; where the step alone is finite, nothing is
said. Repairs and reports are `stability diagnose`'s, not a sweep's.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.diagnosis.finding import Finding
from harness.diagnosis.watch import watch
from harness.training.precision import Precision

if TYPE_CHECKING:
    from harness.training.alone import Job
    from harness.training.watch import FirstBad

# An operation outside of every module of the model, which is the cost.
COST = "cost"


@dataclass(frozen=True, slots=True)
class Place:
    """The first operation of a step whose output is not finite while its inputs are.

    `op` is torch's name (`aten.log`); in the backward pass that of the forward operation whose
    gradient it is, in the optimiser the optimiser's. `module` is the model's name for it, or
    "cost" outside the model; `location` the line, where it is known.
    """

    op: str
    module: str
    location: str | None = None
    cause: str | None = None  # as the numbers of that operation tell


def place_of(job: "Job", bad: "FirstBad", precision: Precision, optimizer: str) -> Place | None:
    """Run the step of `bad` again on a copy of the job's model; None where it is finite alone."""
    if bad.phase == "optimizer":
        owner = bad.quantity.removeprefix("parameter ").rpartition(".")[0]
        return Place(f"{optimizer}.step", owner or "model")
    model = copy.deepcopy(job.model)
    assert bad.before is not None
    _fill(model, bad.before)
    found: list[Finding] = []
    mover = torch.optim.SGD(model.parameters(), lr=0.0)  # its step is what ends the second run
    with torch.enable_grad(), watch(model, mover, on_finding=found.append) as watching:
        watching.steps = bad.step  # a first step would be blamed on the initialisation
        watching.step(_step, job, model, mover, precision, bad)
    if not found or found[0].op in _UNSEEN:
        return None
    first = found[0]
    # The repetition knows no earlier step: after an update the weights are no longer the initial
    # ones.
    late = first.cause == "initialization" and bad.step > 0
    cause = None if late or first.cause == "unknown" else first.cause
    return Place(first.op, first.module or COST, _line(first.location), cause)


# What the watch says where it saw no operation.
_UNSEEN = ("unknown", "loss")


def _line(location: str | None) -> str | None:
    """A line of this project or of the working directory without what lies above it."""
    if location is None or not Path(location).is_absolute():
        return location
    for root in (Path(__file__).resolve().parents[2], Path.cwd()):
        if Path(location).is_relative_to(root):
            return Path(location).relative_to(root).as_posix()
    return Path(location).name


def _step(
    job: "Job",
    model: nn.Module,
    mover: torch.optim.Optimizer,
    precision: Precision,
    bad: "FirstBad",
) -> None:
    mover.zero_grad(set_to_none=True)
    assert bad.before is not None
    with precision.forward(bad.before.device.type):
        loss = job.loss(model, job.batch(bad.step)).loss
    loss.backward()
    mover.step()


def _fill(model: nn.Module, flat: Tensor) -> None:  # (P,)
    """The parameters of a step, in place, so that what the model holds beside them stays."""
    with torch.no_grad():
        for parameter in model.parameters():
            part, flat = flat[: parameter.numel()], flat[parameter.numel() :]
            parameter.copy_(part.view_as(parameter))
