"""Certified softmax and log-softmax in ball arithmetic: values, gradients, and what cancels."""

from __future__ import annotations

import torch
from flint import arb
from torch import Tensor

from harness.formats import format_of
from suites.conformance.exact import Exact, _pack, _rows, _set_precision

MINUS_INFINITY = float("-inf")


def _powers(row: list[arb]) -> tuple[list[arb], arb, arb]:
    """exp(x_j - max) for each entry, exactly 0 for -inf; the maximum; what d exceeds 1 by."""
    finite = [v for v in row if v.is_finite()]
    top = max(finite, key=float)
    powers = [(v - top).exp() if v.is_finite() else arb(0) for v in row]
    first = next(j for j, v in enumerate(row) if v == top)
    beyond = sum((p for j, p in enumerate(powers) if j != first), arb(0))
    return powers, top, beyond


def forward(x: Tensor, log: bool) -> Exact:
    """softmax or log-softmax of rows (N, K): finite or -inf entries, a finite one in each row."""
    _set_precision()
    values: list[arb] = []
    for row in _rows(x):
        powers, top, beyond = _powers(row)
        if log:
            normalizer = beyond.log1p()
            values += [v - top - normalizer for v in row]
        else:
            values += [p / (1 + beyond) for p in powers]
    return _pack(values, x.shape)


def backward(x: Tensor, upstream: Tensor, log: bool) -> tuple[Exact, Tensor]:
    """The gradient of the same rows for an upstream gradient, and the sum of its terms' sizes:
    y_i (|g_i| + sum |y_j g_j|), or |g_i| + y_i sum |g_j|.
    """
    _set_precision()
    values: list[arb] = []
    sizes: list[float] = []
    for row, g in zip(_rows(x), _rows(upstream), strict=True):
        powers, _, beyond = _powers(row)
        y = [p / (1 + beyond) for p in powers]
        terms = g if log else [a * b for a, b in zip(y, g, strict=True)]
        total = sum(terms, arb(0))
        size = sum((abs(term) for term in terms), arb(0))
        for p, v in zip(y, g, strict=True):
            values.append(v - p * total if log else p * (v - total))
            sizes.append(float(abs(v) + p * size if log else p * (abs(v) + size)))
    limit = torch.finfo(torch.float64).max
    size_tensor = torch.tensor(sizes, dtype=torch.float64).reshape(x.shape).clamp(max=limit)
    return _pack(values, x.shape), size_tensor


def saturated(truth: Exact, dtype: torch.dtype) -> Exact:
    """The truth with infinities where it rounds to one in a dtype."""
    largest, half_ulp = format_of(dtype).overflow_threshold
    beyond = truth.high.isinf() | (truth.high.abs() - largest >= half_ulp)
    return Exact(
        torch.where(beyond, truth.high.sign() * torch.inf, truth.high),
        torch.where(beyond, 0.0, truth.low),
    )
