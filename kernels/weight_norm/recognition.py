"""What an optimizer's step was: a plain SGD step of a gradient we made, or the reason why not.

Only what is positively recognised is inferred. Half precision by default is not: what rounding does
to the stored weight is of the size of the update, and of no low rank. Momentum is not: the norms
would need the product of each row's new gradient with its momentum buffer, which is of no low rank
either; to read the buffer costs what reading the weight costs. (Nesterov and dampening act through
momentum only.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .inference import Step

Group = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Observation:
    """One gradient of a layer's v, as backward returned it."""

    step: Step
    version: int  # of the weight that it was computed at
    backward: int | None  # which backward pass of autograd's it was part of
    fresh: bool  # whether the parameter had no gradient until then
    address: int
    gradient_version: int


def observe(step: Step, v: Tensor, version: int, gradient: Tensor) -> Observation:
    """Note a gradient, within the backward pass that makes it.

    The tensor itself is not kept: autograd would then have to copy it.
    """
    current = getattr(torch._C, "_current_graph_task_id", lambda: None)()
    return Observation(
        step, version, current, v.grad is None, gradient.data_ptr(), gradient._version
    )


def hyperparameters(group: Group) -> dict[str, Any]:
    """What a parameter group says, for comparison; a tensor by identity and version."""
    return {
        key: (id(value), value._version) if isinstance(value, Tensor) else value
        for key, value in group.items()
        if key != "params"
    }


def why_not_plain(optimizer: torch.optim.Optimizer, group: Group) -> str | None:
    """Why this optimizer's step of this group is not v' = (1 - lr weight_decay) v - lr gradient."""
    if type(optimizer) is not torch.optim.SGD:
        return f"optimizer {type(optimizer).__name__}"
    if group["momentum"] != 0:
        return "momentum"
    if group["differentiable"]:
        return "differentiable step"
    # A fused step under GradScaler unscales, or does nothing, inside the kernel.
    if any(getattr(optimizer, name, None) is not None for name in ("grad_scale", "found_inf")):
        return "loss scaling in the step"
    return None


def why_not_ours(v: Tensor, seen: list[Observation], version: int) -> str | None:
    """Why the gradient in v.grad is not just what one backward pass of the layer made."""
    if len(seen) != 1:
        return "gradient not observed" if not seen else "gradient of several uses"
    (only,) = seen
    if not only.fresh:
        return "gradient accumulated"
    gradient = v.grad
    assert gradient is not None
    if gradient.data_ptr() != only.address or gradient._version != only.gradient_version:
        return "gradient edited"
    if only.version != version:
        return "weight changed before the step"
    return None


def version_after(version: int, group: Group) -> int:
    """The weight's version after one step of SGD: torch's fused step moves none."""
    return version if group["fused"] else version + 1
