"""Binary cross-entropy with logits: accuracy, reductions, non-finite elements, layouts, errors."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

import kernels
from kernels.binary_cross_entropy import reference
from suites.conformance import exact

Draw = Callable[..., torch.Tensor]
bce = kernels.binary_cross_entropy_with_logits


def _check(logits: torch.Tensor, target: torch.Tensor, **weights: torch.Tensor | None) -> None:
    """The loss within 2 ULP; the gradient within 2 ULP and 4 u (|(1-y) sigmoid(x)| + |y
    sigmoid(-x)|).

    The gradient is the difference of those two terms, each of which carries the roundings of 1 - y,
    of the exponential (two) and of a product.
    """
    logits = logits.detach().clone().requires_grad_()
    loss = bce(logits, target, reduction="none", **weights)
    loss.backward(torch.ones_like(loss))
    assert logits.grad is not None
    true_loss, true_gradient, size = exact.binary_cross_entropy(logits, target, **weights)
    assert exact.max_ulps(loss, true_loss) <= 2.0
    slack = 4 * torch.finfo(loss.dtype).eps / 2 * size
    assert exact.max_excess(logits.grad, true_gradient, slack) <= 2.0


@pytest.mark.usefixtures("small_tiles", "route")
def test_random_elements(dtype: torch.dtype, draw: Draw, device: torch.device) -> None:
    """Loss and gradient agree with certified truth for hard and soft targets at every scale."""
    scales = torch.logspace(-6, 4, 8, dtype=torch.float64, device=device)
    logits = (draw(8, 75, dtype=torch.float64) * scales[:, None]).to(dtype)
    target = torch.rand(8, 75, generator=torch.Generator().manual_seed(2)).to(dtype).to(device)
    target[:, :20], target[:, 20:40] = 0.0, 1.0
    _check(logits, target)


@pytest.mark.usefixtures("route")
def test_saturated_elements(dtype: torch.dtype, device: torch.device) -> None:
    """Confident logits keep the loss's relative accuracy until it underflows, wrong ones its size
    and slope.
    """
    end = 744.0 if dtype == torch.float64 else 103.0
    x = torch.linspace(-end, end, 81, dtype=torch.float64).to(dtype).to(device)
    info = torch.finfo(dtype)
    tiny = info.smallest_normal * info.eps
    ends = torch.tensor([info.max, -info.max, tiny, -tiny, 0.0], dtype=dtype, device=device)
    x = torch.cat([x, ends])
    for y in (0.0, 1.0, 0.5):
        _check(x, torch.full_like(x, y))


# Each weight alone and both, in shapes that broadcast: a scalar, a row, a column, all elements.
@pytest.mark.parametrize(
    ("weight", "pos_weight"), [((), None), (None, (5,)), ((8, 1), (5,)), ((8, 5), (8, 5))], ids=str
)
@pytest.mark.usefixtures("route")
def test_weights(
    weight: tuple[int, ...] | None,
    pos_weight: tuple[int, ...] | None,
    dtype: torch.dtype,
    draw: Draw,
    device: torch.device,
) -> None:
    """Loss and gradient keep their bounds for weights over many decades, hard and soft targets and
    logits at every scale; a weight of 0 gives exactly 0.
    """
    scales = torch.logspace(-5, 3, 8, dtype=torch.float64, device=device)
    logits = (draw(8, 5, dtype=torch.float64) * scales[:, None]).to(dtype)
    target = torch.rand(8, 5, generator=torch.Generator().manual_seed(2)).to(dtype).to(device)
    target[:, 0], target[:, 1] = 0.0, 1.0
    spread = 3.0 if dtype == torch.float16 else 12.0
    given: dict[str, torch.Tensor | None] = {}
    for name, shape in (("weight", weight), ("pos_weight", pos_weight)):
        if shape is not None:
            given[name] = (
                (spread * draw(*shape, dtype=torch.float64)).exp().to(dtype).clamp(max=6e4)
            )
            if shape == (8, 5):
                given[name].view(-1)[::7] = 0.0
    _check(logits, target, **given)
    if weight == (8, 5):
        loss = bce(logits, target, reduction="none", **given)
        assert not loss.view(-1)[::7].any()


# What no single product in between may leave: huge times tiny times ordinary, in each order.
# One of the products is meant to be infinite.
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.usefixtures("route")
def test_weights_at_the_ends(dtype: torch.dtype, device: torch.device) -> None:
    """A confident element's tiny loss times a huge weight is the true product, and the gradient
    with an upstream gradient of the other end is, too.
    """
    info = torch.finfo(dtype)
    huge, tiny = info.max / 4, info.smallest_normal
    end = 700.0 if dtype == torch.float64 else 88.0
    x = torch.tensor([end, -end, end / 2, 2.0, huge, -huge], dtype=dtype, device=device)
    y = torch.tensor([1.0, 0.0, 1.0, 0.5, 1.0, 1.0], dtype=dtype, device=device)
    for w, p in ((huge, 1.0), (1.0, huge), (huge, tiny), (tiny, huge), (tiny, 1.0)):
        weight = torch.full_like(x, w)
        pos_weight = torch.full_like(x, p)
        truth = exact.binary_cross_entropy(x, y, weight, pos_weight)
        leaf = x.clone().requires_grad_()
        loss = bce(leaf, y, weight, reduction="none", pos_weight=pos_weight)
        largest = torch.finfo(loss.dtype).max
        fits = (truth[0].high.abs() < largest).to(device)
        assert bool((loss[~fits].abs() == math.inf).all())
        assert exact.max_ulps(loss[fits], exact.Exact(*(t[fits.cpu()] for t in truth[0]))) <= 2.0
        # The upstream gradient undoes the weight, a power of two here, as a loss scale would.
        scale = 2.0 ** -math.frexp(w)[1]
        (gradient,) = torch.autograd.grad(loss, leaf, torch.full_like(loss, scale))
        scaled = exact.binary_cross_entropy(x, y, weight.double() * scale, pos_weight)
        slack = 6 * torch.finfo(loss.dtype).eps / 2 * scaled[2]
        fits = (scaled[1].high.abs() < info.max).cpu()
        part = exact.Exact(*(t[fits] for t in scaled[1]))
        assert exact.max_excess(gradient.cpu()[fits], part, slack[fits]) <= 2.0


# 0 times infinity is meant here.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.usefixtures("route")
def test_weights_and_non_finite_elements(dtype: torch.dtype, device: torch.device) -> None:
    """Infinite and NaN logits and targets under weights of 0, 1, 2, infinity: torch's pattern."""
    values = [math.nan, math.inf, -math.inf, 2.0, -2.0]
    grid = [
        (x, y, p) for x in values for y in (0.0, 0.5, 1.0, 2.0) for p in (0.0, 1.0, 2.0, math.inf)
    ]
    columns = [torch.tensor(v, dtype=dtype, device=device) for v in zip(*grid, strict=True)]
    results = []
    for function, wide in ((bce, False), (F.binary_cross_entropy_with_logits, True)):
        x, y, p = (each.double() if wide else each for each in columns)
        loss = function(x.requires_grad_(), y, pos_weight=p, reduction="none")
        loss.backward(torch.ones_like(loss))
        results.append((loss.detach().double(), x.grad.double()))
        x.requires_grad_(False)
        x.grad = None
    rtol = torch.finfo(dtype).eps
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True, rtol=max(rtol, 1e-6), atol=1e-7)


