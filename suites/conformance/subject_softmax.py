"""softmax and log_softmax as subjects of the exhaustive proofs."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

import kernels
from suites.catalog.log_softmax import LOG_SOFTMAX
from suites.catalog.softmax import SOFTMAX
from suites.conformance.extended import Array, difference, exp_difference
from suites.conformance.layout_roles import COLUMNS, constant, crowd, cycling, lone, ordinary, put
from suites.conformance.proof import Inputs, Subject, Truth, nonfinite_rows


def _powers(x: Array) -> tuple[Array, Array, Array]:
    """exp(x - m), m, and the sum of all powers but one at the maximum."""
    top = x.max(axis=1, keepdims=True)
    powers = exp_difference(x, top)
    others = powers.copy()
    np.put_along_axis(others, x.argmax(axis=1)[:, None], 0, 1)
    return powers, top, others.sum(axis=1, keepdims=True)


def _softmax_truth(roles: dict[str, Array]) -> dict[str, Truth]:
    """y = exp(x - m) / (1 + rest); dx = y (g - sum y g), whose terms cancel."""
    powers, _, rest = _powers(roles["input"])
    g = roles["upstream"]
    y = powers / (1 + rest)
    gradient = y * (g - (y * g).sum(axis=1, keepdims=True))
    terms = y * (np.abs(g) + (y * np.abs(g)).sum(axis=1, keepdims=True))
    return {
        "output": Truth(y, np.zeros_like(y)),
        "input": Truth(gradient, SOFTMAX.slack_factor * terms),
    }


def _log_softmax_truth(roles: dict[str, Array]) -> dict[str, Truth]:
    """y = (x - m) - log1p(rest), both parts of one sign; dx = g - exp(y) sum g, which cancels."""
    x = roles["input"]
    powers, top, rest = _powers(x)
    g = roles["upstream"]
    high, low = difference(x, top)
    y = high + (low - np.log1p(rest))
    p = powers / (1 + rest)
    gradient = g - p * g.sum(axis=1, keepdims=True)
    terms = np.abs(g) + p * np.abs(g).sum(axis=1, keepdims=True)
    return {
        "output": Truth(y, np.zeros_like(y)),
        "input": Truth(gradient, LOG_SOFTMAX.slack_factor * terms),
    }


def _strange(inputs: Inputs, shared: tuple[str, ...]) -> Tensor:
    """Rows with a NaN, a +inf, nothing but masks, or an upstream gradient that is not finite."""
    x = inputs["input"].double()
    upstream = nonfinite_rows({"upstream": inputs["upstream"]}, shared)
    if not x.shape[1]:
        return upstream
    return upstream | ~(x < torch.inf).all(dim=1) | (x == -torch.inf).all(dim=1)


def _rows(x: Tensor, upstream: Tensor | None = None) -> Inputs:
    if upstream is None:
        upstream = ordinary(*x.shape, dtype=x.dtype, seed=1)
    return {"input": x, "upstream": upstream}


def _among_masks(p: Tensor) -> Inputs:
    """The pattern and a one, everything else masked."""
    base = torch.full((len(p), COLUMNS), -torch.inf, dtype=p.dtype)
    base = put(base, cycling(len(p), 3), torch.ones_like(p))
    return _rows(put(base, cycling(len(p)), p))


ROLES = {
    "lone": lambda p: _rows(lone(p)),
    "in_crowd": lambda p: _rows(crowd(p)),
    "among_masks": _among_masks,
    "constant": lambda p: _rows(constant(p)),
    "only_element": lambda p: _rows(p[:, None]),
    "upstream_lone": lambda p: _rows(ordinary(len(p), COLUMNS, dtype=p.dtype), lone(p)),
    "upstream_in_crowd": lambda p: _rows(ordinary(len(p), COLUMNS, dtype=p.dtype), crowd(p)),
    "upstream_constant": lambda p: _rows(ordinary(len(p), COLUMNS, dtype=p.dtype), constant(p)),
}
PAIRS = {
    "logits": lambda a, b: _rows(torch.stack([a, b], dim=1)),
    "logit_upstream": lambda a, b: _rows(
        torch.stack([a, torch.zeros_like(a)], dim=1), torch.stack([b, torch.zeros_like(b)], dim=1)
    ),
    "logit_other_upstream": lambda a, b: _rows(
        torch.stack([a, torch.zeros_like(a)], dim=1), torch.stack([torch.zeros_like(b), b], dim=1)
    ),
    "upstreams": lambda a, b: _rows(
        torch.tensor([0.5, -0.25], dtype=a.dtype).repeat(len(a), 1), torch.stack([a, b], dim=1)
    ),
}


def _draw(rows: int, columns: int, dtype: torch.dtype) -> Inputs:
    return _rows(ordinary(rows, columns, dtype=dtype, scale=2.0))


SUBJECTS = tuple(
    Subject(
        name=name,
        ours=functools.partial(getattr(kernels, name), dim=-1),
        torch=functools.partial(getattr(torch, name), dim=-1),
        truth=truth,
        roles=ROLES,
        pairs=PAIRS,
        draw=_draw,
        strange=_strange,
    )
    for name, truth in (("softmax", _softmax_truth), ("log_softmax", _log_softmax_truth))
)
