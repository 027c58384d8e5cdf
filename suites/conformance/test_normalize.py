"""Normalisation: accuracy over each dtype's whole range, the floor eps, zero vectors, non-finite
rows, layouts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

import kernels
from kernels.normalize import reference
from suites.conformance import exact

Draw = Callable[..., torch.Tensor]


def _check(x: torch.Tensor, upstream: torch.Tensor, eps: float = 1e-12) -> None:
    """The direction within 2 ULP; the gradient within 2 ULP and 6 u (|g_j| + |y_j| sum|y g|) /
    norm.

    The gradient's two terms may cancel. The second carries the roundings of y (twice), of the sum
    (held wider up to fp32), of a product; both those of the difference and of the quotient.
    """
    x = x.detach().clone().requires_grad_()
    y = kernels.normalize(x, dim=-1, eps=eps)
    y.backward(upstream)
    assert x.grad is not None
    true_y, true_gradient, size = exact.normalize(x, upstream, eps)
    assert exact.max_ulps(y, true_y) <= 2.0
    statistics = torch.float64 if x.dtype == torch.float64 else torch.float32
    slack = 6 * torch.finfo(statistics).eps / 2 * size
    assert exact.max_excess(x.grad, true_gradient, slack) <= 2.0


# One element; a tile's width of 64 and one to either side; two tiles and one more; an odd rest.
@pytest.mark.parametrize("width", [1, 2, 63, 64, 65, 128, 129, 300])
@pytest.mark.usefixtures("way")
def test_random_rows(width: int, dtype: torch.dtype, draw: Draw) -> None:
    """Direction and gradient agree with certified truth for a random upstream gradient."""
    _check(draw(5, width, dtype=dtype), draw(5, width, dtype=dtype))


@pytest.mark.usefixtures("route")
def test_a_long_row(dtype: torch.dtype, draw: Draw) -> None:
    """The bounds hold over 5000 columns at the tile size that is really used."""
    _check(draw(2, 5000, dtype=dtype), draw(2, 5000, dtype=dtype))


# Where the large entry is: in the first tile (later ones are scaled down), the last (the sum so far
# is), nowhere.
@pytest.mark.parametrize("peak", [0, 199, None])
@pytest.mark.usefixtures("way")
def test_the_whole_range(peak: int | None, dtype: torch.dtype, draw: Draw) -> None:
    """From the smallest subnormal to the largest value, with no floor: squares neither vanish nor
    overflow.
    """
    info = torch.finfo(dtype)
    tiny, huge = info.smallest_normal * info.eps, info.max
    rows = draw(6, 200, dtype=torch.float64).clamp(-3, 3)
    scales = [tiny, info.smallest_normal, math.sqrt(tiny), 1.0, math.sqrt(huge), huge / 4]
    rows = rows * torch.tensor(scales, dtype=torch.float64, device=rows.device)[:, None]
    if peak is not None:
        rows[:, peak] *= 2.0**20 if dtype != torch.float16 else 16.0
    x = rows.clamp(-huge, huge).to(dtype)
    # An upstream gradient in proportion to x keeps the true gradient near 1, whatever the norm.
    upstream = (draw(6, 200, dtype=torch.float64) * rows.abs().amax(-1, keepdim=True)).clamp(
        -huge, huge
    )
    _check(x, upstream.to(dtype), eps=0.0)


# 6e4 in fp16 and 1e38 in fp32 and bf16 are where everyone else's sum of squares is inf and the
# result 0.
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("float16", 6e4),
        ("bfloat16", 1e38),
        ("float32", 1e38),
        ("float64", 1e308),
        ("float32", 1e-45),
    ],
)
@pytest.mark.usefixtures("route")
def test_constant_rows_at_the_ends(name: str, value: float, device: torch.device) -> None:
    """A constant row of 64 becomes 1/8 throughout, and its gradient is exactly 0 for a constant
    upstream.
    """
    x = torch.full((2, 64), value, dtype=getattr(torch, name), device=device).requires_grad_()
    y = kernels.normalize(x, eps=0.0)
    assert torch.equal(y, torch.full_like(y, 0.125))
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    assert not x.grad.any()


# Below, at and above the floor, and floors on both sides of 1, where the comparison changes its
# side.
@pytest.mark.parametrize("eps", [1e-12, 1e-3, 1.0, 100.0])
@pytest.mark.usefixtures("route")
def test_the_floor(eps: float, draw: Draw, device: torch.device) -> None:
    """Vectors shorter than eps are divided by eps, exactly eps of the statistics' dtype; others by
    their norm.
    """
    for dtype in (torch.float32, torch.float64):
        scales = torch.tensor([1e-6, 0.3, 1.0, 3.0, 1e6], dtype=torch.float64, device=device) * eps
        x = (draw(5, 8, dtype=torch.float64) * scales[:, None]).to(dtype)
        rounded = torch.tensor(eps, dtype=dtype).item()
        _check(x, draw(5, 8, dtype=dtype), eps=rounded)


@pytest.mark.usefixtures("way")
def test_zero_vectors(dtype: torch.dtype, device: torch.device) -> None:
    """A zero vector has direction 0 and, by policy, gradient 0, with a floor and without one."""
    for eps in (1e-12, 0.0, 10.0):
        x = torch.zeros(3, 130, dtype=dtype, device=device)
        x[1] = 1.0
        x.requires_grad_()
        y = kernels.normalize(x, eps=eps)
        y.backward(torch.ones_like(y))
        assert x.grad is not None
        assert not y[[0, 2]].any()
        assert not x.grad[[0, 2]].any()
        assert bool((y[1] > 0).all())


@pytest.mark.usefixtures("way")
def test_non_finite_rows(dtype: torch.dtype, device: torch.device) -> None:
    """A NaN or an infinity, in x or in the upstream gradient, spoils the elements that it spoils in
    torch.
    """
    for filler in (0, 100):
        rows = [
            [math.nan, 1.0, 2.0],
            [math.inf, 1.0, -2.0],
            [3.0, -math.inf, math.inf],
            [1.0, 2.0, 2.0],
        ]
        x = torch.tensor([r + [1.0] * filler for r in rows * 2], dtype=dtype, device=device)
        upstream = torch.ones_like(x)
        upstream[7, 0] = math.nan
        results = []
        for function, v in ((kernels.normalize, x), (F.normalize, x.double())):
            v = v.clone().requires_grad_()
            y = function(v)
            y.backward(upstream.to(v.dtype))
            results.append((y.detach().double(), v.grad.double()))
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, equal_nan=True, rtol=1e-2, atol=1e-6)


@pytest.mark.usefixtures("route")
def test_dimensions_and_layouts(draw: Draw) -> None:
    """Any dimension, negative ones, views and empty tensors give torch's shape and fp64 values."""
    base = draw(2, 3, 70, dtype=torch.float64)
    for x in (base, base.transpose(0, 2), base[:, :, ::3], base[:, :1].expand(2, 3, 70)):
        for dim in (0, 1, -1):
            x = x.detach().requires_grad_()
            upstream = draw(*x.shape, dtype=torch.float64)
            ours, theirs = kernels.normalize(x, dim=dim), F.normalize(x, dim=dim)
            torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)
            (a,), (b,) = (torch.autograd.grad(y, x, upstream) for y in (ours, theirs))
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-14)
    for shape in ((0, 4), (4, 0)):
        assert kernels.normalize(draw(*shape, dtype=torch.float32)).shape == shape
    assert kernels.normalize(draw(1, dtype=torch.float32)[0].abs(), dim=0).item() == 1.0


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"p": -1.0}, ValueError, "p=-1.0"),
        ({"dim": 2}, IndexError, r"\(3, 4\), got 2"),
        ({"eps": -1.0}, ValueError, "got -1.0"),
        ({"eps": math.nan}, ValueError, "got nan"),
        ({"eps": 1e39}, ValueError, "float32, got 1e"),
        ({"input": torch.zeros(3, 4, dtype=torch.int32)}, TypeError, "int32"),
    ],
)
def test_errors_restate_the_input(
    change: dict[str, object], error: type[Exception], words: str
) -> None:
    """Bad input raises the documented error with the offending value in the message."""
    with pytest.raises(error, match=words):
        kernels.normalize(**({"input": torch.zeros(3, 4)} | change))  # type: ignore[arg-type]


def test_reference_formulas(draw: Draw) -> None:
    """The formulas people write agree with certified truth on tame rows, along any dimension."""
    x = draw(6, 8, dtype=torch.float64)
    truth = exact.normalize(x, x, 0.0)[0].sum()
    for name in ("naive", "epsilon", "torch_native"):
        function = getattr(reference, name)
        torch.testing.assert_close(function(x).cpu(), truth, rtol=1e-11, atol=0)
        torch.testing.assert_close(function(x.t(), dim=0).t().cpu(), truth, rtol=1e-11, atol=0)