@pytest.mark.parametrize("name", ["fp32", "fp64"])
@pytest.mark.usefixtures("route")
def test_mean_is_finite_where_the_sum_overflows(name: str, device: torch.device) -> None:
    """Elements that each lose the dtype's largest value have that value as their mean."""
    dtype = {"fp32": torch.float32, "fp64": torch.float64}[name]
    largest = torch.finfo(dtype).max
    x = torch.full((1000,), largest, dtype=dtype, device=device).requires_grad_()
    mean = bce(x, torch.zeros_like(x))
    assert mean.item() == pytest.approx(largest, rel=2 * torch.finfo(dtype).eps)
    mean.backward()
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx([1e-3] * 1000)


@pytest.mark.usefixtures("route")
def test_reductions_and_target_gradient(
    dtype: torch.dtype, draw: Draw, device: torch.device
) -> None:
    """Sum, mean and the target's gradient -x agree with torch in fp64."""
    for reduction in ("sum", "mean", "none"):
        x, y = draw(7, 9, dtype=dtype).requires_grad_(), draw(7, 9, dtype=dtype).sigmoid()
        y = y.detach().requires_grad_()
        wide = [t.detach().double().requires_grad_() for t in (x, y)]
        ours, theirs = bce(x, y, reduction=reduction), None
        theirs = F.binary_cross_entropy_with_logits(*wide, reduction=reduction)
        upstream = draw(*ours.shape, dtype=ours.dtype)
        ours.backward(upstream)
        theirs.backward(upstream.double())
        rtol = 1e-12 if dtype == torch.float64 else 1e-6
        torch.testing.assert_close(ours.double(), theirs, rtol=rtol, atol=0)
        rtol = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, torch.finfo(dtype).eps)
        for a, b in ((x.grad, wide[0].grad), (y.grad, wide[1].grad)):
            torch.testing.assert_close(
                a.double(), b, rtol=rtol, atol=1e-7 if rtol > 1e-9 else 1e-15
            )


