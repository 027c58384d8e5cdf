"""Loss and gradient in one launch: accurate, what cross_entropy and its backward give."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from flint import arb
from torch import Tensor

import kernels
from suites.catalog.cross_entropy_truth import certified_row
from suites.conformance import exact
from suites.conformance.conftest import DTYPES
from suites.conformance.exact import Exact, max_excess

Draw = Callable[..., torch.Tensor]
NAN, INF = math.nan, math.inf
IGNORED = -100
FULL = pytest.mark.full


def _truth(
    logits: Tensor, target: Tensor, weight: Tensor | None, reduction: str, upstream: float
) -> tuple[Exact, Exact]:
    """Loss and gradient in ball arithmetic."""
    exact._set_precision()
    shared = {} if weight is None else {"weight": weight.double().tolist()}
    rows = zip(logits.double().tolist(), target.tolist(), strict=True)
    balls = [certified_row({"input": row, "target": y} | shared) for row, y in rows]
    losses = [ball["forward"][0] for ball in balls]
    factor = arb(upstream)
    if reduction == "mean":
        counted = [y for y in target.tolist() if y != IGNORED]
        weights = [arb(shared["weight"][y]) if shared else arb(1) for y in counted]
        total = sum(weights, arb(0))
        losses, factor = [sum(losses, arb(0)) / total], factor / total
    elif reduction == "sum":
        losses = [sum(losses, arb(0))]
    gradient = (g * factor for ball in balls for g in ball["backward"])
    shape = target.shape if reduction == "none" else torch.Size([])
    return exact._pack(losses, shape), exact._pack(gradient, logits.shape)


def _check(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "none",
    upstream: float = 1.0,
) -> None:
    """Within 2 ULP. In fp64, where nothing is wider, a sum takes a unit roundoff a row more, and a
    gradient 4 where it is made in two reads (as `test_cross_entropy` has it) and 3 for the factor
    w g / sum w.
    """
    before = logits.clone()
    loss, gradient = kernels.cross_entropy_with_gradient(
        logits, target, weight, reduction=reduction, upstream=upstream
    )
    assert torch.equal(logits, before)
    assert (gradient.shape, gradient.dtype) == (logits.shape, logits.dtype)
    rounded = torch.tensor(upstream, dtype=loss.dtype).item()
    host = (each if each is None else each.cpu() for each in (logits, target, weight))
    true_loss, true_gradient = _truth(*host, reduction, rounded)
    u = torch.finfo(torch.float64).eps / 2 if logits.dtype == torch.float64 else 0.0
    summed = 0 if reduction == "none" else len(target)
    divided = 4 + 3 * (reduction == "mean" or weight is not None)
    assert max_excess(loss, true_loss, summed * u * true_loss.sum().abs()) <= 2.0
    assert max_excess(gradient, true_gradient, divided * u * true_gradient.sum().abs()) <= 2.0


def _classes(rows: int, columns: int, device: torch.device) -> Tensor:
    return torch.randint(columns, (rows,), generator=torch.Generator().manual_seed(5)).to(device)


# --- accuracy -------------------------------------------------------------------------------------


# A piece of 64 and one column more; one class; a column less; the piece; four and a rest.
@pytest.mark.parametrize("width", [65, *(pytest.param(n, marks=FULL) for n in (1, 63, 64, 300))])
@pytest.mark.usefixtures("way")
def test_random_rows(width: int, dtype: torch.dtype, draw: Draw, device: torch.device) -> None:
    """Loss and gradient agree with certified truth, from nearly uniform to nearly one-hot rows."""
    # Five rows: one program of four and a partial one.
    scales = torch.tensor([1.0, 1e-3, 5.0, 30.0, 1e4], dtype=torch.float64, device=device)
    logits = (draw(5, width, dtype=torch.float64) * scales[:, None]).to(dtype)
    _check(logits, _classes(5, width, device))


# Scales of a loss scaler, and one that no float holds; each reduction, weighted or not.
@pytest.mark.parametrize(
    ("reduction", "upstream", "weighted"),
    [
        ("mean", 2.0**16, True),
        pytest.param("mean", 1e-6, False, marks=FULL),
        pytest.param("sum", 1000.0, False, marks=FULL),
        pytest.param("none", 1e-6, True, marks=FULL),
    ],
)
@pytest.mark.usefixtures("way")
def test_upstream_and_reductions(
    reduction: str,
    upstream: float,
    weighted: bool,
    dtype: torch.dtype,
    draw: Draw,
    device: torch.device,
) -> None:
    """The upstream scale, class weights and the mean's denominator enter before the gradient is
    rounded, ignored rows aside.
    """
    logits = draw(5, 70, dtype=dtype, scale=3.0)
    target = _classes(5, 70, device)
    target[1] = IGNORED
    weight = draw(70, dtype=torch.float64).abs().to(dtype) if weighted else None
    _check(logits, target, weight, reduction, upstream)


# Around what is held on chip: two pieces, the widest row of fp32, of half precision, and beyond.
@pytest.mark.full
@pytest.mark.parametrize("width", [5000, 16384, 16385, 32768, 32769])
def test_long_rows(width: int, dtype: torch.dtype, draw: Draw, device: torch.device) -> None:
    """The bounds hold in the pieces that are really used."""
    _check(draw(2, width, dtype=dtype, scale=3.0), _classes(2, width, device))


@pytest.mark.usefixtures("way")
def test_small_probabilities_survive_in_fp16(device: torch.device) -> None:
    """Gradients below fp16's smallest subnormal are kept where the scale lifts them above it;
    scaled only after rounding, every one would be zero.
    """
    logits = torch.linspace(-20.0, -19.0, 200).half().to(device).repeat(4, 1)
    logits[:, 7] = 0.0
    target = torch.full((4,), 7, device=device)
    _, small = kernels.cross_entropy_with_gradient(logits, target)
    _, large = kernels.cross_entropy_with_gradient(logits, target, upstream=2.0**16)
    others = torch.arange(200, device=device) != 7
    assert not small[:, others].any()
    assert bool((large[:, others] > 0).all())
    _check(logits, target, None, "mean", 2.0**16)


# --- beside cross_entropy and its backward --------------------------------------------------------


def _units_apart(a: Tensor, b: Tensor) -> float:
    """The largest distance in ULP; infinite where one is not finite and the other differs."""
    both_nan = a.isnan() & b.isnan()
    a, b = torch.where(both_nan, 0.0, a), torch.where(both_nan, 0.0, b)
    if not a.numel():
        return 0.0
    return exact.max_ulps(a, Exact(b.double().cpu(), torch.zeros(b.shape, dtype=torch.float64)))


def _assert_same(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    upstream: float | Tensor = 1.0,
    **options: Any,
) -> None:
    x = logits.detach().requires_grad_()
    loss = kernels.cross_entropy(x, target, weight, **options)
    scale = torch.as_tensor(upstream, dtype=loss.dtype, device=loss.device)
    (gradient,) = torch.autograd.grad(loss, x, scale.expand(loss.shape))
    ours = kernels.cross_entropy_with_gradient(logits, target, weight, upstream=upstream, **options)
    for a, b in zip(ours, (loss.detach(), gradient), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert _units_apart(a, b) <= 2.0


# NaN, +inf, masks at the target and beside it, rows masked whole; ignored and bad targets.
ROWS = [
    ([NAN, 1.0, 2.0], 1),
    ([INF, 1.0, 2.0], 0),
    ([INF, -INF, NAN], 1),
    ([-INF, 1.0, 2.0], 0),
    ([-INF, -INF, 2.0], 2),
    ([-INF, -INF, -INF], 1),
    ([NAN, 1.0, 2.0], IGNORED),
    ([-INF, -INF, -INF], IGNORED),
    ([0.0, 1.0, 2.0], IGNORED),
    ([0.0, 1.0, 2.0], 103),
    ([0.0, 1.0, 2.0], -1),
]


# One piece, and two.
@pytest.mark.parametrize(
    ("padding", "name"),
    [(100, "bf16"), *(pytest.param(0, name, marks=FULL) for name in DTYPES)],
)
@pytest.mark.usefixtures("way", "unchecked_targets")
def test_non_finite_rows(padding: int, name: str, device: torch.device) -> None:
    """Losses and gradients are non-finite in exactly the elements where those of cross_entropy are,
    and sound rows between bad ones are untouched; none is read out of bounds.
    """
    rows = []
    for row, _ in ROWS:
        filler = [-INF if row[0] == -INF == row[-1] else -1.0] * padding
        rows += [row + filler, [0.5, 1.0, 2.0] + [-1.0] * padding]
    logits = torch.tensor(rows, dtype=DTYPES[name], device=device)
    target = torch.tensor([y for _, each in ROWS for y in (each, 2)], device=device)
    weight = torch.linspace(0.0, 2.0, 3 + padding, device=device).to(logits.dtype)
    _assert_same(logits, target, weight, 100.0, reduction="none")
    _assert_same(logits[1::2], target[1::2], None, 100.0)


# Nothing counts: every row ignored, or every weight 0.
@pytest.mark.parametrize("why", ["ignored", "weightless"])
@pytest.mark.parametrize("policy", ["nan", "zero"])
@pytest.mark.usefixtures("route")
def test_nothing_counts(policy: str, why: str, draw: Draw) -> None:
    """The policy holds for both results."""
    dtype = torch.float16
    x = draw(3, 5, dtype=dtype)
    target = torch.full((3,), IGNORED if why == "ignored" else 2, device=x.device)
    weight = torch.zeros(5, dtype=dtype, device=x.device) if why == "weightless" else None
    _assert_same(x, target, weight, all_ignored=policy)
    loss, gradient = kernels.cross_entropy_with_gradient(x, target, weight, all_ignored=policy)
    assert loss.isnan().item() == (policy == "nan")
    assert bool(gradient.isnan().all()) == (policy == "nan" and why == "weightless")


# One row without a batch, a batch, images of one and of two dimensions, and empty ones.
@pytest.mark.parametrize(
    "shape", [(7,), (3, 7), (3, 7, 5), (2, 7, 4, 3), (0, 7), (2, 7, 0)], ids=str
)
@pytest.mark.usefixtures("route")
def test_shapes(shape: tuple[int, ...], draw: Draw, device: torch.device) -> None:
    """Every documented shape; the gradient has the input's."""
    target_shape = shape[:0] if len(shape) == 1 else shape[:1] + shape[2:]
    target = torch.randint(7, target_shape, generator=torch.Generator().manual_seed(1)).to(device)
    for reduction in ("none", "mean"):
        _assert_same(draw(*shape, dtype=torch.float32), target, reduction=reduction)


