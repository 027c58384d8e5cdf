"""The norms as subjects of the exhaustive proofs: truth, and the roles a pattern plays in them."""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from suites.catalog.normalize import NORMALIZE
from suites.conformance.extended import Array
from suites.conformance.layout_roles import COLUMNS, constant, crowd, lone, ordinary
from suites.conformance.proof import Inputs, Subject, Truth

# --- normalize ------------------------------------------------------------------------------------


def _normalize_truth(roles: dict[str, Array], eps: float) -> dict[str, Truth]:
    """y = x / max(r, eps) with r the norm; dx = (g - y sum(y g)) / r above the floor, g / eps
    below, and 0 at the zero vector by policy.
    """
    x, g = roles["input"], roles["upstream"]
    norm = np.sqrt((x * x).sum(axis=1, keepdims=True))
    zero, floored = norm == 0, norm < eps
    safe = np.where(zero, 1, norm)
    divisor = np.where(floored, eps, safe)
    y = x / divisor
    dot, size = (y * g).sum(axis=1, keepdims=True), np.abs(y * g).sum(axis=1, keepdims=True)
    along = (g - y * dot) / safe
    gradient = np.where(zero, 0, np.where(floored, g / divisor, along))
    terms = np.where(zero | floored, 0, (np.abs(g) + np.abs(y) * size) / safe)
    # A norm within the statistics' rounding of eps may fall on either side of it.
    undecided = (norm != eps) & (np.abs(norm - eps) <= 2.0**-22 * eps)
    terms = np.where(undecided, np.inf, NORMALIZE.slack_factor * terms)
    return {"output": Truth(y, np.zeros_like(y)), "input": Truth(gradient, terms)}


def _rows(x: Tensor, upstream: Tensor | None = None) -> Inputs:
    """Rows and an upstream gradient: by default ordinary, so that nothing cancels by design."""
    if upstream is None:
        upstream = ordinary(*x.shape, dtype=x.dtype, seed=1)
    return {"input": x, "upstream": upstream}


def _in_proportion(p: Tensor) -> Inputs:
    """An upstream gradient of the pattern's own size: gradients near 1, whatever the norm."""
    x = crowd(p, scale=1.0)
    g = ordinary(*x.shape, dtype=torch.float64, seed=2) * p.double().abs()[:, None].clamp(max=1e4)
    return _rows(x, g.to(p.dtype))


def _upstream_entry(p: Tensor) -> Inputs:
    x = ordinary(len(p), COLUMNS, dtype=p.dtype)
    return _rows(x, crowd(p))


def _pair(a: Tensor, b: Tensor) -> Inputs:
    return _rows(torch.stack([a, b], dim=1))


def _entry_and_upstream(a: Tensor, b: Tensor) -> Inputs:
    x = torch.stack([a, torch.ones_like(a)], dim=1)
    return _rows(x, torch.stack([torch.ones_like(b), b], dim=1))


def _scale_and_upstream(a: Tensor, b: Tensor) -> Inputs:
    """Rows of one scale, upstream gradients of another."""
    return _rows(torch.stack([a, a], dim=1), torch.stack([b, torch.zeros_like(b)], dim=1))


NORM_ROLES = {
    "lone": lambda p: _rows(lone(p)),
    "in_crowd": lambda p: _rows(crowd(p)),
    "in_crowd_scaled_upstream": _in_proportion,
    "constant": lambda p: _rows(constant(p)),
    "only_element": lambda p: _rows(p[:, None]),
    "upstream_lone": lambda p: _rows(ordinary(len(p), COLUMNS, dtype=p.dtype), lone(p)),
    "upstream_in_crowd": _upstream_entry,
    "upstream_constant": lambda p: _rows(ordinary(len(p), COLUMNS, dtype=p.dtype), constant(p)),
}
NORM_PAIRS = {
    "entries": _pair,
    "entry_upstream": _entry_and_upstream,
    "scale_upstream": _scale_and_upstream,
}


def normalize(eps: float) -> Subject:
    """normalize along the last dimension with this floor, which must be an fp32 number."""
    name = "normalize" if eps == 0 else f"normalize(eps={eps:.3g})"
    return Subject(
        name=name,
        ours=lambda input: kernels.normalize(input, dim=-1, eps=eps),
        torch=lambda input: F.normalize(input, dim=-1, eps=eps),
        truth=functools.partial(_normalize_truth, eps=eps),
        roles=NORM_ROLES,
        pairs=NORM_PAIRS,
        draw=lambda rows, columns, dtype: _rows(ordinary(rows, columns, dtype=dtype)),
    )


# No floor, the default one, and a floor above 1, where the comparison changes its side.
SUBJECTS = tuple(normalize(float(np.float32(eps))) for eps in (0.0, 1e-12, 100.0))
