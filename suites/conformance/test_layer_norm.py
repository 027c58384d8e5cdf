"""layer_norm: value and gradients against certified truth, over widths, rows and each dtype's whole
range.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch

import kernels
from suites.conformance import exact, exact_norms
from suites.conformance.conftest import DTYPES

Draw = Callable[..., torch.Tensor]
FULL = pytest.mark.full
check = functools.partial(exact_norms.check, centred=True)


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
    """The value and all gradients agree with certified truth for random upstream."""
    x, g = draw(4, width, dtype=dtype), draw(4, width, dtype=dtype)
    check(x, draw(width, dtype=dtype), draw(width, dtype=dtype), g)
    if width > 100:
        check(x, None, draw(width, dtype=dtype), g)
        check(x, None, None, g)


# No row; one; a block of 4 and one more; several chunks of the sum over rows.
@pytest.mark.parametrize("rows", [0, 13, pytest.param(1, marks=FULL), pytest.param(61, marks=FULL)])
@pytest.mark.usefixtures("small_tiles", "route")
def test_sums_over_rows(rows: int, dtype: torch.dtype, draw: Draw) -> None:
    """Gradients of weight and bias are right however the rows are cut in chunks; 0 without rows."""
    x, g = draw(rows, 70, dtype=dtype), draw(rows, 70, dtype=dtype)
    weight, bias = draw(70, dtype=dtype), draw(70, dtype=dtype)
    if rows:
        check(x, weight, bias, g)
    else:
        found = exact_norms.run(x, weight, bias, g, 1e-5, centred=True)
        assert found["x"].shape == (0, 70)
        for name in ("weight", "bias"):
            assert torch.equal(found[name], torch.zeros_like(weight))


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
    check(x, weight, -weight, g, true=exact_norms.extended_truth)


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
    check(x, draw(130, dtype=dtype), draw(130, dtype=dtype), upstream, 0.0)


# Upstream gradients at both ends of the dtype, on rows near 1.
@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.usefixtures("route")
def test_upstream_at_the_ends(end: int, dtype: torch.dtype, draw: Draw) -> None:
    """Tiny and huge upstream gradients neither vanish nor overflow on the way."""
    scale = _ends(dtype)[end] / (1 if end == 0 else 8)
    upstream = (draw(4, 130, dtype=torch.float64).clamp(-2, 2) * scale).to(dtype)
    check(draw(4, 130, dtype=dtype), draw(130, dtype=dtype), draw(130, dtype=dtype), upstream)


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
        check(x, w.roll(roll), w.roll(roll + 4), u.roll(3 * roll, 1), 0.0)


# 6e4 in fp16 and 1e38 in bf16 and fp32 are where sums and squares overflow; 1/3 uses all its bits.
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fp16", 6e4),
        ("bf16", 1e38),
        ("fp32", 1e38),
        ("fp64", 1e308),
        ("fp32", 1e-45),
        ("fp64", 1 / 3),
    ],
)
@pytest.mark.usefixtures("route")
def test_constant_rows(name: str, value: float, draw: Draw, device: torch.device) -> None:
    """A constant row gives exactly the bias, even with eps=1e-12 in fp16, and its gradient is
    finite: exactly 0 where the upstream gradient is constant, too.
    """
    dtype = DTYPES[name]
    bias = draw(131, dtype=dtype)
    x = torch.full((2, 131), value, dtype=dtype, device=device).requires_grad_()
    for eps in (1e-12, 0.0):
        y = kernels.layer_norm(x, (131,), None, bias, eps)
        assert torch.equal(y, bias.expand(2, 131))
        (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
        assert torch.equal(gradient, torch.zeros_like(gradient))


# An offset that leaves the noise few bits of each dtype's mantissa; in fp64, which has nothing
# wider, one below 2**17 times the noise.
@pytest.mark.parametrize(
    ("name", "offset"), [("fp16", 1e2), ("bf16", 3e1), ("fp32", 1e4), ("fp64", 1e4)]
)
@pytest.mark.usefixtures("way")
def test_offset_rows(name: str, offset: float, draw: Draw) -> None:
    """A large common offset costs nothing: value and gradient keep what the inputs hold of the
    noise, to a few ULP and not only to the terms' size.
    """
    x = (draw(4, 130, dtype=torch.float64) + offset).to(DTYPES[name])
    g = draw(4, 130, dtype=DTYPES[name])
    check(x, None, None, g)
    y = kernels.layer_norm(x, (130,))
    truth = exact_norms.truth(x, None, None, g, 1e-5, centred=True).y.value
    assert exact.max_ulps(y, truth) <= 8.0


@pytest.mark.usefixtures("route")
def test_a_bias_that_brings_back_an_overflow(dtype: torch.dtype, device: torch.device) -> None:
    """weight times direction may overflow where the bias makes the sum finite again."""
    huge = torch.finfo(dtype).max
    x = torch.tensor([[-1.0] * 7 + [7.0]], dtype=dtype, device=device)  # the last becomes 2.6
    weight = torch.full((8,), huge / 2, dtype=dtype, device=device)
    check(x, weight, -weight, torch.zeros_like(x), 0.0)
    assert kernels.layer_norm(x, (8,), weight, -weight, 0.0)[0, 7].isfinite()


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
