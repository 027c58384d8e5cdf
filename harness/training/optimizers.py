"""Optimisers over lanes: torch.optim's formulas on parameters (lanes, P), a learning rate a lane.

Each returns the new parameters and replaces what it keeps in `state`. Operations round to the
parameters' dtype where torch's single-tensor loops do, and compute in fp32 (fp64 for fp64) between.
"""

from collections.abc import Callable

import torch
from torch import Tensor

State = dict[str, Tensor]
# parameters (l, P), gradients (l, P), rates (l, 1) in fp32 or fp64, state
Update = Callable[[Tensor, Tensor, Tensor, State], Tensor]


def sgd(p: Tensor, g: Tensor, rate: Tensor, state: State) -> Tensor:
    """p - lr g."""
    return (p - rate * g).to(p.dtype)


def momentum(p: Tensor, g: Tensor, rate: Tensor, state: State) -> Tensor:
    """torch.optim.SGD(momentum=0.9): buffer = 0.9 buffer + g; p - lr buffer."""
    state["momentum"] = state["momentum"] * 0.9 + g
    return (p - rate * state["momentum"]).to(p.dtype)


def adam(p: Tensor, g: Tensor, rate: Tensor, state: State) -> Tensor:
    """torch.optim.Adam with its defaults: betas 0.9 and 0.999, eps 1e-8, which is 0 in fp16."""
    wide = rate.dtype
    state["count"] = count = state["count"] + 1
    state["first"] = first = torch.lerp(state["first"], g, 0.1)
    state["second"] = second = (state["second"] * 0.999).addcmul(g, g, value=1 - 0.999)
    root = (1 - 0.999**count).sqrt().to(wide)
    size = (rate.double() / (1 - 0.9**count)).to(wide)
    denominator = (second.sqrt() / root).to(p.dtype) + 1e-8
    return (p - size * (first.to(wide) / denominator.to(wide))).to(p.dtype)


def adamw(p: Tensor, g: Tensor, rate: Tensor, state: State) -> Tensor:
    """torch.optim.AdamW with its default weight decay of 0.01, applied first."""
    return adam((p * (1 - rate * 0.01)).to(p.dtype), g, rate, state)


UPDATES: dict[str, Update] = {"sgd": sgd, "momentum": momentum, "adam": adam, "adamw": adamw}


def new_state(name: str, p: Tensor) -> State:
    """What an optimiser keeps, before its first step."""
    if name == "sgd":
        return {}
    if name == "momentum":
        return {"momentum": torch.zeros_like(p)}
    count = torch.zeros(len(p), 1, dtype=torch.float64, device=p.device)
    return {"count": count, "first": torch.zeros_like(p), "second": torch.zeros_like(p)}


def torch_optimizer(name: str, parameters: list[Tensor], rate: float) -> torch.optim.Optimizer:
    """The same as one of torch.optim's, for a run alone."""
    if name == "adam":
        return torch.optim.Adam(parameters, lr=rate, foreach=False)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, foreach=False)
    weight = 0.9 if name == "momentum" else 0.0
    return torch.optim.SGD(parameters, lr=rate, momentum=weight, foreach=False)
