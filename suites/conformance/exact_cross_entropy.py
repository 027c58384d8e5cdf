"""Certified truth of cross-entropy with every option, as tensors; see the catalog's definition."""

from __future__ import annotations

from typing import Any

import torch
from flint import arb
from torch import Tensor

from suites.catalog.cross_entropy_truth import certified_row, slack
from suites.conformance import exact
from suites.conformance.exact import Exact

# Truths wider than this are nobody's result here; of the infinite ones (a masked class that counts)
# the sign is exact.
_INFINITE = float("inf")


def cross_entropy(
    logits: Tensor,  # (N, C)
    target: Tensor,  # (N,) or (N, C)
    weight: Tensor | None = None,  # (C,)
    **options: float,
) -> dict[str, Exact]:
    """ "forward" (N,), "backward" (N, C) and, for probabilities, "target" (N, C)."""
    exact._set_precision()
    found: dict[str, list[Any]] = {"forward": [], "backward": [], "target": []}
    rows = zip(logits.detach().double().cpu().tolist(), target.detach().cpu().tolist(), strict=True)
    shared = {} if weight is None else {"weight": weight.double().cpu().tolist()}
    for row, own in rows:
        balls = certified_row({"input": row, "target": own} | shared, **options)
        for name, values in balls.items():
            found[name] += values
    shapes = {"forward": logits.shape[:1], "backward": logits.shape, "target": logits.shape}
    return {
        name: _pack(values, shapes[name])
        for name, values in found.items()
        if len(values) == shapes[name].numel()
    }


def _pack(values: list[Any], shape: torch.Size) -> Exact:
    finite = exact._pack((arb(0) if isinstance(v, float) else v for v in values), shape)
    infinite = torch.tensor([isinstance(v, float) for v in values]).reshape(shape)
    return Exact(torch.where(infinite, _INFINITE, finite.high), finite.low)


def allowance(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, **options: float
) -> dict[str, Tensor]:
    """What the catalog grants beyond 2 ULP, absolutely, in fp64."""
    roles = {"input": logits, "target": target} | ({} if weight is None else {"weight": weight})
    wide = {
        name: value.detach().double().cpu() if value.is_floating_point() else value.cpu()
        for name, value in roles.items()
    }
    roundoff = torch.finfo(torch.float64 if logits.dtype == torch.float64 else torch.float32).eps
    return {name: value * roundoff / 2 for name, value in slack(wide, **options).items()}
