"""Cross-entropy and its gradient are accurate: random rows, masks, offsets, confident rows, loss
scales.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

import kernels
from suites.conformance import exact

Draw = Callable[..., torch.Tensor]


def _loss_and_gradient(
    logits: torch.Tensor, target: torch.Tensor, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits.detach().clone().requires_grad_()
    loss = kernels.cross_entropy(logits, target, reduction="none")
    loss.backward(torch.full_like(loss, scale))
    assert logits.grad is not None
    return loss.detach(), logits.grad


def _check(logits: torch.Tensor, target: torch.Tensor) -> None:
    """Loss and gradient within 2 ULP, and in fp64 2 and 4 units roundoff of the result more.

    Nothing cancels in either. Up to fp32 the gradient's sum S is held wider. fp64 has nothing
    wider: there the library's exponential (up to 2 u) enters the loss as it is, and the gradient's
    quotient exp(x_j - m) / (S + e_y) twice.
    """
    loss, gradient = _loss_and_gradient(logits, target)
    true_loss, true_gradient = exact.cross_entropy(logits, target)
    u = torch.finfo(torch.float64).eps / 2 if logits.dtype == torch.float64 else 0.0
    assert exact.max_excess(loss, true_loss, 2 * u * true_loss.sum().abs()) <= 2.0
    assert exact.max_excess(gradient, true_gradient, 4 * u * true_gradient.sum().abs()) <= 2.0


def _classes(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    return torch.randint(columns, (rows,), generator=torch.Generator().manual_seed(5)).to(device)


# One class; a tile's width of 64 and one to either side; two tiles and one more; an odd rest.
@pytest.mark.parametrize("width", [1, 2, 63, 64, 65, 128, 129, 300])
@pytest.mark.usefixtures("small_tiles", "route")
def test_random_rows(width: int, dtype: torch.dtype, draw: Draw, device: torch.device) -> None:
    """Loss and gradient agree with certified truth from nearly uniform to nearly one-hot rows."""
    # Five rows: one tile of four and a partial one.
    scales = torch.tensor([1.0, 1e-3, 5.0, 30.0, 1e4], dtype=torch.float64, device=device)
    logits = (draw(5, width, dtype=torch.float64) * scales[:, None]).to(dtype)
    _check(logits, _classes(5, width, device))


@pytest.mark.usefixtures("route")
def test_a_long_row(dtype: torch.dtype, draw: Draw, device: torch.device) -> None:
    """The bounds hold over 5000 columns at the tile size that is really used."""
    _check(draw(2, 5000, dtype=dtype, scale=3.0), _classes(2, 5000, device))


# The masked columns: the first tile, the first two, all but the last column, a middle tile, every
# other.
@pytest.mark.parametrize(
    "masked",
    [range(64), range(128), range(199), range(64, 128), range(0, 200, 2)],
    ids=["first_block", "two_blocks", "all_but_one", "middle_block", "alternating"],
)
@pytest.mark.usefixtures("small_tiles", "route")
def test_masks(masked: range, dtype: torch.dtype, draw: Draw, device: torch.device) -> None:
    """-inf entries count as probability 0 wherever they lie, a whole tile of them included."""
    logits = draw(4, 200, dtype=dtype, scale=4.0)
    logits[:, list(masked)] = -math.inf
    target = torch.full((4,), 199, device=device)
    _check(logits, target)
    _, gradient = _loss_and_gradient(logits, target)
    assert not gradient[:, list(masked)].any()


# 1e6 and 1.6e7: fp32 resolves 0.06 and 2 there, and log-sum-exp minus logit would lose 0.03 and
# 0.4.
@pytest.mark.parametrize("offset", [1e6, 1.6e7])
@pytest.mark.usefixtures("route")
def test_offset_invariance(offset: float, draw: Draw, device: torch.device) -> None:
    """A common offset that the logits bear exactly changes neither loss nor gradient by a single
    bit.
    """
    logits = (draw(6, 300, dtype=torch.float32, scale=3.0) * 4).round() / (1 if offset > 2e6 else 4)
    logits = logits * 2
    target = _classes(6, 300, device)
    plain = _loss_and_gradient(logits, target)
    shifted = _loss_and_gradient(logits + offset, target)
    assert torch.equal((logits + offset) - offset, logits)
    assert torch.equal(plain[0], shifted[0])
    assert torch.equal(plain[1], shifted[1])


@pytest.mark.usefixtures("small_tiles", "route")
def test_confident_rows(dtype: torch.dtype, device: torch.device) -> None:
    """The loss keeps its relative accuracy where the target's probability rounds to 1.

    From a margin of 17 on an fp32 probability is exactly 1 and log-softmax gives 0; from 87 (fp64:
    708) on the loss itself is subnormal, and each of its terms may not round on its own. The
    maximum comes in the first tile, in the second, or after the target.
    """
    end = 745 if dtype == torch.float64 else 103
    margins = torch.linspace(5, end, 24, dtype=torch.float64)
    logits = torch.zeros(24, 100, dtype=torch.float64)
    target = torch.tensor([7, 70, 99] * 8)
    logits[torch.arange(24), target] = margins
    logits = logits.to(dtype).to(device)
    target = target.to(device)
    loss, _ = _loss_and_gradient(logits, target)
    assert bool((loss > 0).all())
    _check(logits, target)


@pytest.mark.usefixtures("route")
def test_extreme_logits(dtype: torch.dtype, device: torch.device) -> None:
    """At the dtype's largest value and smallest subnormal, single entries and whole rows."""
    info = torch.finfo(dtype)
    tiny = info.smallest_normal * info.eps
    half = info.max / 4
    rows = [[info.max, 0, 0], [0, info.max, 0], [info.max] * 3, [-info.max] * 3, [tiny, 0, -tiny]]
    rows += [[half, -half, 0], [-info.max, tiny, -info.max]]
    logits = torch.tensor(rows, dtype=dtype, device=device)
    _check(logits, torch.zeros(len(rows), dtype=torch.long, device=device))


