"""What cross-entropy promises beside accuracy: reductions, targets, non-finite rows, layouts."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

import kernels
from kernels.cross_entropy import reference
from suites.conformance import exact

Draw = Callable[..., torch.Tensor]
NAN, INF = math.nan, math.inf


def _same_non_finite(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """NaN, +inf and -inf in the same elements, and the finite ones close."""
    ours, theirs = ours.double(), theirs.double()
    torch.testing.assert_close(ours, theirs, equal_nan=True, rtol=4e-3, atol=1e-6)


# --- reductions -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("route")
def test_sum_and_mean(dtype: torch.dtype, draw: Draw, device: torch.device) -> None:
    """Sum and mean are within 2 ULP of the certified rows' sum and mean; their gradients are the
    rows' share.
    """
    logits = draw(9, 40, dtype=dtype, scale=3.0).requires_grad_()
    target = torch.arange(9, device=device)
    target[4] = -100
    kept = [0, 1, 2, 3, 5, 6, 7, 8]
    truth, gradient = exact.cross_entropy(logits.detach()[kept], target[kept])
    total = truth.sum().sum()
    for reduction, expected, share in (("sum", total, 1.0), ("mean", total / 8, 1 / 8)):
        loss = kernels.cross_entropy(logits, target, reduction=reduction)
        assert abs(loss.item() - expected) <= 2 * exact.unit_in_last_place(expected, loss.dtype)
        (ours,) = torch.autograd.grad(loss, logits)
        assert not ours[4].any()
        expected_gradient = gradient.sum() * share
        bound = 2.5 * exact.unit_in_last_place(expected_gradient, dtype)
        bound += 6e-16 * expected_gradient.abs()
        assert bool(((ours[kept].double().cpu() - expected_gradient).abs() <= bound).all())


# Each dtype's largest value: the row's loss is twice that, out of reach, a thousand rows' mean is
# not.
@pytest.mark.parametrize("name", ["fp32", "fp64"])
@pytest.mark.usefixtures("route")
def test_mean_is_finite_where_rows_overflow(name: str, device: torch.device) -> None:
    """One overflowing row in a thousand: "none" is inf there, the mean is finite and right."""
    dtype = {"fp32": torch.float32, "fp64": torch.float64}[name]
    largest = torch.finfo(dtype).max
    logits = torch.zeros(1000, 2, dtype=dtype, device=device)
    logits[3] = torch.tensor([-largest, largest], dtype=dtype)
    logits.requires_grad_()
    target = torch.zeros(1000, dtype=torch.long, device=device)
    rows = kernels.cross_entropy(logits, target, reduction="none")
    assert rows[3].item() == INF
    assert bool(rows[4:].isfinite().all())
    mean = kernels.cross_entropy(logits, target)
    assert mean.item() == pytest.approx(largest / 500, rel=1e-6 if name == "fp32" else 1e-14)
    (gradient,) = torch.autograd.grad(mean, logits)
    assert gradient[3].tolist() == pytest.approx([-1e-3, 1e-3])


@pytest.mark.usefixtures("route")
def test_mean_of_large_equal_rows(device: torch.device) -> None:
    """Every row at the largest loss that fits: the sum overflows, the mean is that loss."""
    for dtype in (torch.float32, torch.float64):
        large = torch.finfo(dtype).max / 2
        logits = torch.tensor([[0.0, large]] * 777, dtype=dtype, device=device)
        target = torch.zeros(777, dtype=torch.long, device=device)
        mean = kernels.cross_entropy(logits, target)
        assert mean.item() == pytest.approx(large, rel=4e-7 if dtype == torch.float32 else 1e-15)


@pytest.mark.usefixtures("route")
def test_all_rows_ignored(dtype: torch.dtype, draw: Draw, device: torch.device) -> None:
    """The mean over no row is NaN as torch's, or 0 when asked; the gradient is exactly 0 either
    way.
    """
    target = torch.full((3,), -100, device=device)
    for policy, check in (("nan", math.isnan), ("zero", lambda value: value == 0.0)):
        logits = draw(3, 5, dtype=dtype).requires_grad_()
        loss = kernels.cross_entropy(logits, target, all_ignored=policy)
        loss.backward()
        assert check(loss.item())
        assert logits.grad is not None
        assert not logits.grad.any()
    assert kernels.cross_entropy(logits, target, reduction="sum").item() == 0.0
    assert kernels.cross_entropy(logits, target, reduction="none").tolist() == [0.0] * 3


# --- targets --------------------------------------------------------------------------------------


# Just outside either end, the numbers that other libraries use for padding, and a wild address.
@pytest.mark.parametrize("bad", [-1, 5, 255, -101, 2**40, -(2**62)])
@pytest.mark.usefixtures("route")
def test_targets_outside_the_classes(bad: int, draw: Draw, device: torch.device) -> None:
    """Checked: an IndexError naming value, position and range. Unchecked: NaN in that row only."""
    logits = draw(2, 5, 3, dtype=torch.float32).requires_grad_()
    target = torch.tensor([[0, 4, -100], [1, bad, 2]], device=device)
    with pytest.raises(IndexError, match=rf"target {bad} at position \(1, 1\) .* \[0, 5\)"):
        kernels.cross_entropy(logits, target, check_targets=True)
    loss = kernels.cross_entropy(logits, target, reduction="none", check_targets=False)
    assert loss.isnan().tolist() == [[False] * 3, [False, True, False]]
    (gradient,) = torch.autograd.grad(loss, logits, torch.ones_like(loss))
    assert bool(gradient[1, :, 1].isnan().all())
    gradient[1, :, 1] = 0
    assert bool(gradient.isfinite().all())
    assert math.isnan(kernels.cross_entropy(logits, target, check_targets=False).item())


def test_targets_are_checked_on_the_cpu_only(draw: Draw, device: torch.device) -> None:
    """By default the CPU raises and a GPU, where looking means waiting, does not."""
    logits, target = draw(1, 3, dtype=torch.float32), torch.tensor([3], device=device)
    if device.type == "cpu":
        with pytest.raises(IndexError):
            kernels.cross_entropy(logits, target)
    else:
        assert math.isnan(kernels.cross_entropy(logits, target).item())


@pytest.mark.usefixtures("route")
def test_ignore_index_may_be_a_class(draw: Draw, device: torch.device) -> None:
    """ignore_index=0 drops the rows of class 0 and leaves class 0 in everyone else's sum."""
    logits = draw(4, 6, dtype=torch.float64).requires_grad_()
    target = torch.tensor([0, 3, 0, 5], device=device)
    ours = kernels.cross_entropy(logits, target, ignore_index=0, reduction="none")
    theirs = F.cross_entropy(logits, target, ignore_index=0, reduction="none")
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)
    upstream = torch.ones_like(ours)
    (a,), (b,) = (torch.autograd.grad(loss, logits, upstream) for loss in (ours, theirs))
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


