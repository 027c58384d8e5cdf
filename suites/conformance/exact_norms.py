"""Certified truth of rms_norm and layer_norm with all their gradients, and the bounds they are held
to.

Short rows in ball arithmetic, wide ones in numpy.longdouble (see `suites.conformance.extended`),
whose 15 exponent bits hold any product that occurs and whose 64 significant bits are 2**11 times
finer than what is judged; a test compares the two.

Beside each value stands the sum of the sizes of the terms that cancel in it. With h = g weight:

    y          (|x| + mean|x|) |weight| / r + |bias|           layer_norm; rms_norm cancels nothing
    dx         (|h| + |y'| mean|h y'|) / r                     rms_norm
               (|h| + mean|h| + y+ mean(|h| y+)) / r           layer_norm, y+ = (|x| + mean|x|) / r
    dweight    sum |g y'|, for layer_norm sum |g| y+
    dbias      sum |g|

The multiples of the unit roundoff u that rounding costs at most, counted along the formulas of
`kernels.norms` where elements have the precision of the statistics (fp64 inputs; fp16 gradients):

    r          rms_norm 1 u; layer_norm 3 u (differences 2 u, their squares' mean 3 u, halved; root)
    y'         rms_norm r, quotient: 2 u; layer_norm difference 2 u, r 3 u, quotient 1 u: 6 u
    y          layer_norm y', product, sum: 8 u
    h y'       h 1 u, y', product 1 u, compensated sum 2 u: rms_norm 6 u, layer_norm 10 u
    dx         y' times the mean 1 u, two differences 2 u, r, quotient: rms_norm 2 + 6 + 1 + 1 + 2 =
               12 u, layer_norm 6 + 10 + 1 + 2 + 4 = 23 u
    dweight    y', product, two compensated sums: rms_norm 7 u, layer_norm 11 u; dbias 4 u
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from flint import arb
from torch import Tensor

import kernels
from suites.conformance import exact
from suites.conformance.exact import Exact
from suites.conformance.extended import extend


class Bounded(NamedTuple):
    """A true value and the sum of its terms' sizes, times what rounding them costs."""

    value: Exact
    terms: Tensor  # fp64, to be multiplied by the unit roundoff


class Truth(NamedTuple):
    """What a norm returns, and the gradients of its inputs."""

    y: Bounded
    x: Bounded
    weight: Bounded
    bias: Bounded


_Row = list[arb]


def _zeros(row: _Row) -> _Row:
    return [arb(0)] * len(row)


def _direction(row: _Row, eps: arb, centred: bool) -> tuple[_Row, _Row, arb | None]:
    """y', y+ and r; zeros and None where r is 0."""
    count = arb(len(row))
    size = [abs(v) for v in row]
    if centred:
        total, mean_size = sum(row, arb(0)), sum(size, arb(0)) / count
        row = [(count * v - total) / count for v in row]  # exactly 0 where all are equal
        size = [v + mean_size for v in size]
    root = (sum((v * v for v in row), arb(0)) / count + eps).sqrt()
    if root == 0:
        return _zeros(row), _zeros(row), None
    return [v / root for v in row], [v / root for v in size], root


def _sum(values: _Row) -> arb:
    return sum(values, arb(0))


def truth(
    x: Tensor,  # (N, K)
    weight: Tensor | None,  # (K,)
    bias: Tensor | None,  # (K,)
    upstream: Tensor,  # (N, K)
    eps: float,
    *,
    centred: bool,
) -> Truth:
    """In ball arithmetic. A row whose r is 0 has y' = 0 and, by policy, the gradient 0."""
    exact._set_precision()
    ones, zeros = torch.ones(x.shape[1:]), torch.zeros(x.shape[1:])
    (w,), (b,) = (exact._rows(each[None]) for each in (_or(weight, ones), _or(bias, zeros)))
    parts: dict[str, _Row] = {name: [] for name in ("y", "y_size", "x", "x_size")}
    sums = {name: _zeros(w) for name in ("weight", "weight_size", "bias", "bias_size")}
    for row, g in zip(exact._rows(x), exact._rows(upstream), strict=True):
        y, size, root = _direction(row, arb(eps), centred)
        count = arb(len(row))
        h = [a * c for a, c in zip(g, w, strict=True)]
        mean = _sum(h) / count if centred else arb(0)
        dot = _sum([a * c for a, c in zip(h, y, strict=True)]) / count
        mean_size = _sum([abs(v) for v in h]) / count if centred else arb(0)
        dot_size = _sum([abs(a) * c for a, c in zip(h, size, strict=True)]) / count
        parts["y"] += [a * c + d for a, c, d in zip(y, w, b, strict=True)]
        parts["y_size"] += [
            a * abs(c) + abs(d) if centred else arb(0) for a, c, d in zip(size, w, b, strict=True)
        ]
        for a, c, s in zip(h, y, size, strict=True):
            parts["x"].append(arb(0) if root is None else (a - mean - c * dot) / root)
            terms = abs(a) + mean_size + s * dot_size
            parts["x_size"].append(arb(0) if root is None else terms / root)
        for j, (a, c, s) in enumerate(zip(g, y, size, strict=True)):
            sums["weight"][j] += a * c
            sums["weight_size"][j] += abs(a) * s
            sums["bias"][j] += a
            sums["bias_size"][j] += abs(a)
    factors = FACTORS[centred]
    shapes = {"y": x.shape, "x": x.shape, "weight": x.shape[1:], "bias": x.shape[1:]}
    parts |= sums
    return Truth(
        **{
            name: Bounded(
                exact._pack(parts[name], shape),
                factors[name] * _doubles(parts[f"{name}_size"], shape),
            )
            for name, shape in shapes.items()
        }
    )


