"""What runs with normalised weights measure of their norms: their drift, and the norm's own time.

Drift: the largest relative deviation of an inferred norm from the exact one, looked at after every
step. Time: of the exact norms of the largest weight, as weight normalisation takes them in every
forward pass, against that of inferring them, which FastNorm does in a hook behind the optimiser's
step. The products around the norm cost the same in both.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import kernels
from harness.training.stopwatch import Clock
from kernels.weight_norm import linear

# FastNorm, and three that are looked at after every step: refreshed after so many, or never. These
# infer the norms of half-precision weights, too, which FastNorm computes unless asked.
REFRESH: dict[str, int | None] = {
    "fastnorm": 100,
    "fastnorm_10": 10,
    "fastnorm_100": 100,
    "fastnorm_never": None,
}
_ROUNDS = 7


def prepare(
    model: nn.Module, optimizer: torch.optim.Optimizer, normalization: str
) -> Callable[[], dict[str, float]] | None:
    """Let FastNorm infer its norms from the optimiser's steps; measure what a run's record holds.

    Returns:
        what gives the numbers at the end of the run; None where no weight is normalised.
    """
    layers = [each for each in model.modules() if isinstance(each, kernels.WeightNormLinear)]
    if not layers:
        return None
    if normalization not in REFRESH:
        return lambda: {"norm_seconds": exact_seconds(max(layers, key=_size))}
    watched = normalization != "fastnorm"
    measured = _Measured(layers)
    # Hooks run in the order in which they are registered.
    optimizer.register_step_post_hook(measured.begin)
    kernels.attach_fastnorm(
        optimizer, model, refresh_every=REFRESH[normalization], infer_half=watched
    )
    optimizer.register_step_post_hook(measured.end)
    if watched:
        optimizer.register_step_post_hook(measured.look)
    return lambda: measured.numbers(watched)


def exact_seconds(layer: nn.Module) -> float:
    """The exact norms of a layer's weight, the least of some rounds."""
    weight = layer.weight_v.detach()
    times = []
    for _ in range(_ROUNDS):
        clock = Clock(weight.device.type, busy=True)
        linear.exact_norms(weight)
        times.append(clock.seconds())
    return min(times)


def _size(layer: nn.Module) -> int:
    return int(layer.weight_v.numel())


class _Measured:
    """Of one run: what the hooks behind its steps see."""

    def __init__(self, layers: list[Any]) -> None:
        self._layers = layers
        self._device = layers[0].weight_v.device.type
        self._times: list[float] = []
        self._clock: Clock | None = None
        self._drift = 0.0

    def begin(self, *_: object) -> None:
        self._clock = Clock(self._device, busy=True)

    def end(self, *_: object) -> None:
        if self._clock is not None:
            self._times.append(self._clock.seconds())

    def look(self, *_: object) -> None:
        self._drift = max(self._drift, *(layer.drift() for layer in self._layers))

    def numbers(self, watched: bool) -> dict[str, float]:
        found = {"inferred": float(sum(each.norm_statistics.inferred for each in self._layers))}
        if self._times:
            found["norm_seconds"] = min(self._times)
        return found | ({"norm_drift": self._drift} if watched else {})