# --- non-finite rows ------------------------------------------------------------------------------

# NaN and +inf at the target and beside it, a masked target, a whole masked row, and rows that are
# ignored all the same: each between sound rows, and NaN in the first tile and in the last.
ROWS = [
    ([NAN, 1.0, 2.0], 0),
    ([NAN, 1.0, 2.0], 1),
    ([INF, 1.0, 2.0], 0),
    ([INF, 1.0, 2.0], 1),
    ([INF, -INF, NAN], 1),
    ([-INF, 1.0, 2.0], 0),
    ([-INF, -INF, 2.0], 2),
    ([-INF, -INF, -INF], 1),
    ([NAN, 1.0, 2.0], -100),
    ([INF, 1.0, 2.0], -100),
    ([-INF, -INF, -INF], -100),
]


@pytest.mark.parametrize("padding", [0, 100], ids=["one_block", "two_blocks"])
@pytest.mark.usefixtures("small_tiles", "route")
def test_non_finite_rows(padding: int, dtype: torch.dtype, device: torch.device) -> None:
    """Loss and gradient are NaN or infinite in exactly the elements where torch's are."""
    rows: list[list[float]] = []
    targets: list[int] = []
    for row, y in ROWS:
        filler = [-INF if row[0] == -INF == row[-1] else -1.0] * padding
        rows += [row + filler, [0.5, 1.0, 2.0] + [-1.0] * padding]
        targets += [y, 2]
    logits = torch.tensor(rows, dtype=dtype, device=device)
    target = torch.tensor(targets, device=device)
    results = []
    for function, x in ((kernels.cross_entropy, logits), (F.cross_entropy, logits.double())):
        x = x.clone().requires_grad_()
        loss = function(x, target, reduction="none")
        loss.backward(torch.ones_like(loss))
        results.append((loss.detach(), x.grad))
    _same_non_finite(results[0][0], results[1][0])
    _same_non_finite(results[0][1], results[1][1])


