"""Certified truth in ball arithmetic (python-flint), and distance from it in units in the last
place.

Truth is computed from the inputs as they are, already rounded to their dtype. A result is held as
two fp64 tensors whose sum is exact far below fp64's own unit roundoff, so that fp64 outputs are
measured as sharply as the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import flint
import torch
from flint import arb
from torch import Tensor

# Wide enough that a sum over fp64's whole exponent range of gradients still carries 150 correct
# bits after cancellation.
PRECISION = 320


class Exact(NamedTuple):
    """A tensor of true values: their rounding to fp64, and the rest."""

    high: Tensor
    low: Tensor

    def sum(self) -> Tensor:
        """The values as one fp64 tensor."""
        return self.high + self.low


def _pack(values: Iterable[arb], shape: torch.Size) -> Exact:
    high, low = [], []
    for value in values:
        middle = value.mid()
        nearest = float(middle)
        high.append(nearest)
        low.append(float(middle - arb(nearest)) if abs(nearest) < float("inf") else 0.0)
    pair = (torch.tensor(part, dtype=torch.float64).reshape(shape) for part in (high, low))
    return Exact(*pair)


def _rows(x: Tensor) -> list[list[arb]]:
    return [[arb(v) for v in row] for row in x.detach().double().cpu().tolist()]


def _set_precision() -> None:
    flint.ctx.prec = PRECISION


def elementwise(function: str, x: Tensor) -> Exact:
    """arb's own function of that name, element by element."""
    _set_precision()
    flat = x.detach().double().cpu().reshape(-1).tolist()
    return _pack((getattr(arb(v), function)() for v in flat), x.shape)


def sigmoid_times(x: Tensor, scale: float) -> Exact:
    """sigmoid(x) * scale, element by element."""
    _set_precision()
    exponentials = [arb(v).exp() for v in x.detach().double().cpu().reshape(-1).tolist()]
    return _pack((arb(scale) * e / (1 + e) for e in exponentials), x.shape)


def exp_difference(x: Tensor, reference: Tensor) -> Exact:
    """exp(x - reference), element by element."""
    _set_precision()
    pairs = zip(x.double().cpu().tolist(), reference.double().cpu().tolist(), strict=True)
    return _pack(((arb(a) - arb(b)).exp() for a, b in pairs), x.shape)


def cross_entropy(logits: Tensor, target: Tensor) -> tuple[Exact, Exact]:
    """Loss (N,) and gradient (N, C) for upstream ones; finite or -inf logits, a finite logit in
    each row, no ignored row.
    """
    _set_precision()
    losses: list[arb] = []
    gradients: list[arb] = []
    for row, y in zip(logits.detach().double().cpu().tolist(), target.tolist(), strict=True):
        largest = arb(max(row))
        terms = [arb(0) if v == float("-inf") else (arb(v) - largest).exp() for v in row]
        others = sum((t for j, t in enumerate(terms) if j != y), arb(0))
        losses.append(
            (others / terms[y]).log1p()
            if row[y] == max(row)
            else _gap(row, y, largest, others, terms)
        )
        normalizer = others + terms[y]
        gradients.extend(
            -others / normalizer if j == y else t / normalizer for j, t in enumerate(terms)
        )
    return _pack(losses, target.shape), _pack(gradients, logits.shape)


def _gap(row: list[float], y: int, largest: arb, others: arb, terms: list[arb]) -> arb:
    return (largest - arb(row[y])) + (others + terms[y]).log()


def binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
) -> tuple[Exact, Exact, Tensor]:
    """Loss and gradient for upstream ones, and the sum of the gradient's two terms' sizes (its
    inherent cancellation). Weights broadcast to the logits' shape.
    """
    _set_precision()
    losses, gradients, sizes = [], [], []
    ones = torch.ones_like(logits)
    factors = (ones if each is None else each.expand(logits.shape) for each in (weight, pos_weight))
    tensors = (logits, target, *factors)
    flat = (t.detach().double().cpu().reshape(-1).tolist() for t in tensors)
    for x, y, w, p in zip(*flat, strict=True):
        x_, y_, w_, p_ = arb(x), arb(y), arb(w), arb(p)
        e = (-abs(x_)).exp()
        linear = x_ * (1 - y_) if x > 0 else -x_ * p_ * y_
        losses.append(w_ * (linear + (1 - y_ + p_ * y_) * e.log1p()))
        up, down = (1, e) if x > 0 else (e, 1)
        positive = w_ * (1 - y_) * up / (1 + e)
        negative = w_ * p_ * y_ * down / (1 + e)
        gradients.append(positive - negative)
        sizes.append(float(positive + negative))
    size = torch.tensor(sizes, dtype=torch.float64).reshape(logits.shape)
    return _pack(losses, logits.shape), _pack(gradients, logits.shape), size


def normalize(x: Tensor, upstream: Tensor, eps: float) -> tuple[Exact, Exact, Tensor]:
    """Direction and gradient of rows (N, K), and the sum of the gradient's terms' sizes; 0
    throughout for a zero row.
    """
    _set_precision()
    values, gradients, sizes = [], [], []
    for row, g in zip(_rows(x), _rows(upstream), strict=True):
        norm = sum((v * v for v in row), arb(0)).sqrt()
        if norm == 0:
            values += [arb(0)] * len(row)
            gradients += [arb(0)] * len(row)
            sizes += [0.0] * len(row)
            continue
        floored = norm < arb(eps)
        direction = [v / (arb(eps) if floored else norm) for v in row]
        values += direction
        if floored:
            gradients += [v / arb(eps) for v in g]
            sizes += [0.0] * len(row)
            continue
        dot = sum((a * b for a, b in zip(direction, g, strict=True)), arb(0))
        size = sum((abs(a * b) for a, b in zip(direction, g, strict=True)), arb(0))
        gradients += [(b - a * dot) / norm for a, b in zip(direction, g, strict=True)]
        sizes += [float((abs(b) + abs(a) * size) / norm) for a, b in zip(direction, g, strict=True)]
    size_tensor = torch.tensor(sizes, dtype=torch.float64).reshape(x.shape)
    return _pack(values, x.shape), _pack(gradients, x.shape), size_tensor


# --- distances ------------------------------------------------------------------------------------


def unit_in_last_place(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The spacing of `dtype` at each fp64 value, as fp64."""
    info = torch.finfo(dtype)
    exponent = torch.frexp(values.abs()).exponent - 1
    smallest = torch.frexp(torch.tensor(info.smallest_normal, dtype=torch.float64)).exponent - 1
    largest = torch.frexp(torch.tensor(info.max, dtype=torch.float64)).exponent - 1
    exponent = torch.where(values == 0, smallest, exponent).clamp(smallest, largest)
    power = torch.ldexp(torch.ones_like(values), (exponent // 2).double())
    power = torch.ldexp(power, (exponent - exponent // 2).double())
    return power * info.eps


def error(actual: Tensor, truth: Exact) -> Tensor:
    """|actual - truth| in fp64, on the CPU. Where both are the same infinity it is 0; NaN anywhere
    stays NaN.
    """
    value = actual.detach().double().cpu()
    same = value == truth.high
    distance = ((value - truth.high) - truth.low).abs()
    return torch.where(same, truth.low.abs(), distance)


def ulps(actual: Tensor, truth: Exact) -> Tensor:
    """The error in units in the last place of the actual tensor's dtype."""
    return error(actual, truth) / unit_in_last_place(truth.high, actual.dtype)


def max_ulps(actual: Tensor, truth: Exact) -> float:
    """The largest error in units in the last place; inf where a NaN or a wrong infinity is among
    them.
    """
    distance = ulps(actual, truth)
    return float(torch.where(distance.isnan(), torch.inf, distance).max())


def max_excess(actual: Tensor, truth: Exact, slack: Tensor) -> float:
    """The largest error in units in the last place after `slack`, an absolute allowance, is taken
    off.
    """
    distance = (error(actual, truth) - slack).clamp(min=0.0)
    distance = distance / unit_in_last_place(truth.high, actual.dtype)
    return float(torch.where(distance.isnan(), torch.inf, distance).max())
