"""The roles that a pattern plays among the logits, targets and weights of a classification loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from suites.conformance.layout_roles import COLUMNS, constant, crowd, cycling, lone, ordinary, put
from suites.conformance.proof import Inputs

LARGEST_UPSTREAM = 2.0**64  # what the losses promise accuracy for


def with_target(x: Tensor, target: Tensor, upstream: Tensor | None = None) -> Inputs:
    ones = torch.ones(len(x), dtype=x.dtype)
    return {"input": x, "target": target, "upstream": ones if upstream is None else upstream}


def beside(rows: int) -> Tensor:
    """A column that is not the pattern's: each of the seven others in turn."""
    return (cycling(rows) + 1 + (torch.arange(rows) // COLUMNS) % (COLUMNS - 1)) % COLUMNS


def _masked(p: Tensor, target: Tensor) -> Tensor:
    """The pattern and the target's logit, everything else masked."""
    base = torch.full((len(p), COLUMNS), -torch.inf, dtype=p.dtype)
    base = put(base, target, torch.ones_like(p))
    return put(base, cycling(len(p)), p)


def upstream(p: Tensor) -> Inputs:
    x = ordinary(len(p), COLUMNS, dtype=p.dtype, scale=2.0)
    return with_target(x, cycling(len(p)), p)


def two_logits(a: Tensor, b: Tensor) -> Inputs:
    """Two columns, the target either of them."""
    return with_target(torch.stack([a, b], dim=1), cycling(len(a), columns=2))


def promised(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs whose second, an upstream gradient, the losses promise accuracy for."""
    kept = b.double().abs() <= LARGEST_UPSTREAM
    return a[kept], b[kept]


def logit_and_upstream(a: Tensor, b: Tensor) -> Inputs:
    """A logit beside a zero, the target either of them."""
    a, b = promised(a, b)
    x = torch.stack([a, torch.zeros_like(a)], dim=1)
    return with_target(x, cycling(len(a), columns=2), b)


def draw(rows: int, columns: int, dtype: torch.dtype) -> Inputs:
    x = ordinary(rows, columns, dtype=dtype, scale=2.0)
    g = ordinary(rows, dtype=dtype, seed=1)
    # Steps of a prime, so that the first and the last columns are among few rows' targets.
    return with_target(x, (torch.arange(rows) * 7919 + columns - 1) % columns, g)


ROLES = {
    "logit": lambda p: with_target(lone(p), beside(len(p))),
    "target_logit": lambda p: with_target(lone(p), cycling(len(p))),
    "logit_in_crowd": lambda p: with_target(crowd(p), beside(len(p))),
    "target_in_crowd": lambda p: with_target(crowd(p), cycling(len(p))),
    "logit_among_masks": lambda p: with_target(_masked(p, beside(len(p))), beside(len(p))),
    "constant": lambda p: with_target(constant(p), cycling(len(p))),
    "only_class": lambda p: with_target(p[:, None], torch.zeros(len(p), dtype=torch.int64)),
    "upstream": upstream,
}


def _promised_upstream(p: Tensor) -> Inputs:
    """The upstream gradients that accuracy is promised for, and those that are not finite."""
    return upstream(p[(p.double().abs() <= LARGEST_UPSTREAM) | ~p.isfinite()])


# What an option is proved with, beside its own roles.
FEW = {name: ROLES[name] for name in ("target_logit", "logit_in_crowd", "constant")}
FEW["upstream"] = _promised_upstream
PAIRS = {"logits": two_logits, "logit_upstream": logit_and_upstream}


def _probabilities(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Rows that add up to about 1, every fourth entry 0."""
    raw = ordinary(rows, columns, dtype=torch.float64, seed=5).exp()
    raw[:, ::4] = 0
    return (raw / raw.sum(dim=1, keepdim=True).clamp(min=1e-300)).to(dtype)


def soft(inputs: Inputs) -> Inputs:
    """The same with class probabilities for targets."""
    x = inputs["input"]
    return inputs | {"target": _probabilities(*x.shape, dtype=x.dtype)}


def probabilities_of(p: Tensor) -> Tensor:
    """The patterns that are probabilities, within [0, 1], and those that are not finite."""
    return p[((p >= 0) & (p <= 1)) | ~p.isfinite()]


def probability(p: Tensor) -> Inputs:
    """The pattern as one class's probability, beside ordinary ones."""
    p = probabilities_of(p)
    inputs = soft(with_target(ordinary(len(p), COLUMNS, dtype=p.dtype, scale=2.0), cycling(len(p))))
    return inputs | {"target": put(inputs["target"], cycling(len(p), 1), p)}


def logit_and_probability(a: Tensor, b: Tensor) -> Inputs:
    """A logit beside a zero, its probability beside one half."""
    b = b.abs()
    a, b = a[b <= 1], b[b <= 1]
    x = torch.stack([a, torch.zeros_like(a)], dim=1)
    return with_target(x, torch.stack([b, torch.full_like(b, 0.5)], dim=1))


def class_weights(p: Tensor) -> list[Inputs]:
    """128 patterns at a time as the weights of 128 classes, each class the target of one row."""
    return [
        with_target(ordinary(len(w), len(w), dtype=p.dtype, scale=2.0), torch.arange(len(w)))
        | {"weight": w}
        for w in p.split(128)
    ]


def weighted(inputs: Inputs) -> Inputs:
    """The same with ordinary class weights, one of them 0."""
    x = inputs["input"]
    weight = ordinary(x.shape[1], dtype=torch.float64, seed=6).abs()
    weight[3:4] = 0
    return inputs | {"weight": weight.to(x.dtype)}


def mapped(change: Callable[[Inputs], Inputs], makers: dict[str, Any]) -> dict[str, Any]:
    """The makers of inputs, each followed by the change."""

    def followed(make: Any) -> Any:
        return lambda *patterns: change(make(*patterns))

    return {name: followed(make) for name, make in makers.items()}