@pytest.mark.usefixtures("route")
def test_upstream_gradients(dtype: torch.dtype, draw: Draw, device: torch.device) -> None:
    """A random upstream gradient multiplies its row's gradient, strided or expanded alike."""
    logits = draw(6, 70, dtype=dtype, scale=2.0).requires_grad_()
    target = _classes(6, 70, device)
    _, truth = exact.cross_entropy(logits, target)
    dense = draw(6, 2, dtype=torch.float64).to(
        torch.float64 if dtype == torch.float64 else torch.float32
    )
    for upstream in (dense[:, 0], dense[:1, 0].expand(6)):
        loss = kernels.cross_entropy(logits, target, reduction="none")
        (gradient,) = torch.autograd.grad(loss, logits, upstream)
        expected = truth.sum() * upstream.double().cpu()[:, None]
        bound = 2.5 * exact.unit_in_last_place(expected, dtype) + 6e-16 * expected.abs()
        assert bool(((gradient.double().cpu() - expected).abs() <= bound).all())


@pytest.mark.usefixtures("route")
def test_loss_scaling_recovers_fp16_gradients(device: torch.device) -> None:
    """At 128256 classes a loss scale of 2**16 brings every fp16 gradient entry back.

    Uniform probabilities are 7.8e-6, below fp16's smallest normal; rounded before the scale is
    known, as a gradient formed in forward is, they would be a few subnormal steps.
    """
    n_classes, scale = 128256, 2.0**16
    logits = torch.linspace(-1, 1, n_classes).to(torch.float16).to(device).repeat(2, 1)
    target = torch.tensor([0, n_classes - 1], device=device)
    _, gradient = _loss_and_gradient(logits, target, scale)
    wide = logits.double()
    truth = torch.softmax(wide, dim=-1)
    off_target = torch.ones_like(truth, dtype=torch.bool).scatter_(1, target[:, None], False)
    recovered = gradient.double() / scale
    relative = ((recovered - truth).abs() / truth)[off_target].max()
    # Half an fp16 ULP of the scaled entry, and the statistics' own roundings.
    assert relative.item() <= torch.finfo(torch.float16).eps * 0.51
    at_target = gradient[~off_target].tolist()
    assert at_target == [-math.inf, -math.inf] or all(abs(v) >= 65504 for v in at_target)