# --- layouts --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_tiles", "route")
def test_layouts(draw: Draw, device: torch.device) -> None:
    """Transposed, sliced, expanded and extra-dimensional logits give what their contiguous copies
    give.
    """
    base = draw(70, 9, dtype=torch.float32, scale=3.0)
    labels = torch.arange(9, device=device)
    views = {
        "transposed": base.t(),
        "sliced": draw(9, 210, dtype=torch.float32)[:, 1::3],
        "rows_expanded": base[:, 0].expand(9, 70),
        "columns_expanded": base[:9, :1].expand(9, 70),
        "overlapping": base.reshape(-1).as_strided((9, 70), (3, 1)),
    }
    for name, view in views.items():
        ours = _both(view, labels)
        copied = _both(view.contiguous(), labels)
        assert torch.equal(ours[0], copied[0]), name
        assert torch.equal(ours[1], copied[1]), name
    labels = labels[:1].expand(9)
    assert torch.equal(_both(base.t(), labels)[0], _both(base.t(), labels.contiguous())[0])


def _both(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits.detach().requires_grad_()
    loss = kernels.cross_entropy(logits, target, reduction="none")
    (gradient,) = torch.autograd.grad(loss, logits, torch.ones_like(loss))
    return loss.detach(), gradient


# As torch documents them: one row without a batch, a batch, and images of one and of two
# dimensions.
@pytest.mark.parametrize(
    "shape", [(7,), (3, 7), (3, 7, 5), (2, 7, 4, 3), (0, 7), (2, 7, 0)], ids=str
)
@pytest.mark.usefixtures("route")
def test_shapes(shape: tuple[int, ...], draw: Draw, device: torch.device) -> None:
    """Every documented shape, empty batches included, gives torch's shape and values."""
    logits = draw(*shape, dtype=torch.float64).requires_grad_()
    target_shape = shape[:0] if len(shape) == 1 else shape[:1] + shape[2:]
    target = torch.randint(7, target_shape, generator=torch.Generator().manual_seed(1)).to(device)
    for reduction in ("none", "sum", "mean"):
        ours = kernels.cross_entropy(logits, target, reduction=reduction)
        theirs = F.cross_entropy(logits, target, reduction=reduction)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0, equal_nan=True)
        upstream = torch.ones_like(ours)
        (a,), (b,) = (torch.autograd.grad(loss, logits, upstream) for loss in (ours, theirs))
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


def test_rows_beyond_32_bit_offsets(device: torch.device) -> None:
    """Offsets are 64-bit: the last of rows whose stride takes them past 2**31 elements is its own
    row.
    """
    stride, n_columns = 2**30 + 8, 4
    # On the CPU the four gigabytes are promised but, but for the pages in use, never touched.
    logits = torch.empty(2 * stride + n_columns, dtype=torch.float16, device=device)
    rows = logits.as_strided((3, n_columns), (stride, 1))
    rows.copy_(torch.tensor([[0.0] * 4, [0.0] * 4, [0.0, 5.0, 0.0, 0.0]]))
    loss = kernels.cross_entropy(
        rows, torch.ones(3, dtype=torch.long, device=device), reduction="none"
    )
    expected = [math.log(4), math.log(4), math.log1p(3 * math.exp(-5))]
    assert loss.tolist() == pytest.approx(expected, rel=1e-6)


# --- errors ---------------------------------------------------------------------------------------


# Each names what is wrong and repeats the value that was given.
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"input": torch.zeros(3, 4, dtype=torch.long)}, TypeError, "int64"),
        ({"target": torch.zeros(3)}, TypeError, "class indices .*float32"),
        ({"target": torch.zeros(3, dtype=torch.int32)}, TypeError, "int32"),
        (
            {"target": torch.zeros(2, dtype=torch.long)},
            ValueError,
            r"\(3, 4\) .* \(3,\), got \(2,\)",
        ),
        ({"input": torch.tensor(1.0)}, ValueError, r"shape \(\)"),
        ({"reduction": "avg"}, ValueError, "'avg'"),
        ({"all_ignored": "one"}, ValueError, "'one'"),
    ],
)
def test_errors_restate_the_input(
    change: dict[str, object], error: type[Exception], words: str
) -> None:
    """Bad input raises TypeError or ValueError with the offending value in the message."""
    arguments = {"input": torch.zeros(3, 4), "target": torch.zeros(3, dtype=torch.long)} | change
    with pytest.raises(error, match=words):
        kernels.cross_entropy(**arguments)  # type: ignore[arg-type]


def test_reference_formulas_ignore_rows(draw: Draw, device: torch.device) -> None:
    """The formulas people write agree with fp64 truth on tame rows, and give 0 where the target is
    -100.
    """
    logits = draw(4, 6, dtype=torch.float64)
    target = torch.tensor([0, 5, -100, 2], device=device)
    truth = F.cross_entropy(logits, target, reduction="none")
    for name in ("naive", "softmax_log", "clamped", "torch_native"):
        loss = getattr(reference, name)(logits, target)
        torch.testing.assert_close(loss, truth, rtol=1e-12, atol=0)
