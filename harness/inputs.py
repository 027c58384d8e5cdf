"""Station one: the inputs of many magnitudes, drawn once and stacked as rows of one launch."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.formats import Format
from harness.operation import Draws, Operation, Regime, Roles


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs of several magnitudes; block k of `rows` consecutive rows belongs to magnitude k."""

    roles: Roles  # on the CPU, in the format's dtype; the first is what the magnitude scales
    rows: int  # rows of each magnitude
    shared: tuple[str, ...] = ()  # roles that all rows have in common
    options: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of every function

    def widened(self) -> Roles:
        """The same inputs, exactly, with float roles in float64: what truth is computed from."""
        return {
            role: value.double() if value.is_floating_point() else value
            for role, value in self.roles.items()
        }

    def on(self, device: str) -> Roles:
        """Fresh copies on a device, the first role requiring a gradient."""
        copies = {role: value.clone().to(device) for role, value in self.roles.items()}
        first = next(iter(copies))
        copies[first].requires_grad_(True)
        return copies


def generator_for(
    *,
    seed: int,
    operation: str,
    regime: str,
    shape: tuple[int, ...],
    role: str,
) -> np.random.Generator:
    """A stream that depends on these five alone: every path, pass, shard and order sees it."""
    key = repr((seed, operation, regime, tuple(shape), role)).encode()
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(key).digest()[:16])))


def build_batch(
    operation: Operation,
    regime: Regime,
    fmt: Format,
    magnitudes: list[float],  # M of them
    *,
    seed: int,
) -> Batch:
    """Draw the regime once and lay it out at each magnitude: rows M * rows of one."""
    shape = operation.shape_in(regime)
    draws = Draws(
        generator=lambda role: generator_for(
            seed=seed,
            operation=operation.name,
            regime=regime.name,
            shape=shape,
            role=role,
        ),
        shape=shape,
    )
    drawn = regime.draw(draws)
    roles: Roles = {}
    for place, (role, base) in enumerate(drawn.items()):
        if place == 0:
            roles[role] = _scale(base, magnitudes, fmt)
        else:
            fixed = torch.from_numpy(np.ascontiguousarray(base))
            if fixed.is_floating_point():
                fixed = fixed.to(fmt.dtype)
            if role not in regime.shared:
                fixed = fixed.repeat(len(magnitudes), *[1] * (fixed.dim() - 1))
            roles[role] = fixed
    return Batch(roles, shape[0], regime.shared, regime.options)


def _scale(base: np.ndarray, magnitudes: list[float], fmt: Format) -> Tensor:
    """base * magnitude, clipped to finite values and rounded; what is not finite in base stays."""
    axis = np.asarray(magnitudes, dtype=np.float64).reshape(-1, *[1] * base.ndim)
    # fp64 magnitudes near the top overflow here before the clip, and a mask's -inf times zero is
    # replaced just below: both are meant.
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.clip(base * axis, -fmt.largest, fmt.largest)
    scaled = np.where(np.isfinite(base), scaled, base)
    stacked = torch.from_numpy(scaled.reshape(-1, *base.shape[1:]))
    rounded = stacked.to(fmt.dtype)
    # Rounding can carry a clipped value past the end for no format (largest is a member), but a
    # double just above fp16's largest is clipped, not rounded, so nothing here becomes infinite.
    return rounded
