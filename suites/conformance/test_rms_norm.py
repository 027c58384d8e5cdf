"""rms_norm: value and gradients against certified truth, over widths, rows and each dtype's whole
range.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

import kernels
from suites.conformance import exact_norms
from suites.conformance.conftest import DTYPES

Draw = Callable[..., torch.Tensor]
FULL = pytest.mark.full
check = functools.partial(exact_norms.check, centred=False)


def _ends(dtype: torch.dtype) -> tuple[float, float]:
    """The smallest subnormal and the largest value."""
    info = torch.finfo(dtype)
    return info.smallest_normal * info.eps, info.max


# One to three elements; a block of 64 and one to either side; two blocks and one more; an odd rest.
@pytest.mark.parametrize(
    "width", [1, 65, *(pytest.param(k, marks=FULL) for k in (2, 3, 63, 64, 128, 129, 300))]
)
@pytest.mark.usefixtures("way")
def test_random_rows(width: int, dtype: torch.dtype, draw: Draw) -> None:
    """Value, input's and weight's gradient agree with certified truth for random upstream."""
    x, g = draw(4, width, dtype=dtype), draw(4, width, dtype=dtype)
    check(x, draw(width, dtype=dtype), None, g)
    if width > 100:
        check(x, None, None, g)


# No row; one; a block of 4 and one more; several chunks of the sum over rows.
@pytest.mark.parametrize("rows", [0, 13, pytest.param(1, marks=FULL), pytest.param(61, marks=FULL)])
@pytest.mark.usefixtures("small_tiles", "route")
def test_sums_over_rows(rows: int, dtype: torch.dtype, draw: Draw) -> None:
    """The weight's gradient is right however the rows are cut into chunks, and 0 without rows."""
    x, g = draw(rows, 70, dtype=dtype), draw(rows, 70, dtype=dtype)
    weight = draw(70, dtype=dtype)
    if rows:
        check(x, weight, None, g)
    else:
        found = exact_norms.run(x, weight, None, g, 1e-5, centred=False)
        assert found["x"].shape == (0, 70)
        assert torch.equal(found["weight"], torch.zeros_like(weight))


# The widest row held on chip (16,384; 8,192 for fp64), one
# more; GPT-2's vocabulary, an odd width; the widest hidden size that is promised.
@pytest.mark.parametrize(
    ("width", "name"),
    [
        (8193, "fp64"),
        (50_257, "bf16"),
        *(
            pytest.param(width, name, marks=FULL)
            for width in (8192, 16384, 16385, 262_144)
            for name in DTYPES
        ),
    ],
)
@pytest.mark.usefixtures("route")
def test_wide_rows(width: int, name: str, draw: Draw) -> None:
    """The bounds hold over wide rows, at the tile sizes that are really used."""
    shapes = ((2, width), (width,), (2, width))
    x, weight, g = (draw(*shape, dtype=DTYPES[name]) for shape in shapes)
    check(x, weight, None, g, true=exact_norms.extended_truth)


# Where the large entry is: in the first block (later ones are scaled down), the last (the sum so
# far is), nowhere.
@pytest.mark.parametrize("peak", [0, *(pytest.param(k, marks=FULL) for k in (129, None))])
@pytest.mark.usefixtures("way")
def test_the_whole_range(peak: int | None, dtype: torch.dtype, draw: Draw) -> None:
    """From the smallest subnormal to the largest value, with no floor: squares neither vanish nor
    overflow.
    """
    tiny, huge = _ends(dtype)
    rows = draw(4, 130, dtype=torch.float64).clamp(-3, 3)
    scales = [tiny * 5, math.sqrt(tiny), math.sqrt(huge), huge / 4]
    rows = rows * torch.tensor(scales, dtype=torch.float64, device=rows.device)[:, None]
    if peak is not None:
        rows[:, peak] *= 2.0**20 if dtype != torch.float16 else 16.0
    x = rows.clamp(-huge, huge).to(dtype)
    # An upstream gradient in proportion to x keeps the true gradient near 1, whatever the norm.
    upstream = draw(4, 130, dtype=torch.float64) * rows.abs().amax(-1, keepdim=True)
    upstream = upstream.clamp(-huge, huge).to(dtype)
    check(x, draw(130, dtype=dtype), None, upstream, 0.0)


# Upstream gradients at both ends of the dtype, on rows near 1.
@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.usefixtures("route")
def test_upstream_at_the_ends(end: int, dtype: torch.dtype, draw: Draw) -> None:
    """Tiny and huge upstream gradients neither vanish nor overflow on the way."""
    scale = _ends(dtype)[end] / (1 if end == 0 else 8)
    upstream = (draw(4, 130, dtype=torch.float64).clamp(-2, 2) * scale).to(dtype)
    check(draw(4, 130, dtype=dtype), draw(130, dtype=dtype), None, upstream)


