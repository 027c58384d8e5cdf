"""softmax and log_softmax: accuracy against certified truth over each dtype's whole range, masks,
gradients for any upstream scale, non-finite rows, dimensions, dtype and errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

import kernels
from suites.conformance import exact, exact_softmax

Draw = Callable[..., torch.Tensor]
NAMES = ("softmax", "log_softmax")
# k of the gradient's slack, as derived in suites/catalog/softmax.py and log_softmax.py.
FACTOR = {"softmax": 12, "log_softmax": 7}

both = pytest.mark.parametrize("name", NAMES)

# The interpreter computes in NumPy, which warns of what is judged here: infinities that are right.
pytestmark = pytest.mark.filterwarnings(
    "ignore:(overflow|invalid value) encountered in:RuntimeWarning"
)


def _check(name: str, x: torch.Tensor, upstream: torch.Tensor) -> None:
    """The result within 2 ULP; the gradient within 2 ULP and k u of its terms, which may cancel."""
    log = name == "log_softmax"
    x = x.detach().clone().requires_grad_()
    y = getattr(kernels, name)(x)
    y.backward(upstream)
    assert x.grad is not None
    truth = exact_softmax.saturated(exact_softmax.forward(x, log), x.dtype)
    assert exact.max_ulps(y, truth) <= 2.0
    truth, size = exact_softmax.backward(x, upstream, log)
    truth = exact_softmax.saturated(truth, x.dtype)
    statistics = torch.float64 if x.dtype == torch.float64 else torch.float32
    slack = FACTOR[name] * torch.finfo(statistics).eps / 2 * size
    assert exact.max_excess(x.grad, truth, slack) <= 2.0


# One element; a block (and piece) of 64 and one to either side; two blocks and one more; an odd
# rest, held in several pieces.
@pytest.mark.parametrize(
    "width", [1, 65, 300, *(pytest.param(w, marks=pytest.mark.full) for w in (2, 63, 64, 129))]
)
@pytest.mark.usefixtures("way")
@both
def test_random_rows(name: str, width: int, dtype: torch.dtype, draw: Draw) -> None:
    """Result and gradient agree with certified truth, for flat rows and for steep ones."""
    steepness = torch.tensor([[0.1], [3.0], [20.0], [300.0]], dtype=torch.float64)
    x = draw(4, width, dtype=torch.float64) * steepness.to(draw(1, dtype=dtype).device)
    _check(name, x.to(dtype), draw(4, width, dtype=dtype))


# 5,000 is held in two pieces, 20,000 is wider than what any dtype holds on chip.
@pytest.mark.parametrize("width", [5000, pytest.param(20_000, marks=pytest.mark.full)])
@both
def test_long_rows(name: str, width: int, dtype: torch.dtype, draw: Draw) -> None:
    """The bounds hold over long rows at the tile sizes that are really used."""
    _check(name, draw(2, width, dtype=dtype, scale=3.0), draw(2, width, dtype=dtype))


def _whole_range(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (8, 130) whose gaps and upstream gradients reach over the range of the dtype."""
    generator = torch.Generator().manual_seed(8)
    info = torch.finfo(dtype)
    largest = torch.tensor(info.max, dtype=torch.float64)
    tiny = info.smallest_normal * info.eps
    gaps = -torch.rand(2, 130, generator=generator, dtype=torch.float64)
    # Probabilities that are subnormal, or below, but count beside an upstream gradient near the
    # dtype's largest value: down to its smallest subnormal over its largest.
    deepest = math.log(info.max) - math.log(info.smallest_normal * info.eps)
    x = torch.cat([gaps, gaps * deepest, gaps, gaps * deepest])
    x[4, 7], x[4, 90], x[5, 7] = largest, -largest, largest
    x[6, ::3], x[7, 1::2] = -math.inf, -math.inf
    exponents = torch.rand(130, generator=generator, dtype=torch.float64)
    low, high = math.log2(info.smallest_normal) - math.log2(1 / info.eps), math.log2(info.max)
    sign = torch.randint(2, (8, 130), generator=generator) * 2 - 1
    upstream = sign * torch.exp2(low + exponents * (high - low)).clamp(max=largest)
    upstream[1] = sign[1] * largest
    upstream[3] = sign[3] * largest
    upstream[5] = sign[5] * tiny
    return x.to(dtype), upstream.to(dtype)


@pytest.mark.usefixtures("way")
@both
def test_the_whole_range(name: str, dtype: torch.dtype, device: torch.device) -> None:
    """Gaps up to twice the largest value, probabilities below the smallest subnormal, upstream
    gradients from end to end: nothing overflows or vanishes that the dtype can hold.
    """
    x, upstream = _whole_range(dtype)
    _check(name, x.to(device), upstream.to(device))


@pytest.mark.usefixtures("way")
@both
def test_masked_blocks(name: str, dtype: torch.dtype, draw: Draw) -> None:
    """Whole blocks of -inf, first, last or in the middle, change nothing for the entries that are
    visible: exactly what the row without them gives.
    """
    x = draw(4, 256, dtype=dtype)
    for row, hidden in enumerate((slice(0, 128), slice(64, 256), slice(64, 192))):
        x[row, hidden] = -math.inf
    _check(name, x, draw(4, 256, dtype=dtype))


@pytest.mark.usefixtures("way")
@both
def test_offsets_change_nothing(name: str, dtype: torch.dtype, draw: Draw) -> None:
    """An offset that the dtype adds exactly leaves every bit as it was."""
    x = draw(3, 130, dtype=torch.float64).mul(4).round().to(dtype)
    offset = 2.0 ** (round(math.log2(1 / torch.finfo(dtype).eps)) - 1)
    function = getattr(kernels, name)
    assert torch.equal(function(x), function(x + offset))


