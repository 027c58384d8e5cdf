"""Normalisation by a norm other than the Euclidean one: accuracy over the whole range, torch's
choices where the derivative is not unique, second derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import flint
import pytest
import torch
import torch.nn.functional as F
from flint import arb

import kernels
from suites.conformance import exact

Draw = Callable[..., torch.Tensor]

# Below 1 (no norm, but torch takes it), the corner at 1, ordinary ones, one whose powers leave
# fp64's range, and the two limits.
EXPONENTS = [0.0, 0.5, 1.0, 1.5, 3.0, 2000.0, math.inf]


def _size(row: list[arb], p: float) -> arb:
    if p == math.inf:
        return max(abs(v) for v in row)
    if p == 0.0:
        return arb(sum(1 for v in row if v != 0))
    return sum((abs(v) ** arb(p) for v in row if v != 0), arb(0)) ** (1 / arb(p))


def _pull(y: arb, p: float) -> arb:
    """sign(y) |y|**(p-1), for p finite and positive."""
    if y == 0:
        return arb(0)
    return y / abs(y) * abs(y) ** (arb(p) - 1)


def _truth(
    x: torch.Tensor, g: torch.Tensor, p: float
) -> tuple[exact.Exact, exact.Exact, torch.Tensor]:
    """Direction, gradient, and the sum of the sizes of the gradient's terms; rows (N, K)."""
    flint.ctx.prec = 700  # |y|**1999 and its sums keep their bits
    values, gradients, sizes = [], [], []
    for row, up in zip(x.double().cpu().tolist(), g.double().cpu().tolist(), strict=True):
        row_, up_ = [arb(v) for v in row], [arb(v) for v in up]
        norm = _size(row_, p)
        y = [v / norm for v in row_]
        dot = sum((a * b for a, b in zip(y, up_, strict=True)), arb(0))
        spread = sum((abs(a * b) for a, b in zip(y, up_, strict=True)), arb(0))
        if p == math.inf:
            at_top = [abs(v) == norm for v in row_]
            pulls = [
                v / norm / sum(at_top) if top else arb(0)
                for v, top in zip(row_, at_top, strict=True)
            ]
        elif p == 0.0:
            pulls = [arb(0)] * len(row)
        else:
            pulls = [_pull(v, p) for v in y]
        values += y
        gradients += [(b - a * dot) / norm for a, b in zip(pulls, up_, strict=True)]
        sizes += [float((abs(b) + abs(a) * spread) / norm) for a, b in zip(pulls, up_, strict=True)]
    size = torch.tensor(sizes, dtype=torch.float64).reshape(x.shape)
    return exact._pack(values, x.shape), exact._pack(gradients, x.shape), size


@pytest.mark.parametrize("p", EXPONENTS)
def test_the_whole_range(p: float, dtype: torch.dtype, draw: Draw) -> None:
    """Within 2 ULP from subnormal to largest; the gradient within 2 ULP and k u of its terms.

    For p below 1 the root multiplies the relative error of its sum, 2u in fp64, by 1 / p. Each y
    errs by 3u (root, quotient, half the power's), its power p - 1 by |p - 1| times that, the sum by
    3u more, products, difference and quotient by u each: k = 10 + 3 |p - 1|.
    """
    info = torch.finfo(dtype)
    tiny, huge = info.smallest_normal * info.eps, info.max
    scales = [tiny * 8, info.smallest_normal, 1.0, huge / 4]
    rows = draw(4, 9, dtype=torch.float64).clamp(-3, 3)
    rows = rows * torch.tensor(scales, dtype=torch.float64, device=rows.device)[:, None]
    x = rows.to(dtype)
    size = x.double().abs().amax(-1, keepdim=True)
    upstream = (draw(4, 9, dtype=torch.float64) * size).clamp(-huge, huge).to(dtype)
    x.requires_grad_()
    y = kernels.normalize(x, p, dim=-1, eps=0.0)
    y.backward(upstream)
    assert x.grad is not None
    true_y, true_gradient, terms = _truth(x.detach(), upstream, p)
    assert exact.max_ulps(y, true_y) <= 2.0 + (1 / p if 0.0 < p < 1.0 else 0.0)
    statistics = torch.float64 if dtype == torch.float64 else torch.float32
    moment = 0.0 if math.isinf(p) else abs(p - 1)
    slack = (10 + 3 * moment) * torch.finfo(statistics).eps / 2 * terms
    assert exact.max_excess(x.grad, true_gradient, slack) <= 2.0


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 3.0, math.inf])
def test_torchs_choices(p: float, device: torch.device) -> None:
    """Zeros, ties, the floor eps and non-finite rows give what torch gives in fp64."""
    x = torch.tensor(
        [[0.0, 2.0, -2.0], [1e-9, 0.0, 0.0], [3.0, 3.0, -3.0], [math.nan, 1.0, 2.0]],
        dtype=torch.float64,
        device=device,
    )
    upstream = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64, device=device).expand(4, 3)
    results = []
    for function in (kernels.normalize, F.normalize):
        v = x.clone().requires_grad_()
        y = function(v, p, dim=1, eps=1e-6)
        y.backward(upstream)
        results.append((y.detach(), v.grad))
    (ours, our_gradient), (theirs, their_gradient) = results
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0, equal_nan=True)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-12, atol=1e-14, equal_nan=True)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 3.0, math.inf])
def test_second_derivatives(p: float, draw: Draw) -> None:
    """gradcheck and gradgradcheck hold away from zeros and ties."""
    x = draw(3, 4, dtype=torch.float64).requires_grad_()

    def direction(x: torch.Tensor) -> torch.Tensor:
        return kernels.normalize(x, p, dim=1)

    assert torch.autograd.gradcheck(direction, x)
    assert torch.autograd.gradgradcheck(direction, x)
