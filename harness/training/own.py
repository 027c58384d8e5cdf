"""Somebody's own model: what `make` returns, and its runs.

`stability run training --workload mypkg.train:make` imports mypkg.train and calls make(seed) for
every run. It returns a `Training`.
"""

import contextlib
import copy
import importlib
import inspect
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.errors import InputError
from harness.training.alone import Job, Losses, run_alone
from harness.training.declare import Slice
from harness.training.memory import PeakMemory
from harness.training.outcome import Conditions, Outcome
from harness.training.precision import PRECISIONS
from harness.training.setting import Lane, Setting

_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_SEEDS = 2
_PRECISIONS = ("fp32", "bf16", "autocast_bf16")


@dataclass(frozen=True, slots=True)
class Training:
    """What make(seed) returns: everything drawn from that seed.

    Args:
        model: a torch.nn.Module with parameters, on the CPU in fp32. The run casts and moves it.
        batch: the step's number, from 0, to a tuple of tensors; floating ones are cast to the
            precision of the run.
        loss: (model, *batch) to a scalar tensor.
        steps: how many, at most.
        evaluation: a batch by which the loss before and after is judged, in fp64. None: that of
            step 0.
        optimizer: sgd, momentum, adam or adamw.
    """

    model: nn.Module
    batch: Callable[[int], tuple[Tensor, ...]]
    loss: Callable[..., Tensor]
    steps: int = 200
    evaluation: tuple[Tensor, ...] | None = None
    optimizer: str = "sgd"


@dataclass(frozen=True, slots=True)
class OwnWorkload:
    """A `make` function by its name; `steps` and `optimizer` are what make(0) asked for."""

    name: str
    make: Callable[[int], Training]
    steps: int
    optimizer: str
    operation: str = "loss"


def is_own(name: str) -> bool:
    """Whether a --workload names a function rather than a declared workload."""
    return ":" in name


def own_workload(name: str) -> OwnWorkload:
    """Import module:function and try it once, forward and backward.

    Raises:
        InputError: if it cannot be imported or called, returns no `Training`, the model has no
            parameters, or the loss raises, is no scalar or does not depend on the parameters.
    """
    module_name, _, function = name.partition(":")
    wanted = "--workload takes module:function, as in mypkg.train:make"
    if not module_name or not function or module_name.startswith("."):
        raise InputError(f"malformed workload {name!r}; {wanted}")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        make = getattr(importlib.import_module(module_name), function)
    except Exception as error:  # the module's own code, which may raise anything
        raise InputError(
            f"cannot import the workload {name!r}: {type(error).__name__}: {error}; {wanted}"
        ) from error
    if not callable(make):
        raise InputError(f"the workload {name!r} is a {type(make).__name__}; {wanted}")
    made = _made(name, make, 0)
    _tried(name, made)
    return OwnWorkload(name, make, made.steps, made.optimizer)


def own_slices(own: OwnWorkload, precisions: tuple[str, ...]) -> list[Slice]:
    """The curves of an own model: the default precisions, or those that a filter names."""
    names = list(PRECISIONS) if precisions else list(_PRECISIONS)
    settings = tuple(Setting(own.name, "own", each, optimizer=own.optimizer) for each in names)
    return [Slice("own", settings, _RATES, _SEEDS, own.steps, level="quick")]


def run_own(
    own: OwnWorkload, setting: Setting, lanes: Sequence[Lane], steps: int, *, device: str
) -> tuple[list[Outcome], Conditions]:
    """Train every lane alone."""
    started = time.perf_counter()
    memory = PeakMemory(device)
    precision = PRECISIONS[setting.precision]
    outcomes, training = [], 0.0
    for lane in lanes:
        made = _made(own.name, own.make, lane.seed)
        model = made.model.to(device, precision.storage)
        judge = made.evaluation if made.evaluation is not None else made.batch(0)
        initial = _evaluated(made, model, judge, device)
        job = _job(own.name, made, model, device, precision.storage)
        trained = run_alone(job, setting, lane, precision, steps, device=device)
        training += trained.seconds
        final = _evaluated(made, model, judge, device)
        outcomes.append(Outcome(lane, trained.notes, initial, final, None))
    seconds = time.perf_counter() - started
    count = sum(each.notes.steps for each in outcomes)
    return outcomes, Conditions(
        "alone", len(lanes), seconds, training, count, max(1, steps), memory.bytes()
    )


