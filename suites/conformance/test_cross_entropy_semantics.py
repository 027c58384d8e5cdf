"""Cross-entropy's options mean what torch's do, in every shape; policies, refusals, transforms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import kernels

Draw = Callable[..., torch.Tensor]
NAN, INF = math.nan, math.inf


def _both(
    x: Tensor, target: Tensor, weight: Tensor | None, **options: Any
) -> list[tuple[Tensor, ...]]:
    """(loss, gradients) of ours and of torch's, for upstream ones."""
    results = []
    for function in (kernels.cross_entropy, F.cross_entropy):
        logits = x.detach().clone().requires_grad_()
        given = target.detach().clone()
        wanted = [logits]
        if given.is_floating_point():
            wanted.append(given.requires_grad_())
        loss = function(logits, given, weight, **options)
        results.append((loss, *torch.autograd.grad(loss, wanted, torch.ones_like(loss))))
    return results


# One row without a batch, a batch, images of one and of two dimensions, and empty batches.
@pytest.mark.parametrize("shape", [(7,), (3, 7), (3, 7, 5), (2, 7, 4, 3), (0, 7)], ids=str)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.usefixtures("route")
def test_torch_agrees(reduction: str, shape: tuple[int, ...], draw: Draw) -> None:
    """In fp64, for every documented shape, with weights, smoothing and ignored rows, indices and
    probabilities give torch's values, gradients and shapes.
    """
    x = draw(*shape, dtype=torch.float64)
    weight = draw(7, dtype=torch.float64).abs()
    class_dim = 0 if len(shape) == 1 else 1
    soft = torch.softmax(draw(*shape, dtype=torch.float64), dim=class_dim)
    index = soft.argmax(dim=class_dim) if soft.numel() else soft.sum(dim=1).long()
    if index.numel() > 1:
        index.view(-1)[1] = -100
    for target in (index, soft):
        for smoothing in (0.0, 0.2):
            for w in (None, weight):
                ours, theirs = _both(x, target, w, reduction=reduction, label_smoothing=smoothing)
                for a, b in zip(ours, theirs, strict=True):
                    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14, equal_nan=True)


@pytest.mark.usefixtures("route")
def test_z_loss_and_softcap_are_their_formulas(draw: Draw) -> None:
    """In fp64: z_loss adds z logsumexp**2 to rows that count, before the mean's division; a softcap
    replaces the logits by c tanh(x / c), also in the z-loss.
    """
    x, weight = draw(6, 9, dtype=torch.float64, scale=3.0), draw(9, dtype=torch.float64).abs()
    target = torch.tensor([0, 3, -100, 8, 3, 1], device=x.device)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours = kernels.cross_entropy(a, target, weight, z_loss=0.3, softcap=4.0)
    capped = 4.0 * torch.tanh(b / 4.0)
    kept = target != -100
    rows = F.cross_entropy(capped, target, weight, reduction="none")
    rows = rows + torch.where(kept, 0.3 * capped.logsumexp(dim=1).square(), 0.0)
    theirs = rows.sum() / weight[target[kept]].sum()
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)
    (found,), (expected,) = torch.autograd.grad(ours, a), torch.autograd.grad(theirs, b)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


# Nothing counts: every row ignored, every weight 0, and both with smoothing.
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("why", ["ignored", "weightless"])
@pytest.mark.usefixtures("route")
def test_nothing_counts(why: str, smoothing: float, dtype: torch.dtype, draw: Draw) -> None:
    """The mean and its gradient are torch's, NaN, or 0 when asked; ignored rows have gradient 0
    under either policy.
    """
    x = draw(3, 5, dtype=dtype)
    target = torch.full((3,), -100 if why == "ignored" else 2, device=x.device)
    weight = torch.zeros(5, dtype=dtype, device=x.device) if why == "weightless" else None
    options = {"weight": weight, "label_smoothing": smoothing}
    for policy in ("nan", "zero"):
        logits = x.clone().requires_grad_()
        loss = kernels.cross_entropy(logits, target, **options, z_loss=0.0, all_ignored=policy)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert math.isnan(loss.item()) if policy == "nan" else loss.item() == 0.0
        if policy == "zero" or why == "ignored":
            assert not gradient.any()
        else:
            assert bool(gradient.isnan().all())
    logits = x.clone().requires_grad_()
    loss = kernels.cross_entropy(logits, target, **options, z_loss=0.5, all_ignored="zero")
    assert loss.item() == 0.0
    assert not torch.autograd.grad(loss, logits)[0].any()


