"""Class weights, smoothing, class probabilities, z-loss and softcap, alone and together, are
accurate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import kernels
from suites.conformance import exact_cross_entropy
from suites.conformance.exact import Exact, max_excess, max_ulps, unit_in_last_place

Draw = Callable[..., torch.Tensor]

# Each option alone, and all together; the smoothing and the caps are no dyadic numbers.
OPTIONS: dict[str, dict[str, float]] = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1},
    "z_loss": {"z_loss": 1e-3},
    "softcap": {"softcap": 7.3},
    "together": {"label_smoothing": 0.3, "z_loss": 1e-2, "softcap": 30.1},
}


@pytest.fixture(params=["indices", "probabilities"])
def kind(request: pytest.FixtureRequest) -> str:
    """What the target holds."""
    return str(request.param)


def _target(kind: str, rows: int, columns: int, dtype: torch.dtype, draw: Draw) -> Tensor:
    """Indices; or probabilities: soft ones, one of 1 in the last row, and a row of zeros first."""
    logits = draw(rows, columns, dtype=torch.float64, scale=2.0)
    if kind == "indices":
        return logits.argmax(dim=1)
    soft = torch.softmax(logits, dim=1)
    soft[-1] = 0.0
    soft[-1, columns // 2] = 1.0
    soft[0] = 0.0
    return soft.to(dtype).requires_grad_()


def _run(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    upstream: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, list[Tensor]]:
    """The loss and its gradients: of the logits, and of probabilities."""
    x = logits.detach().clone().requires_grad_()
    loss = kernels.cross_entropy(x, target, weight, **options)
    wanted = [x, target] if target.requires_grad else [x]
    upstream = torch.ones_like(loss) if upstream is None else upstream
    return loss.detach(), list(torch.autograd.grad(loss, wanted, upstream))


def _check_accuracy(
    width: int, kind: str, weighted: bool, dtype: torch.dtype, draw: Draw, options: dict[str, float]
) -> None:
    scales = torch.tensor([1.0, 1e-3, 5.0, 30.0, 2e3], dtype=torch.float64)
    logits = draw(5, width, dtype=torch.float64)
    logits = (logits * scales.to(logits.device)[:, None]).to(dtype)
    weight = draw(width, dtype=torch.float64).abs().to(dtype) if weighted else None
    target = _target(kind, 5, width, dtype, draw)
    loss, gradients = _run(logits, target, weight, reduction="none", **options)
    truth = exact_cross_entropy.cross_entropy(logits, target, weight, **options)
    granted = exact_cross_entropy.allowance(logits, target, weight, **options)
    assert max_excess(loss, truth["forward"], granted["forward"]) <= 2.0
    assert max_excess(gradients[0], truth["backward"], granted["backward"]) <= 2.0
    if kind == "probabilities":
        # w (1 - s) ((m - x) + log D): a rounding each, and those of a capped logit.
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        size = truth["target"].high.abs()
        if "softcap" in options:
            size = size + 2 * options["softcap"] * (
                1.0 if weight is None else weight.double().cpu()
            )
        assert max_excess(gradients[1], truth["target"], 3 * torch.finfo(wide).eps * size) <= 2.0


@pytest.mark.parametrize("name", [*OPTIONS, "weighted"])
@pytest.mark.usefixtures("small_tiles", "route")
def test_accuracy(name: str, kind: str, dtype: torch.dtype, draw: Draw) -> None:
    """Loss, gradient and the probabilities' gradient are within 2 ULP and the derived allowance of
    certified truth, from nearly uniform to nearly one-hot rows, over three tiles.
    """
    _check_accuracy(150, kind, name == "weighted", dtype, draw, OPTIONS.get(name, {}))


# One class; a tile's width of 64 and one to either side.
@pytest.mark.parametrize("width", [1, 63, 64, 65])
@pytest.mark.usefixtures("small_tiles", "route")
def test_widths(width: int, kind: str, dtype: torch.dtype, draw: Draw) -> None:
    """The same around the boundaries of a tile, with every option and class weights."""
    _check_accuracy(width, kind, True, dtype, draw, OPTIONS["together"])


@pytest.mark.parametrize("name", ["plain", "smoothed", "together"])
@pytest.mark.usefixtures("route")
def test_reductions(name: str, kind: str, dtype: torch.dtype, draw: Draw) -> None:
    """Sum and mean with weights and ignored rows are those of the certified rows, and their
    gradients the rows' share: the mean divides by the weights of the targets that count.
    """
    logits, target = draw(6, 20, dtype=dtype, scale=3.0), _target(kind, 6, 20, dtype, draw)
    weight = draw(20, dtype=torch.float64).abs().to(dtype)
    truth = exact_cross_entropy.cross_entropy(logits, target, weight, **OPTIONS[name])
    kept = torch.ones(6, dtype=torch.bool)
    divisor = torch.tensor(6.0, dtype=torch.float64)
    if kind == "indices":
        divisor = weight.double().cpu()[target.cpu()]
        target[2], kept[2] = -100, False
        divisor = divisor[kept].sum()
    granted = exact_cross_entropy.allowance(logits, target, weight, **OPTIONS[name])
    total = truth["forward"].sum()[kept].sum()
    for reduction, by in (("sum", torch.ones(())), ("mean", divisor)):
        loss, gradients = _run(logits, target, weight, reduction=reduction, **OPTIONS[name])
        bound = 3 * unit_in_last_place(total / by, loss.dtype)
        bound += granted["forward"][kept].sum() / by
        assert abs(loss.double().cpu() - total / by) <= bound
        share = truth["backward"].sum() * kept[:, None] / by
        # Two ULP of the rows' gradient, and the roundings of weight and divisor.
        bound = (
            3 * unit_in_last_place(share, dtype) + granted["backward"] / by + 1e-15 * share.abs()
        )
        assert bool(((gradients[0].double().cpu() - share).abs() <= bound).all())


@pytest.mark.usefixtures("small_tiles", "route")
def test_masked_classes_without_a_coefficient(dtype: torch.dtype, draw: Draw) -> None:
    """0 times -inf is 0: a masked class of weight 0 or probability 0 leaves loss and gradient what
    they are without that class, whole masked tiles included; torch's loss is NaN there.
    """
    logits = draw(3, 200, dtype=dtype, scale=3.0)
    visible = torch.ones(200, dtype=torch.bool)
    visible[:130] = visible[180] = False
    logits[:, ~visible] = -math.inf
    weight = draw(200, dtype=torch.float64).abs().to(dtype)
    weight[~visible] = 0.0
    soft = torch.softmax(logits.double(), dim=1).to(dtype)
    target = torch.tensor([150, 199, 185], device=logits.device)
    for given in (
        {"target": target, "weight": weight, "label_smoothing": 0.2},
        {"target": soft, "weight": None},
        {"target": soft, "weight": weight, "label_smoothing": 0.2},
    ):
        loss, (gradient,) = _run(logits, reduction="none", **given)
        truth = exact_cross_entropy.cross_entropy(logits, **given)
        granted = exact_cross_entropy.allowance(logits, **given)
        assert max_excess(loss, truth["forward"], granted["forward"]) <= 2.0
        assert max_excess(gradient, truth["backward"], granted["backward"]) <= 2.0
        assert not gradient[:, ~visible].any()


@pytest.mark.usefixtures("route")
def test_a_masked_target_of_weight_zero(draw: Draw) -> None:
    """Its row's loss and gradient are 0, where torch's loss is NaN; the mean leaves it out."""
    logits = draw(2, 5, dtype=torch.float32)
    logits[0, 3] = -math.inf
    weight = torch.tensor([1.0, 2.0, 0.5, 0.0, 1.0], device=logits.device)
    target = torch.tensor([3, 1], device=logits.device)
    loss, (gradient,) = _run(logits, target, weight, reduction="none")
    assert loss[0].item() == 0.0
    assert not gradient[0].any()
    mean, _ = _run(logits, target, weight)
    assert mean.item() == pytest.approx(loss[1].item() / 2.0, rel=1e-6)


@pytest.mark.usefixtures("small_tiles", "route")
def test_confident_rows_of_probabilities(dtype: torch.dtype, device: torch.device) -> None:
    """A one-hot row of probabilities keeps the relative accuracy that a class index has, where the
    probability rounds to 1: nothing cancels.
    """
    margins = torch.tensor([5.0, 20.0, 60.0, 90.0], dtype=torch.float64)
    logits = torch.zeros(4, 100, dtype=dtype, device=device)
    logits[:, 7] = margins.to(dtype).to(device)
    onehot = torch.zeros_like(logits)
    onehot[:, 7] = 1.0
    loss, (gradient,) = _run(logits, onehot, None, reduction="none")
    truth = exact_cross_entropy.cross_entropy(logits, onehot)
    assert max_ulps(loss, truth["forward"]) <= 2.0
    assert max_ulps(gradient, truth["backward"]) <= 2.0


@pytest.mark.usefixtures("route")
def test_cap_and_its_slope_over_the_range(dtype: torch.dtype, device: torch.device) -> None:
    """One class beside a zero, from subnormal to infinite logits: the capped loss is finite and the
    gradient carries the slope's relative accuracy down to where it vanishes.
    """
    info = torch.finfo(dtype)
    sizes = torch.logspace(
        math.log10(info.smallest_normal), math.log10(info.max), 60, dtype=torch.float64
    )
    x = torch.cat([sizes, -sizes]).clamp(-info.max, info.max).to(dtype)
    logits = torch.stack([x, torch.zeros_like(x)], dim=1).to(device)
    target = torch.arange(len(x), device=device) % 2
    loss, (gradient,) = _run(logits, target, None, reduction="none", softcap=30.0)
    truth = exact_cross_entropy.cross_entropy(logits, target, softcap=30.0)
    granted = exact_cross_entropy.allowance(logits, target, softcap=30.0)
    assert max_excess(loss, truth["forward"], granted["forward"]) <= 2.0
    assert max_excess(gradient, truth["backward"], granted["backward"]) <= 2.0
    ends = torch.tensor([[math.inf, 0.0], [-math.inf, 0.0]], dtype=dtype, device=device)
    loss, (gradient,) = _run(ends, target[:2] * 0, None, reduction="none", softcap=30.0)
    assert loss.tolist() == pytest.approx([math.exp(-30), 30.0], rel=1e-5)
    assert not gradient[:, 0].any()


@pytest.mark.usefixtures("route")
def test_upstream_scale_enters_before_rounding(kind: str, device: torch.device) -> None:
    """Exponentials below fp32's range times an upstream gradient of 2**100 keep their accuracy."""
    x = torch.linspace(-90.0, -140.0, 30, dtype=torch.float64).float()
    logits = torch.stack([x, torch.zeros_like(x)], dim=1).to(device)
    target = torch.ones(30, dtype=torch.int64, device=device)
    if kind == "probabilities":
        target = torch.tensor([[0.0, 1.0]] * 30, device=device)
    scale = torch.full((30,), 2.0**100, device=device)
    _, (gradient,) = _run(logits, target, None, scale, reduction="none")
    truth = exact_cross_entropy.cross_entropy(logits, target)["backward"]
    scaled = Exact(truth.high * 2.0**100, truth.low * 2.0**100)
    assert max_ulps(gradient, scaled) <= 2.0
