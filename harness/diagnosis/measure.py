"""A step's numbers before its optimiser moves, and the gradients that are known to be bad."""

from typing import TYPE_CHECKING, Any

import torch

from harness.diagnosis.numbers import is_finite

if TYPE_CHECKING:
    from harness.diagnosis.session import Session


def measure(session: "Session", optimizer: Any) -> None:
    """Add the step to the history; without an optimiser, by the losses of its backward passes."""
    with session.quiet():
        if optimizer is not None:
            parameters = [each for group in optimizer.param_groups for each in group["params"]]
        else:
            parameters = _leaves(session.losses)
        output = session.model_output
        watched = {"output": output} if isinstance(output, torch.Tensor) else {}
        if session.model_inputs:
            watched["input"] = session.model_inputs[0]
        settings = {}
        if optimizer is not None:
            settings["rate"] = float(optimizer.param_groups[0].get("lr", 0.0))
        if session.scaling.scale is not None:
            settings["scale"] = session.scaling.scale
        losses = list(session.scaling.unscaled.values()) or session.losses[:8]
        row = session.history.add(session.step, losses, parameters, watched, settings)
        session.silent.measured(session, row, parameters)
    session.losses = []
    session.scaling.unscaled = {}


def marked_gradients(session: "Session", roots: list[torch.Tensor]) -> list[torch.Tensor]:
    """Gradients that the tape's marks say are not finite, and are not."""
    marks = session.flow.marks
    return [
        each.grad
        for each in session.parameters() or _leaves(roots)
        if each.grad is not None and marks.of(each.grad) and not is_finite(each.grad)
    ]


def _leaves(roots: list[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors whose `.grad` a backward pass from these roots fills."""
    found: list[torch.Tensor] = []
    seen: set[Any] = set()
    todo = [each.grad_fn for each in roots if each.grad_fn is not None]
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, torch.Tensor):
            found.append(variable)
        todo += [following for following, _ in node.next_functions if following is not None]
    return found