# NaN and +inf, masks where the coefficient is not 0, and a row masked whole, between sound rows.
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.usefixtures("small_tiles", "route")
def test_non_finite_rows(smoothing: float, dtype: torch.dtype, device: torch.device) -> None:
    """Loss and gradients of dense rows are NaN or infinite in exactly the elements where torch's
    are, and other rows are untouched.
    """
    bad = [[NAN, 1.0, 2.0], [INF, 1.0, 2.0], [-INF, 1.0, 2.0], [-INF] * 3, [INF, -INF, 1.0]]
    rows = [row + [-1.0] * 80 for row in bad]
    rows[3] = [-INF] * 83
    sound = [0.5, 1.0, 2.0] + [-1.0] * 80
    x = torch.tensor([each for row in rows for each in (row, sound)], dtype=dtype, device=device)
    soft = torch.full_like(x, 1.0 / 128)
    soft[:, 1] = 0.25
    targets = [soft] if not smoothing else [soft, torch.ones(10, dtype=torch.int64, device=device)]
    if smoothing:
        targets[1][4] = -100
    for target in targets:
        logits = x.clone().requires_grad_()
        loss = kernels.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)
        (ours,) = torch.autograd.grad(loss, logits, torch.ones_like(loss))
        wide = x.double().requires_grad_()
        given = target.double() if target.is_floating_point() else target
        other = F.cross_entropy(wide, given, reduction="none", label_smoothing=smoothing)
        (theirs,) = torch.autograd.grad(other, wide, torch.ones_like(other))
        for a, b in ((loss, other), (ours, theirs)):
            torch.testing.assert_close(a.double(), b, equal_nan=True, rtol=1e-2, atol=1e-6)


@pytest.mark.usefixtures("route")
def test_a_bad_target_stays_in_its_row(draw: Draw) -> None:
    """With smoothing and weights, too: unchecked, NaN in that row's loss and gradient alone."""
    x = draw(3, 5, dtype=torch.float32).requires_grad_()
    target = torch.tensor([1, 7, -100], device=x.device)
    weight = torch.ones(5, device=x.device)
    for options in ({"label_smoothing": 0.1}, {"weight": weight}, {"softcap": 5.0}):
        with pytest.raises(IndexError, match=r"target 7 at position \(1,\)"):
            kernels.cross_entropy(x, target, check_targets=True, **options)
        loss = kernels.cross_entropy(x, target, check_targets=False, reduction="none", **options)
        assert loss.isnan().tolist() == [False, True, False]
        (gradient,) = torch.autograd.grad(loss, x, torch.ones_like(loss))
        assert gradient.isnan().all(dim=1).tolist() == [False, True, False]
        assert gradient.isnan().any(dim=1).tolist() == [False, True, False]


def test_targets_are_checked_under_transforms(draw: Draw) -> None:
    """The check lies within the operator: vmap raises, too, with the position in the sample."""
    x = draw(2, 4, 5, dtype=torch.float64)
    target = torch.tensor([[0, 1, 2, 3], [0, 1, 9, 3]], device=x.device)
    mapped = torch.func.vmap(lambda a, t: kernels.cross_entropy(a, t, check_targets=True))
    with pytest.raises(IndexError, match=r"target 9 at position \(2,\)"):
        mapped(x, target)


