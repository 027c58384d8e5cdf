"""One run as people write it: a module, torch.optim, torch.amp.GradScaler.

What lanes are held against, and the only way for models that cannot be lanes: layers that hook into
an optimiser, and somebody's own model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.training.optimizers import torch_optimizer
from harness.training.place import place_of
from harness.training.precision import Precision
from harness.training.scaler import INITIAL
from harness.training.schedules import Schedule
from harness.training.setting import Lane, Setting
from harness.training.stopwatch import Clock
from harness.training.watch import About, Notes, Step, Watch
from harness.training.workload import Measure


@dataclass(frozen=True, slots=True)
class Losses:
    """What a model made of a batch: the loss, and where known the cost's inputs and targets."""

    loss: Tensor  # a scalar
    outputs: Tensor | None = None  # (R, C)
    targets: Tensor | None = None  # (R,)


@dataclass(frozen=True, slots=True)
class Job:
    """A run to be trained by itself."""

    model: nn.Module  # in its storage dtype, on its device
    batch: Callable[[int], tuple[Tensor, ...]]  # of a step
    loss: Callable[[nn.Module, tuple[Tensor, ...]], Losses]
    prepare: Callable[[nn.Module, torch.optim.Optimizer], Measure | None] | None = None
    vectors: bool = False
    plain: bool = False  # outputs of which only the size is known


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run by itself left: the model is changed in place."""

    notes: Notes
    seconds: float  # of its steps
    measured: Mapping[str, float]


def run_alone(
    job: Job,
    setting: Setting,
    lane: Lane,
    precision: Precision,
    steps: int,
    *,
    device: str,
    dense: bool = False,
) -> Trained:
    """Train one run step by step, until its parameters are not finite or the steps are done."""
    clock = Clock(device)
    named = dict(job.model.named_parameters())
    parameters: list[Tensor] = list(named.values())
    optimizer = torch_optimizer(setting.optimizer, parameters, lane.rate)
    measure = job.prepare(job.model, optimizer) if job.prepare is not None else None
    scaler = torch.amp.GradScaler(device, init_scale=INITIAL, enabled=precision.scaled)
    schedule = Schedule(setting.schedule, steps, 1, device)
    about = About(
        tuple(named),
        tuple(each.numel() for each in parameters),
        precision.storage,
        precision.logits,
        setting.optimizer in ("adam", "adamw"),
        job.vectors,
        dense,
        job.plain,
    )
    watch = Watch(about, 1)
    with precision.products():
        for number in range(steps):
            before = _flat(parameters)
            for group in optimizer.param_groups:
                group["lr"] = lane.rate * float(schedule.factor(number)[0])
            optimizer.zero_grad(set_to_none=True)
            with precision.forward(device):
                made = job.loss(job.model, job.batch(number))
            scale = scaler.get_scale() if precision.scaled else None
            scaler.scale(made.loss).backward()
            scaler.unscale_(optimizer)
            gradient = _flat([_gradient(each) for each in parameters])
            skipped = bool(precision.scaled and not torch.isfinite(gradient).all())
            if setting.clip is not None:
                nn.utils.clip_grad_norm_(parameters, setting.clip)
            scaler.step(optimizer)
            scaler.update()
            after = _flat(parameters)
            alive = watch.see(
                Step(
                    number,
                    made.loss.detach().reshape(1),
                    made.outputs.detach()[None] if made.outputs is not None else None,
                    made.targets[None] if made.targets is not None else None,
                    before,
                    gradient,
                    after,
                    torch.tensor([scale]) if scale is not None else None,
                    torch.tensor([skipped], device=after.device) if scale is not None else None,
                ),
                [0],
            )
            schedule.see(number, made.loss.detach().reshape(1))
            if not bool(alive[0]):
                break
    seconds = clock.seconds()
    find_place(watch.notes[0], job, precision, setting)
    measured = measure() if measure is not None else {}
    return Trained(watch.notes[0], seconds, measured)


def find_place(notes: Notes, job: Job, precision: Precision, setting: Setting) -> None:
    """Say which operation of the first bad step was the first; forget the step's parameters."""
    bad = notes.first_bad
    if bad is None:
        return
    bad.place = place_of(job, bad, precision, setting.optimizer)
    bad.before = None
    # Weights that had grown step by step explain more than the operation that met them first.
    if bad.place is not None and bad.place.cause is not None and bad.cause != "divergence":
        bad.cause = bad.place.cause


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _flat(tensors: list[Tensor]) -> Tensor:  # -> (1, P)
    return torch.cat([each.detach().reshape(-1) for each in tensors])[None]