@pytest.mark.usefixtures("route")
def test_layouts(draw: Draw, device: torch.device) -> None:
    """Transposed, sliced and expanded logits, of odd row strides too, count as what they show."""
    base, target = draw(70, 9, dtype=torch.bfloat16, scale=3.0), torch.arange(9, device=device)
    wide = draw(9, 210, dtype=torch.bfloat16)
    expanded = (base[:, 0].expand(9, 70), base[:9, :1].expand(9, 70))
    for view in (base.t(), wide[:, 1::3], wide[:, 3:73], *expanded):
        _assert_same(view, target % view.shape[1], upstream=8.0)


def test_weighted_mean_is_finite_where_sums_overflow(device: torch.device) -> None:
    """fp64 rows, and their weights' sum, beyond the dtype: loss and gradient are those of the
    mean.
    """
    largest = torch.finfo(torch.float64).max
    logits = torch.zeros(1000, 2, dtype=torch.float64, device=device)
    logits[3] = torch.tensor([-largest, largest], dtype=torch.float64)
    target = torch.zeros(1000, dtype=torch.int64, device=device)
    weight = torch.tensor([largest / 4, 1.0], dtype=torch.float64, device=device)
    loss, gradient = kernels.cross_entropy_with_gradient(logits, target, weight)
    assert loss.item() == pytest.approx(largest / 500, rel=1e-14)
    assert gradient[3].tolist() == pytest.approx([-1e-3, 1e-3])


def test_rows_beyond_32_bit_offsets(device: torch.device) -> None:
    """Offsets are 64-bit: the last of rows whose stride takes them past 2**31 elements is its own
    row.
    """
    stride = 2**30 + 8
    # On the CPU the four gigabytes are promised but, but for the pages in use, never touched.
    memory = torch.empty(2 * stride + 4, dtype=torch.float16, device=device)
    rows = memory.as_strided((3, 4), (stride, 1))
    rows.copy_(torch.tensor([[0.0] * 4, [0.0] * 4, [0.0, 5.0, 0.0, 0.0]]))
    _assert_same(rows, torch.ones(3, dtype=torch.int64, device=device), reduction="none")
