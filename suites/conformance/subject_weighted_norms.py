"""rms_norm and layer_norm as subjects of the exhaustive proofs.

Their weight and bias have no rows, so a pattern in them gets roles of its own: a column each of one
wide row, where y_j and the gradients of weight and bias are judged pattern by pattern; and some
neighbours at a time, where no others outweigh them in the gradient of the input.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from suites.conformance.class_roles import mapped
from suites.conformance.extended import Array, difference
from suites.conformance.layout_roles import ordinary
from suites.conformance.proof import Inputs, Subject, Truth, nonfinite_rows
from suites.conformance.subject_norms import NORM_PAIRS, NORM_ROLES

# Roundings of the gradient's terms: a direction errs by 3u (mean, root, quotient), its product with
# the upstream gradient, the weight and the sum by u each, the other factor y by 3u, the difference
# and the quotient by u and 2u: 12u of their sizes.
_FACTOR = 12

# --- truth ----------------------------------------------------------------------------------------


def _of_direction(
    roles: dict[str, Array], y: Array, root: Array, centred: bool
) -> dict[str, Truth]:
    """Output and gradients for the direction y = d / r: out = y w + b, h = g w,

        dx = (h - [mean h] - y mean(h y)) / r, and 0 where r is 0,  dw = sum g y,  db = sum g.

    Sums over N rows are trees of log2 N sums, each of which rounds once.
    A layer's y is itself a difference, x less the mean: it bears u of the row's mean |y| more.
    """
    g, one = roles["upstream"], np.longdouble(1)
    w, b = roles.get("weight", one), roles.get("bias", 0 * one)
    zero = root == 0
    h = g * w
    product = (h * y).mean(axis=1, keepdims=True)
    inner = h - y * product
    own = np.abs(y).mean(axis=1, keepdims=True) if centred else 0 * one
    size = np.abs(y) + own
    terms = np.abs(h) + size * (np.abs(h) * size).mean(axis=1, keepdims=True)
    if centred:
        inner = inner - h.mean(axis=1, keepdims=True)
        terms = terms + np.abs(h).mean(axis=1, keepdims=True)
    safe = np.where(zero, 1, root)
    cancels = "bias" in roles
    depth = math.ceil(math.log2(max(len(y), 2)))
    return {
        "output": Truth(
            y * w + b,
            4 * np.abs(w) * own * (1 + 0 * y) + (4 * (np.abs(y * w) + np.abs(b)) if cancels else 0),
        ),
        "input": Truth(np.where(zero, 0, inner / safe), np.where(zero, 0, _FACTOR * terms / safe)),
        "weight": Truth((g * y).sum(axis=0), (6 + depth) * (np.abs(g) * size).sum(axis=0)),
        "bias": Truth(g.sum(axis=0), (2 + depth) * np.abs(g).sum(axis=0)),
    }


def _rms_truth(roles: dict[str, Array], eps: float) -> dict[str, Truth]:
    """y = x / r with r = sqrt(mean(x**2) + eps)."""
    x = roles["input"]
    root = np.sqrt((x * x).mean(axis=1, keepdims=True) + np.longdouble(eps))
    return _of_direction(roles, x / np.where(root == 0, 1, root), root, centred=False)


def _layer_truth(roles: dict[str, Array], eps: float) -> dict[str, Truth]:
    """y = d / r with d = x - mean(x), r = sqrt(mean(d**2) + eps).

    Taken about the row's first entry, so that a common offset costs nothing.
    """
    x = roles["input"]
    high, low = difference(x, x[:, :1])
    mean = high.mean(axis=1, keepdims=True) + low.mean(axis=1, keepdims=True)
    d = (high - mean) + low
    root = np.sqrt((d * d).mean(axis=1, keepdims=True) + np.longdouble(eps))
    return _of_direction(roles, d / np.where(root == 0, 1, root), root, centred=True)


# --- roles ----------------------------------------------------------------------------------------


def _parameters(inputs: Inputs, names: tuple[str, ...]) -> Inputs:
    """The same with ordinary parameters."""
    x = inputs["input"]
    found = dict(inputs)
    for seed, name in enumerate(names, start=11):
        found[name] = ordinary(x.shape[1], dtype=x.dtype, seed=seed)
    return found


def _wide(p: Tensor, name: str, names: tuple[str, ...]) -> list[Inputs]:
    """One row as wide as there are finite patterns, one in each column of this input."""
    finite = p[torch.isfinite(p)]
    x, g = (ordinary(1, len(finite), dtype=p.dtype, seed=seed) for seed in (21, 22))
    inputs = _parameters({"input": x, "upstream": g}, names)
    return [inputs | {name: finite[None] if name == "upstream" else finite}]


def _by_magnitude(p: Tensor, name: str, names: tuple[str, ...]) -> list[Inputs]:
    """Two rows for each 2,048 patterns that are next to each other in magnitude (all of one
    exponent of fp16, of eight of bf16); infinities and NaNs are the last ones.
    """
    order = (p.view(torch.int16).int() & 0x7FFF).argsort(stable=True)
    found = []
    for group in p[order].split(2048):
        x, g = (ordinary(2, len(group), dtype=p.dtype, seed=seed) for seed in (31, 32))
        found.append(_parameters({"input": x, "upstream": g}, names) | {name: group})
    return found


def _parameter_roles(names: tuple[str, ...]) -> dict[str, Callable[[Tensor], list[Inputs]]]:
    roles: dict[str, Callable[[Tensor], list[Inputs]]] = {}
    for name in names:
        roles[f"{name}_wide"] = functools.partial(_wide, name=name, names=names)
        roles[f"{name}_by_magnitude"] = functools.partial(_by_magnitude, name=name, names=names)
    roles["upstream_wide"] = functools.partial(_wide, name="upstream", names=names)
    return roles


def _call(function: Any, input: Tensor, eps: float, **parameters: Tensor) -> Tensor:
    result: Tensor = function(input, (input.shape[-1],), eps=eps, **parameters)
    return result


def _subject(operation: str, truth: Any, eps: float, names: tuple[str, ...]) -> Subject:
    parameters = functools.partial(_parameters, names=names)
    label = ",".join([*names, f"eps={eps:g}"])
    return Subject(
        name=f"{operation}({label})",
        ours=functools.partial(_call, getattr(kernels, operation), eps=eps),
        torch=functools.partial(_call, getattr(F, operation), eps=eps),
        truth=functools.partial(truth, eps=eps),
        roles=mapped(parameters, NORM_ROLES) | (_parameter_roles(names) if names else {}),
        pairs=mapped(parameters, NORM_PAIRS),
        draw=lambda rows, columns, dtype: parameters(
            {
                "input": ordinary(rows, columns, dtype=dtype),
                "upstream": ordinary(rows, columns, dtype=dtype, seed=1),
            }
        ),
        differentiable=("input", *names),
        shared=names,
        factors=("upstream", *names),
        strange=nonfinite_rows,
    )


# No eps, where only zero is special, and the usual one; with and without parameters.
SUBJECTS = (
    _subject("rms_norm", _rms_truth, 0.0, ()),
    _subject("rms_norm", _rms_truth, 1e-6, ("weight",)),
    _subject("layer_norm", _layer_truth, 0.0, ()),
    _subject("layer_norm", _layer_truth, 1e-5, ("weight", "bias")),
)
