"""Learning-rate schedules as a factor a lane; a lane's factor depends on that lane alone."""

import math

import torch
from torch import Tensor

SCHEDULES = ("constant", "step", "plateau", "warmup_cosine")
_PARTS = 5  # `step`: the run is cut into so many equal parts
_DECAY = 0.3  # from part to part, and at a plateau
_WARMUP = 0.1  # share of the run
_PATIENCE = 20  # `plateau`: checks without an improvement, each of the mean loss of ten steps
_EVERY = 10


class Schedule:
    """The factor on every lane's learning rate.

    constant: 1. step: times 0.3 after each fifth of the run. plateau: times 0.3 when the mean of
    ten losses has not fallen by 1e-4 of itself for 20 steps. warmup_cosine: linear over the first
    tenth, then half a cosine to 0.
    """

    def __init__(self, name: str, steps: int, lanes: int, device: str) -> None:
        self._name = name
        self._steps = steps
        self._factor = torch.ones(lanes, dtype=torch.float64, device=device)
        self._best = torch.full((lanes,), math.inf, dtype=torch.float64, device=device)
        self._sum = torch.zeros(lanes, dtype=torch.float64, device=device)
        self._waited = torch.zeros(lanes, dtype=torch.int64, device=device)

    def factor(self, step: int) -> Tensor:  # (lanes,)
        """What step number `step`, counted from 0, multiplies the learning rate with."""
        if self._name == "step":
            return torch.full_like(self._factor, _DECAY ** (step * _PARTS // self._steps))
        if self._name == "warmup_cosine":
            warm = max(1, round(_WARMUP * self._steps))
            if step < warm:
                return torch.full_like(self._factor, (step + 1) / warm)
            done = (step - warm) / max(1, self._steps - warm)
            return torch.full_like(self._factor, 0.5 * (1 + math.cos(math.pi * done)))
        return self._factor

    def see(self, step: int, losses: Tensor) -> None:
        """Take note of a step's losses (lanes,)."""
        if self._name != "plateau":
            return
        self._sum += losses.double()
        if (step + 1) % _EVERY:
            return
        mean = self._sum / _EVERY
        self._sum = torch.zeros_like(self._sum)
        better = mean < self._best * (1 - 1e-4)
        self._best = torch.where(better, mean, self._best)
        self._waited = torch.where(better, 0, self._waited + _EVERY)
        tired = self._waited >= _PATIENCE
        self._factor = torch.where(tired, self._factor * _DECAY, self._factor)
        self._waited = torch.where(tired, 0, self._waited)

    def keep(self, lanes: Tensor) -> None:
        """Forget all lanes but these, given by index."""
        self._factor, self._best = self._factor[lanes], self._best[lanes]
        self._sum, self._waited = self._sum[lanes], self._waited[lanes]