def _job(name: str, made: Training, model: nn.Module, device: str, dtype: torch.dtype) -> Job:
    """What the model returns last in a step is taken for the cost's input, if it is a tensor."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.dim():
            seen[:] = [output.detach().reshape(-1, output.shape[-1])]

    def batch(number: int) -> tuple[Tensor, ...]:
        try:
            return _cast(made.batch(number), device, dtype)
        except Exception as error:
            raise InputError(
                f"the workload {name!r}: batch({number}) raised {type(error).__name__}: {error}"
            ) from error

    def loss(module: nn.Module, given: tuple[Tensor, ...]) -> Losses:
        seen.clear()
        handle = module.register_forward_hook(keep)
        try:
            return Losses(_scalar(name, made, module, given), seen[0] if seen else None)
        finally:
            handle.remove()

    return Job(model, batch, loss, plain=True)


def _made(name: str, make: Callable[[int], Training], seed: int) -> Training:
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = make(seed)
    except Exception as error:
        parameters = ""
        with contextlib.suppress(TypeError, ValueError):  # a builtin may not tell
            parameters = (
                f"; it was called as make(seed), its signature is {inspect.signature(make)}"
            )
        raise InputError(
            f"the workload {name!r} raised {type(error).__name__}: {error}{parameters}"
        ) from error
    if not isinstance(made, Training):
        raise InputError(
            f"the workload {name!r} returned {type(made).__name__};"
            " it must return a harness.training.own.Training"
        )
    if not isinstance(made.model, nn.Module):
        raise InputError(
            f"the workload {name!r}: model is a {type(made.model).__name__}, not a torch.nn.Module"
        )
    if not any(each.requires_grad for each in made.model.parameters()):
        raise InputError(
            f"the workload {name!r}: its model has no parameters to train;"
            " give a torch.nn.Module whose parameters() require gradients"
        )
    return made


def _tried(name: str, made: Training) -> None:
    model = copy.deepcopy(made.model)
    try:
        batch = made.batch(0)
    except Exception as error:
        raise InputError(
            f"the workload {name!r}: batch(0) raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(batch, tuple) or not all(isinstance(each, Tensor) for each in batch):
        raise InputError(f"the workload {name!r}: batch(0) must be a tuple of tensors")
    loss = _scalar(name, made, model, batch)
    if not loss.requires_grad:
        raise InputError(
            f"the workload {name!r}: the loss does not depend on the model's parameters"
        )


def _scalar(name: str, made: Training, model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    try:
        loss = made.loss(model, *batch)
    except Exception as error:
        shapes = ", ".join(str(tuple(each.shape)) for each in batch)
        raise InputError(
            f"the workload {name!r}: loss(model, *batch) raised {type(error).__name__}: {error}"
            f" on a batch of shapes {shapes}"
        ) from error
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
        told = (
            f"shape {tuple(loss.shape)}, {loss.dtype}"
            if isinstance(loss, Tensor)
            else type(loss).__name__
        )
        raise InputError(
            f"the workload {name!r}: loss(model, *batch) must be a floating scalar tensor,"
            f" not {told}"
        )
    return loss.reshape(())


def _cast(batch: tuple[Tensor, ...], device: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    return tuple(
        each.to(device, dtype) if each.is_floating_point() else each.to(device) for each in batch
    )


def _evaluated(
    made: Training, model: nn.Module, batch: tuple[Tensor, ...], device: str
) -> float | None:
    """The model's own loss on a copy in fp64."""
    wide = copy.deepcopy(model).double()
    with torch.no_grad():
        loss = float(made.loss(wide, *_cast(batch, device, torch.float64)))
    return loss if math.isfinite(loss) else None