# Entries of one row, weight or upstream gradient that lie a dtype's range apart: what is small
# there may be large in the result.
@pytest.mark.parametrize("name", ["bf16", "fp32", "fp64"])
@pytest.mark.usefixtures("way")
def test_wide_spans(name: str, device: torch.device) -> None:
    """A row, its weight and its upstream gradient may each span the dtype's range: every entry is
    right.
    """
    dtype = DTYPES[name]
    tiny, huge = _ends(dtype)
    small, large = math.sqrt(tiny), math.sqrt(huge)
    values = [1.0, huge / 2, tiny * 8, small, large, tiny, 1.0, 0.0]
    rows = [values, values[::-1], [small, tiny] * 4, [large, tiny] * 4]
    weight = [1.0, tiny, huge / 4, large, small, huge / 8, 3.0, huge / 2]
    g = [[1.0, huge / 64, tiny * 64, small, large, 0.0, tiny, small]] * 4
    x, w, u = (torch.tensor(v, dtype=torch.float64).to(dtype).to(device) for v in (rows, weight, g))
    for roll in range(0, 8, 3):
        check(x, w.roll(roll), None, u.roll(3 * roll, 1), 0.0)


# 6e4 in fp16 and 1e38 in bf16 and fp32 are where everyone else's squares are inf and the result 0.
@pytest.mark.parametrize(
    ("name", "value"),
    [("fp16", 6e4), ("bf16", 1e38), ("fp32", 1e38), ("fp64", 1e308), ("fp32", 1e-45)],
)
@pytest.mark.usefixtures("route")
def test_constant_rows_at_the_ends(name: str, value: float, device: torch.device) -> None:
    """A constant row becomes ones, and its gradient for constant upstream is 0 up to rounding."""
    x = torch.full((2, 130), value, dtype=DTYPES[name], device=device).requires_grad_()
    y = kernels.rms_norm(x, (130,), eps=0.0)
    assert torch.equal(y, torch.ones_like(y))


# Below, near and above the mean square of ordinary rows, and beyond fp16's range.
@pytest.mark.parametrize("eps", [1e-12, 1.0, *(pytest.param(e, marks=FULL) for e in (1e-5, 1e30))])
@pytest.mark.usefixtures("route")
def test_the_floor(eps: float, draw: Draw, device: torch.device) -> None:
    """eps is added to the mean square as given, whatever the size of the row."""
    for dtype in DTYPES.values():
        root = math.sqrt(eps)
        scales = torch.tensor([1e-3, 0.3, 1.0, 1e3], dtype=torch.float64, device=device)
        x = draw(4, 70, dtype=torch.float64) * scales[:, None] * root
        huge = torch.finfo(dtype).max
        check(x.clamp(-huge, huge).to(dtype), None, None, draw(4, 70, dtype=dtype), eps)


@pytest.mark.usefixtures("route")
def test_zero_rows(dtype: torch.dtype, draw: Draw, device: torch.device) -> None:
    """A row of zeros gives zeros; its gradient is weight g / sqrt(eps), with eps=0 by policy 0."""
    x = torch.zeros(3, 70, dtype=dtype, device=device)
    for eps in (0.0, 1e-5):
        check(x, draw(70, dtype=dtype), None, draw(3, 70, dtype=dtype), eps)


def test_default_eps(dtype: torch.dtype, device: torch.device) -> None:
    """None is PyTorch's choice: fp32's eps for half precision, and not the input dtype's."""
    x = torch.tensor([[1e-3, 2e-3, -1e-3]], dtype=dtype, device=device)
    ours, theirs = kernels.rms_norm(x, (3,)), F.rms_norm(x, (3,))
    torch.testing.assert_close(ours, theirs, rtol=2 * torch.finfo(dtype).eps, atol=0)
    assert not torch.allclose(ours, F.rms_norm(x, (3,), eps=torch.finfo(torch.float16).eps), 0.1)


def test_both_truths_agree(draw: Draw) -> None:
    """Ball arithmetic and numpy.longdouble give the same to far below what is judged."""
    x, weight, g = (draw(*s, dtype=torch.float64) for s in ((3, 40), (40,), (3, 40)))
    for centred in (False, True):
        arguments = (x, weight, weight if centred else None, g, 1e-5)
        ours, theirs = (
            f(*arguments, centred=centred) for f in (exact_norms.truth, exact_norms.extended_truth)
        )
        for a, b in zip(ours, theirs, strict=True):
            distance = ((a.value.high - b.value.high) + (a.value.low - b.value.low)).abs()
            allowed = 2.0**-58 * (a.value.high.abs() + b.terms)
            assert bool((distance <= allowed).all())
            torch.testing.assert_close(a.terms, b.terms, rtol=1e-14, atol=0)
