"""The second run of a step that went bad under `harness.watch`: taped, and then undone."""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from harness.diagnosis.deepen import deepen
from harness.diagnosis.finding import Finding
from harness.diagnosis.history import History
from harness.diagnosis.numbers import is_finite
from harness.diagnosis.optimizer_replay import weights_of
from harness.diagnosis.session import Session


class Abort(BaseException):
    """Ends the second run of a step where its optimiser would move."""


@dataclass(frozen=True, slots=True)
class Failed:
    """What is known of the step."""

    model: torch.nn.Module
    optimizer: Any  # that is about to move, or None
    number: int
    history: History
    base: str  # directory that locations are relative to
    save: str | None  # directory for a reproduction
    random_state: Any  # before the step, as `random_state` gives it
    redo: Callable[[], Any] | None  # runs the whole step
    inputs: tuple[Any, dict[str, Any]] | None  # else the model's own
    output_gradient: torch.Tensor | None  # and the gradient that came into its output


def find(failed: Failed) -> Finding | None:
    """The root, or None where the second run is finite. The training is left as it was."""
    session = Session(base=failed.base, deepen=lambda *known: deepen(*known, save=failed.save))
    session.history = failed.history
    session.strict = True
    session.roots = [failed.model]
    if failed.optimizer is not None:
        session.optimizer = failed.optimizer
        session.optimizers = {id(failed.optimizer): failed.optimizer}
        session.attempts = {id(failed.optimizer): failed.number}
    if _spoilt(failed):
        # The weights came in bad: the optimiser's last step made them so.
        session.attempts = {id(failed.optimizer): failed.number - 1}
        session.moving.accuse(failed.optimizer)
    else:
        _run(failed, session)
    return next((each for each in session.findings if each.kind == "nonfinite"), None)


def _run(failed: Failed, session: Session) -> None:
    parameters = list(failed.model.parameters())
    kept = [None if each.grad is None else each.grad.detach().clone() for each in parameters]
    for each in parameters:
        each.grad = None
    now = random_state()
    session.start()
    try:
        with torch.enable_grad():
            restore(failed.random_state)
            session.random_state = torch.get_rng_state()
            with contextlib.suppress(Abort), _uncompiled():
                if failed.redo is not None:
                    failed.redo()
                elif failed.inputs is not None:
                    _again(failed)
        session.finish(failed=True)
    finally:
        session.stop()
        restore(now)
        for parameter, gradient in zip(parameters, kept, strict=True):
            parameter.grad = gradient


def _spoilt(failed: Failed) -> bool:
    """Whether the optimiser's weights are not finite, though they were when the training began."""
    if failed.optimizer is None or not failed.number:
        return False
    return any(not is_finite(each) for each in weights_of(failed.optimizer))


def _again(failed: Failed) -> None:
    """The model's own forward and backward pass."""
    assert failed.inputs is not None
    args, kwargs = failed.inputs
    output = failed.model(*args, **kwargs)
    if isinstance(output, torch.Tensor) and output.requires_grad:
        gradient = failed.output_gradient
        if gradient is None or not is_finite(gradient):
            gradient = torch.ones_like(output)
        torch.autograd.backward(output, gradient)


def _uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Compiled functions as they are written, where the compiler is in use at all."""
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    eager: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return eager


def random_state() -> Any:
    """Of the generators of the CPU and of all GPUs in use."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return torch.get_rng_state(), cuda


def restore(state: Any) -> None:
    """Set the generators."""
    if state is not None:
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state_all(state[1])
