"""What a program is, and the loop that most of them share."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Program:
    """A defect and its repair in one function."""

    name: str
    run: Callable[[bool], None]  # True: broken
    ops: tuple[str, ...]  # the operation to change; more than one where a change at either cures it
    causes: tuple[str, ...]  # right answers; more than one where two words say the same
    kind: str = "nonfinite"
    lines: tuple[int, ...] = ()  # of a script: where the finding must point


def program(
    ops: str, causes: str, kind: str = "nonfinite"
) -> Callable[[Callable[[bool], None]], Program]:
    """Make a program of a function; words are separated by spaces."""

    def made(run: Callable[[bool], None]) -> Program:
        return Program(run.__name__, run, tuple(ops.split()), tuple(causes.split()), kind)

    return made


def fit(
    model: nn.Module,
    cost: Callable[[Tensor], Tensor],  # of the model's output
    x: Tensor,
    *,
    steps: int = 4,
    lr: float = 0.01,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """A plain training loop."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        cost(model(x)).backward()
        optimizer.step()


def linear(
    inputs: int, outputs: int, spread: float | None = None, dtype: torch.dtype = torch.float32
) -> nn.Linear:
    """A layer with weights of the given spread, the same in every run."""
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs)
    if spread is not None:
        nn.init.normal_(layer.weight, std=spread)
        nn.init.zeros_(layer.bias)
    return layer.to(dtype)


def normal(*shape: int, seed: int = 1) -> Tensor:
    """Standard normal numbers, the same in every run."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