def test_weights_under_vmap(draw: Draw) -> None:
    """Weights that samples share, and weights of each sample's own, give what a loop gives."""
    x = draw(3, 4, 5, dtype=torch.float64)
    target = torch.arange(12, device=x.device).reshape(3, 4) % 5
    weight = draw(3, 5, dtype=torch.float64).abs()

    def loss(logits: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
        return kernels.cross_entropy(logits, classes, weights, label_smoothing=0.1)

    for dim, weights in ((0, weight), (None, weight[0])):
        ours = torch.func.vmap(torch.func.grad(loss), in_dims=(0, 0, dim))(x, target, weights)
        each = [weights[k] if dim == 0 else weights for k in range(3)]
        looped = [torch.func.grad(loss)(x[k], target[k], each[k]) for k in range(3)]
        torch.testing.assert_close(ours, torch.stack(looped), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["fp32", "fp64"])
@pytest.mark.usefixtures("route")
def test_weighted_mean_is_finite_where_rows_overflow(name: str, device: torch.device) -> None:
    """Rows, and for fp64 the weights' sum, beyond the dtype: the mean is finite and right."""
    dtype = {"fp32": torch.float32, "fp64": torch.float64}[name]
    largest = torch.finfo(dtype).max
    logits = torch.zeros(1000, 2, dtype=dtype, device=device)
    logits[3] = torch.tensor([-largest, largest], dtype=dtype)
    logits.requires_grad_()
    target = torch.zeros(1000, dtype=torch.int64, device=device)
    weight = torch.tensor([largest / 4, 1.0], dtype=dtype, device=device)
    mean = kernels.cross_entropy(logits, target, weight)
    assert mean.item() == pytest.approx(largest / 500, rel=1e-6 if name == "fp32" else 1e-14)
    (gradient,) = torch.autograd.grad(mean, logits)
    assert gradient[3].tolist() == pytest.approx([-1e-3, 1e-3])


# Each names what is wrong and repeats the value that was given.
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"weight": torch.ones(5)}, ValueError, r"shape \(4,\), got \(5,\)"),
        ({"weight": torch.ones(1, 4)}, ValueError, r"got \(1, 4\)"),
        ({"weight": torch.ones(4, dtype=torch.int64)}, TypeError, "float32, got torch.int64"),
        ({"weight": torch.ones(4, dtype=torch.float64)}, TypeError, "got torch.float64"),
        ({"weight": torch.ones(4, requires_grad=True)}, NotImplementedError, "gradient"),
        ({"label_smoothing": 1.5}, ValueError, "1.5"),
        ({"label_smoothing": NAN}, ValueError, "nan"),
        ({"z_loss": -1.0}, ValueError, "-1.0"),
        ({"softcap": 0.0}, ValueError, "0.0"),
        ({"softcap": INF}, ValueError, "inf"),
        ({"target": torch.zeros(3, 4, dtype=torch.int64)}, ValueError, r"\(3,\), got \(3, 4\)"),
        ({"target": torch.zeros(3, 5)}, TypeError, r"\(3, 4\); got torch.float32 .* \(3, 5\)"),
        ({"target": torch.zeros(3, 4), "ignore_index": 2}, ValueError, "ignore_index=2"),
    ],
)
def test_errors_restate_the_input(
    change: dict[str, object], error: type[Exception], words: str
) -> None:
    """Bad options raise with the offending value in the message."""
    arguments = {"input": torch.zeros(3, 4), "target": torch.zeros(3, dtype=torch.long)} | change
    with pytest.raises(error, match=words):
        kernels.cross_entropy(**arguments)  # type: ignore[arg-type]


def test_half_precision_logits_take_fp32_weights(draw: Draw) -> None:
    """Beside weights of the logits' dtype, as torch wants them, those of the loss."""
    x, target = draw(4, 6, dtype=torch.bfloat16), torch.arange(4)
    weight = draw(6, dtype=torch.float32).abs()
    ours = kernels.cross_entropy(x, target.to(x.device), weight)
    theirs = F.cross_entropy(x.double(), target.to(x.device), weight.double())
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