@pytest.mark.usefixtures("route")
def test_non_finite_elements(dtype: torch.dtype, device: torch.device) -> None:
    """NaN and infinities in logits and targets come out as in torch, neighbours untouched."""
    values = [math.nan, math.inf, -math.inf, 0.5]
    targets = [0.0, 0.5, 1.0, math.nan]
    grid = [(x, y) for x in values for y in targets]
    results = []
    for function, wide in ((bce, False), (F.binary_cross_entropy_with_logits, True)):
        x, y = (torch.tensor(v, dtype=dtype, device=device) for v in zip(*grid, strict=True))
        if wide:
            x, y = x.double(), y.double()
        x.requires_grad_()
        loss = function(x, y, reduction="none")
        loss.backward(torch.ones_like(loss))
        results.append((loss.detach().double(), x.grad.double()))
    rtol = torch.finfo(dtype).eps
    torch.testing.assert_close(results[0][0], results[1][0], equal_nan=True, rtol=1e-6, atol=0)
    torch.testing.assert_close(results[0][1], results[1][1], equal_nan=True, rtol=rtol, atol=1e-7)


@pytest.mark.usefixtures("small_tiles", "route")
def test_layouts_and_empty(draw: Draw, device: torch.device) -> None:
    """Transposed, strided, expanded and empty tensors give what their contiguous copies give."""
    base = draw(20, 30, dtype=torch.float32)
    target = draw(30, 20, dtype=torch.float32).sigmoid()
    for view in (base.t(), base[:1, :20].expand(30, 20), draw(30, 60, dtype=torch.float32)[:, ::3]):
        assert torch.equal(
            bce(view, target, reduction="none"), bce(view.clone(), target, reduction="none")
        )
    empty = draw(0, 3, dtype=torch.float32)
    assert bce(empty, empty, reduction="none").shape == (0, 3)
    assert bce(empty, empty, reduction="sum").item() == 0.0
    assert math.isnan(bce(empty, empty).item())
    assert math.isnan(bce(empty.double(), empty.double()).item())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"input": torch.zeros(3, dtype=torch.long)}, TypeError, "input .*int64"),
        ({"target": torch.zeros(3, dtype=torch.long)}, TypeError, "target .*int64"),
        ({"target": torch.zeros(2)}, ValueError, r"\(3,\), got \(2,\)"),
        ({"weight": torch.zeros(2)}, ValueError, r"weight .*\(3,\), got \(2,\)"),
        ({"pos_weight": torch.zeros(4, 1)}, ValueError, r"pos_weight .*\(3,\), got \(4, 1\)"),
        ({"pos_weight": torch.zeros(3, dtype=torch.int8)}, TypeError, "pos_weight .*int8"),
        ({"reduction": "avg"}, ValueError, "'avg'"),
    ],
)
def test_errors_restate_the_input(
    change: dict[str, object], error: type[Exception], words: str
) -> None:
    """Bad input raises TypeError or ValueError with the offending value in the message."""
    with pytest.raises(error, match=words):
        bce(**({"input": torch.zeros(3), "target": torch.zeros(3)} | change))


def test_reference_formulas(draw: Draw) -> None:
    """The formulas people write agree with each other on tame elements."""
    x = draw(50, dtype=torch.float64)
    y = x.neg().sigmoid()
    truth = exact.binary_cross_entropy(x, y)[0].sum()
    for name in ("naive", "clamped", "torch_bce", "torch_with_logits"):
        loss = getattr(reference, name)(x, y).cpu()
        torch.testing.assert_close(loss, truth, rtol=1e-12, atol=0)