@pytest.mark.usefixtures("way")
@both
def test_non_finite_rows(name: str, dtype: torch.dtype, device: torch.device) -> None:
    """A NaN or an infinity, in x or in the upstream gradient, gives what it gives in torch in fp64,
    and touches no other row.
    """
    nan, inf = math.nan, math.inf
    heads = [[nan, 1.0], [inf, 1.0], [inf, -inf], [-inf, -inf], [-inf, 1.0]]
    x = torch.tensor([[*head] + [0.5] * 70 for head in heads * 2 + [[0.0, 1.0]] * 5])
    x[3, 2:] = -inf  # masked whole
    x[10, 1] = -inf  # a masked entry whose upstream gradient is infinite
    upstream = torch.ones_like(x)
    for row, (place, value) in enumerate([(1, inf), (0, nan), (68, -inf), (2, inf)]):
        upstream[10 + row, place] = value
    upstream[13, 3] = -inf
    x, upstream = x.to(dtype).to(device), upstream.to(dtype).to(device)
    results = []
    for function, v in ((getattr(kernels, name), x), (getattr(torch, name), x.double())):
        v = v.clone().requires_grad_()
        y = function(v, -1)
        y.backward(upstream.to(v.dtype))
        results.append((y.detach().double(), v.grad.double()))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True, rtol=1e-2, atol=1e-6)


@pytest.mark.usefixtures("route")
@both
def test_dimensions_and_layouts(name: str, draw: Draw) -> None:
    """Any dimension, negative ones, views, scalars and empty tensors give torch's shape and fp64
    values.
    """
    ours, theirs = getattr(kernels, name), getattr(torch, name)
    base = draw(2, 3, 70, dtype=torch.float64)
    for x in (base, base.transpose(0, 2), base[:, :1, ::3].expand(2, 3, 24)):
        for dim in (0, -2, 2):
            x = x.detach().requires_grad_()
            upstream = draw(*x.shape, dtype=torch.float64)
            a, b = ours(x, dim), theirs(x, dim)
            torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)
            (a,), (b,) = (torch.autograd.grad(y, x, upstream) for y in (a, b))
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-14)
    for shape in ((0, 4), (4, 0)):
        x = draw(*shape, dtype=torch.float32).requires_grad_()
        y = ours(x)
        assert y.shape == shape
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert gradient.shape == shape
    assert ours(draw(1, dtype=torch.float32)[0]).item() == theirs(torch.tensor(3.0), 0).item()


@pytest.mark.usefixtures("route")
@both
def test_dtype_casts_the_input_first(name: str, draw: Draw) -> None:
    """`dtype` gives bit for bit what casting the input first gives, result and gradient, and the
    gradient comes back in the input's dtype.
    """
    function = getattr(kernels, name)
    for start in (torch.float16, torch.bfloat16, torch.float32):
        x = draw(3, 40, dtype=start, scale=4.0).requires_grad_()
        for dtype in (torch.float16, torch.float32, torch.float64):
            upstream = draw(3, 40, dtype=dtype)
            results = []
            for y in (function(x, dtype=dtype), function(x.to(dtype))):
                assert y.dtype == dtype
                (gradient,) = torch.autograd.grad(y, x, upstream)
                assert gradient.dtype == start
                results.append((y, gradient))
            for one, other in zip(*results, strict=True):
                assert torch.equal(one, other)
    counts = torch.arange(6).reshape(2, 3).to(x.device)
    expected = getattr(torch, name)(counts, -1, dtype=torch.float32)
    torch.testing.assert_close(function(counts, dtype=torch.float32), expected)


@pytest.mark.usefixtures("way")
@both
def test_same_bits_twice_and_untouched_inputs(name: str, dtype: torch.dtype, draw: Draw) -> None:
    """Two runs agree in every bit, and neither changes one of the input."""
    x = draw(4, 130, dtype=dtype).requires_grad_()
    before, upstream = x.detach().clone(), draw(4, 130, dtype=dtype)
    runs = []
    for _ in range(2):
        y = getattr(kernels, name)(x)
        runs.append((y, *torch.autograd.grad(y, x, upstream)))
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(x.detach(), before)


@pytest.mark.full
@both
def test_derivatives_and_transforms(name: str, draw: Draw) -> None:
    """First and second derivatives agree with finite differences; vmap over any dimension and
    torch.func.grad with torch.
    """
    ours, theirs = getattr(kernels, name), getattr(torch, name)
    x = draw(2, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(ours, (x,))
    assert torch.autograd.gradgradcheck(ours, (x,))
    v = draw(2, 3, 7, dtype=torch.float64)
    for dim in (0, 1, 2):
        mapped = torch.func.vmap(torch.func.grad(lambda r: ours(r).square().sum()), in_dims=dim)(v)
        expected = torch.func.vmap(
            torch.func.grad(lambda r: theirs(r, -1).square().sum()), in_dims=dim
        )(v)
        torch.testing.assert_close(mapped, expected)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"dim": 2}, IndexError, r"\(3, 4\), got 2"),
        ({"dim": -3}, IndexError, r"\(3, 4\), got -3"),
        ({"input": torch.zeros(3, 4, dtype=torch.int32)}, TypeError, "int32"),
        ({"dtype": torch.int64}, TypeError, "int64"),
    ],
)
@both
def test_errors_restate_the_input(
    name: str, change: dict[str, object], error: type[Exception], words: str
) -> None:
    """Bad input raises the documented error with the offending value in the message."""
    with pytest.raises(error, match=words):
        getattr(kernels, name)(**({"input": torch.zeros(3, 4)} | change))