# By whether the mean is subtracted; derived above.
FACTORS = {
    False: {"y": 0.0, "x": 12.0, "weight": 7.0, "bias": 4.0},
    True: {"y": 8.0, "x": 23.0, "weight": 11.0, "bias": 4.0},
}


def _or(value: Tensor | None, default: Tensor) -> Tensor:
    return default if value is None else value


def _doubles(values: _Row, shape: torch.Size) -> Tensor:
    flat = torch.tensor([float(v.mid()) for v in values], dtype=torch.float64).reshape(shape)
    return flat.clamp(max=torch.finfo(torch.float64).max)


def extended_truth(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    upstream: Tensor,
    eps: float,
    *,
    centred: bool,
) -> Truth:
    """The same in numpy.longdouble, for wide rows whose r is not 0."""
    values, g = extend(x), extend(upstream)
    w = np.longdouble(1) if weight is None else extend(weight)
    b = np.longdouble(0) if bias is None else extend(bias)
    size = np.abs(values)
    if centred:
        size = size + size.mean(axis=1, keepdims=True)
        values = values - values.mean(axis=1, keepdims=True)
        values = values - values.mean(axis=1, keepdims=True)  # what the mean's rounding left
    root = np.sqrt(np.square(values).mean(axis=1, keepdims=True) + np.longdouble(eps))
    y, size = values / root, size / root
    h = g * w
    dot = (h * y).mean(axis=1, keepdims=True)
    dot_size = (np.abs(h) * size).mean(axis=1, keepdims=True)
    mean = h.mean(axis=1, keepdims=True) if centred else 0
    mean_size = np.abs(h).mean(axis=1, keepdims=True) if centred else 0
    found = {
        "y": (y * w + b, (size * np.abs(w) + np.abs(b)) * centred),
        "x": ((h - mean - y * dot) / root, (np.abs(h) + mean_size + size * dot_size) / root),
        "weight": ((g * y).sum(axis=0), (np.abs(g) * size).sum(axis=0)),
        "bias": (g.sum(axis=0), np.abs(g).sum(axis=0)),
    }
    factors = FACTORS[centred]
    return Truth(**{name: _bounded(*pair, factors[name]) for name, pair in found.items()})


def _bounded(value: np.ndarray, terms: np.ndarray, factor: float) -> Bounded:
    high = value.astype(np.float64)
    low = (value - high).astype(np.float64)
    pair = (torch.from_numpy(np.ascontiguousarray(part)) for part in (high, low))
    terms = np.broadcast_to(terms * factor, value.shape).astype(np.float64)
    return Bounded(Exact(*pair), torch.from_numpy(terms.copy()))


# --- judging --------------------------------------------------------------------------------------


def run(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    upstream: Tensor,
    eps: float,
    *,
    centred: bool,
) -> dict[str, Tensor]:
    """y, and the gradients of those inputs that are there, by our kernels."""
    leaves = {
        name: value.detach().requires_grad_()
        for name, value in (("x", x), ("weight", weight), ("bias", bias))
        if value is not None
    }
    shape = x.shape[1:]
    rest = [leaves.get(name) for name in (("weight", "bias") if centred else ("weight",))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # some truths here are not representable
        y = (kernels.layer_norm if centred else kernels.rms_norm)(leaves["x"], shape, *rest, eps)
        gradients = torch.autograd.grad(y, list(leaves.values()), upstream)
    return {"y": y.detach(), **dict(zip(leaves, gradients, strict=True))}


def check(
    x: Tensor,  # (N, K)
    weight: Tensor | None,
    bias: Tensor | None,
    upstream: Tensor,
    eps: float = 1e-5,
    *,
    centred: bool,
    true: Callable[..., Truth] = truth,
) -> None:
    """Everything within 2 ULP and k u times the terms that cancel; where the truth rounds to
    infinity, that infinity.
    """
    found = run(x, weight, bias, upstream, eps, centred=centred)
    expected = true(x, weight, bias, upstream, eps, centred=centred)
    roundoff = torch.finfo(torch.float64 if x.dtype == torch.float64 else torch.float32).eps / 2
    for name, value in found.items():
        bounded: Bounded = getattr(expected, name)
        allowed = roundoff * bounded.terms
        rounded = bounded.value.high.to(value.dtype).cpu()
        excess = (exact.error(value, bounded.value) - allowed).clamp(min=0.0)
        excess = excess / exact.unit_in_last_place(bounded.value.high, value.dtype)
        # A truth that rounds to infinity; terms so large that the truth's size says nothing.
        excess = torch.where(torch.isinf(rounded) & (value.cpu() == rounded), 0.0, excess)
        excess = torch.where(allowed > torch.finfo(value.dtype).max, 0.0, excess)
        excess = torch.where(excess.isnan(), torch.inf, excess)
        worst = int(excess.argmax())
        assert float(excess.max()) <= 2.0, (
            f"{name}: {float(excess.max()):.3g} ULP beyond the allowance at flat index {worst}: got"
            f" {value.reshape(-1)[worst].item()!r}, truth"
            f" {bounded.value.high.reshape(-1)[worst].item()!r}; input of {x.dtype}, shape"
            f" {tuple(x.shape)}"
        )
