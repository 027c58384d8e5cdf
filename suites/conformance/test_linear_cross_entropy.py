"""Linear cross-entropy: chunks of any size, every option, accuracy, memory, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import kernels
from kernels.linear_cross_entropy import operators, product, reference
from suites.catalog.linear_cross_entropy import LINEAR_CROSS_ENTROPY

Draw = Callable[..., torch.Tensor]

N, H, C = 7, 16, 50


def _inputs(draw: Draw, dtype: torch.dtype, *extra: int) -> tuple[torch.Tensor, ...]:
    """x (N, H), weight (C, extra, H), bias (C, extra), class indices (N, extra), one ignored."""
    x, weight = draw(N, H, dtype=dtype), draw(C, *extra, H, dtype=dtype)
    bias = draw(C, *extra, dtype=dtype)
    generator = torch.Generator().manual_seed(3)
    target = torch.randint(C, (N, *extra), generator=generator).to(x.device)
    target[1] = -100
    for leaf in (x, weight, bias):
        leaf.requires_grad_()
    return x, weight, bias, target


def _both(
    tensors: tuple[torch.Tensor, ...], target: torch.Tensor, **options: Any
) -> list[tuple[torch.Tensor, ...]]:
    """Loss and gradients by ours, and by torch's own function of the same numbers in fp64."""
    found = []
    for wide in (False, True):
        x, weight, bias = (t.detach().double() if wide else t.detach() for t in tensors)
        given = {k: v for k, v in options.items() if not (wide and k == "chunk_rows")}
        if wide and given.get("weight") is not None:
            given["weight"] = given["weight"].double()
        labels = target.double() if wide and target.is_floating_point() else target
        for leaf in (x, weight, bias):
            leaf.requires_grad_()
        function = F.linear_cross_entropy if wide else kernels.linear_cross_entropy
        loss = function(x, weight, labels, linear_bias=bias, **given)
        upstream = torch.linspace(0.5, 1.5, max(loss.numel(), 1), dtype=loss.dtype)
        upstream = upstream.reshape(loss.shape).to(loss.device)
        gradients = torch.autograd.grad(loss, (x, weight, bias), upstream)
        found.append((loss.detach(), *gradients))
    return found


def _close(ours: tuple[torch.Tensor, ...], theirs: tuple[torch.Tensor, ...]) -> None:
    """Within the rounding of the returned dtype, and 64 u of the largest value for cancellation."""
    for a, b in zip(ours, theirs, strict=True):
        roundoff = 1e-13 if a.dtype == torch.float64 else 64 * 2.0**-24
        torch.testing.assert_close(
            a.double(), b, rtol=torch.finfo(a.dtype).eps, atol=roundoff * float(b.abs().max() + 1)
        )


has_torchs = pytest.mark.skipif(
    not hasattr(F, "linear_cross_entropy"), reason="this torch has no linear_cross_entropy"
)


# One row at a time, a chunk that divides nothing, exactly all, more than there are, the default.
@pytest.mark.parametrize("chunk_rows", [1, 3, N, 100, None])
@pytest.mark.usefixtures("route")
@has_torchs
def test_chunks(chunk_rows: int | None, dtype: torch.dtype, draw: Draw) -> None:
    """However the rows are cut, loss and gradients are torch's in fp64."""
    *tensors, target = _inputs(draw, dtype)
    _close(*_both(tuple(tensors), target, chunk_rows=chunk_rows))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "option", ["plain", "weight", "label_smoothing", "probabilities", "positions"]
)
@has_torchs
def test_options(option: str, reduction: str, draw: Draw) -> None:
    """Weights, smoothing, probabilities and K-dimensional losses under every reduction."""
    *tensors, target = _inputs(draw, torch.float64, *((2, 3) if option == "positions" else ()))
    options: dict[str, Any] = {"reduction": reduction, "chunk_rows": 3}
    if option == "weight":
        options["weight"] = torch.linspace(0.0, 2.0, C, dtype=torch.float64).to(target.device)
    elif option == "label_smoothing":
        options["label_smoothing"] = 0.1
    elif option == "probabilities":
        target = draw(N, C, dtype=torch.float64).softmax(dim=1)
    _close(*_both(tuple(tensors), target, **options))


def test_additions(draw: Draw) -> None:
    """z_loss, softcap and all_ignored mean what they mean in cross_entropy of the logits."""
    *tensors, target = _inputs(draw, torch.float64)
    x, weight, bias = tensors
    for options in ({"z_loss": 0.01}, {"softcap": 5.0}, {"z_loss": 0.1, "softcap": 2.0}):
        ours = kernels.linear_cross_entropy(
            x, weight, target, linear_bias=bias, chunk_rows=2, **options
        )
        theirs = kernels.cross_entropy(F.linear(x, weight, bias), target, **options)
        found = [torch.autograd.grad(loss, tuple(tensors)) for loss in (ours, theirs)]
        _close((ours.detach(), *found[0]), (theirs.detach(), *found[1]))
    ignored = torch.full_like(target, -100)
    assert kernels.linear_cross_entropy(x, weight, ignored).isnan()
    zero = kernels.linear_cross_entropy(x, weight, ignored, all_ignored="zero")
    gradients = torch.autograd.grad(zero, (x, weight))
    assert zero.item() == 0.0
    assert not any(bool(each.any()) for each in gradients)


def test_half_precision_logits_are_not_rounded(device: torch.device) -> None:
    """bf16 rows whose logits lie near 100 keep the loss that fp32 logits give; torch's do not."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(6, 64, generator=generator).bfloat16().to(device)
    weight = (4 * torch.randn(40, 64, generator=generator)).bfloat16().to(device)
    target = torch.arange(6, device=device)
    truth = F.cross_entropy(x.double() @ weight.double().t(), target, reduction="none")
    ours = kernels.linear_cross_entropy(x, weight, target, reduction="none")
    theirs = reference.torch_native(x, weight, target)
    assert (ours.double() - truth).abs().max() < 1e-4 < (theirs.double() - truth).abs().max()


def test_bad_rows_stay_alone(device: torch.device) -> None:
    """A NaN row and an unchecked bad target make their own losses and inputs' gradients NaN."""
    x = torch.ones(5, 4, device=device)
    x[1, 2] = float("nan")
    x.requires_grad_()
    weight = torch.eye(6, 4, device=device)
    target = torch.tensor([0, 1, 77, 3, 4], device=device)
    loss = kernels.linear_cross_entropy(
        x, weight, target, reduction="none", check_targets=False, chunk_rows=2
    )
    (gradient,) = torch.autograd.grad(loss, x, torch.ones_like(loss))
    bad = [False, True, True, False, False]
    assert loss.isnan().tolist() == bad
    assert gradient.isnan().any(dim=1).tolist() == bad
    with pytest.raises(IndexError, match=r"target 77 at position \(2,\)"):
        kernels.linear_cross_entropy(x, weight, target, check_targets=True)


def test_no_tensor_is_as_large_as_the_logits(
    monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    """Forward and backward hold a chunk's logits at most: 4 of 64 rows here."""
    widest = 0

    def watched(*arguments: Any) -> torch.Tensor:
        nonlocal widest
        logits = original(*arguments)
        widest = max(widest, logits.numel())
        return logits

    original = product.logits_of
    monkeypatch.setattr(product, "logits_of", watched)
    x = torch.randn(64, 8, device=device).requires_grad_()
    weight = torch.randn(1000, 8, device=device).requires_grad_()
    target = torch.arange(64, device=device)
    kernels.linear_cross_entropy(x, weight, target, chunk_rows=4).backward()
    assert widest == 4 * 1000


def test_default_chunks() -> None:
    """A chunk's logits are no more than the input's elements, or 2**24 where that is less."""
    x, weight = torch.empty(0).expand(2**16, 0), torch.empty(0).expand(2**17, 0)
    assert operators.rows_of_chunk(x, weight, 0) == 2**24 // 2**17
    large = torch.empty(1).expand(2**16, 2**12)
    assert operators.rows_of_chunk(large, weight, 0) == 2**28 // 2**17
    assert operators.rows_of_chunk(large, weight, 5) == 5


def test_split_products(device: torch.device) -> None:
    """The two half-precision terms hold the gradient to 2**-15 of each element or better, and what
    they cannot hold is below 2**-34 of the largest.
    """
    values = torch.randn(64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wide = (values * 2.0 ** torch.linspace(-60, 0, 64, dtype=torch.float64)[:, None]).float()
    for half in (torch.float16, torch.bfloat16):
        scale, terms = product._split(wide, half)
        held = sum(term.double() * unit for term, unit in terms) * scale.double()
        error = (held - wide.double()).abs()
        bound = wide.double().abs() * 2.0**-15
        floor = wide.abs().max().double() * 2.0**-34 if half == torch.float16 else 0.0
        assert bool((error <= bound + floor).all())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"input": torch.zeros(2, 3, 4)}, ValueError, r"\(2, 3, 4\)"),
        ({"linear_weight": torch.zeros(5, 3)}, ValueError, r"H = 4, got \(5, 3\)"),
        ({"linear_weight": torch.zeros(5, 4).half()}, TypeError, "float16"),
        ({"linear_bias": torch.zeros(4)}, ValueError, r"\(5,\), got \(4,\)"),
        ({"target": torch.zeros(3, dtype=torch.long)}, ValueError, r"\(2,\), got \(3,\)"),
        ({"softcap": -1.0}, ValueError, "-1.0"),
        ({"chunk_rows": 0}, ValueError, "got 0"),
        ({"reduction": "avg"}, ValueError, "'avg'"),
        (
            {"target": torch.full((2, 5), 0.2, requires_grad=True)},
            NotImplementedError,
            "no gradient",
        ),
    ],
)
def test_errors_restate_the_input(
    change: dict[str, Any], error: type[Exception], words: str
) -> None:
    """Bad input raises the documented error with the offending value in the message."""
    given: dict[str, Any] = {
        "input": torch.zeros(2, 4),
        "linear_weight": torch.zeros(5, 4),
        "target": torch.zeros(2, dtype=torch.long),
    }
    with pytest.raises(error, match=words):
        kernels.linear_cross_entropy(**(given | change))


def test_reference_formulas(draw: Draw) -> None:
    """The formulas people write agree with the catalog's truth on tame rows."""
    x, weight = draw(4, 8, dtype=torch.float64), draw(10, 8, dtype=torch.float64)
    target = torch.arange(4, device=x.device)
    roles = {"input": x, "linear_weight": weight, "target": target}
    truth = LINEAR_CROSS_ENTROPY.truth(roles)["forward"]
    for function in (reference.naive, reference.torch_native):
        torch.testing.assert_close(function(x, weight, target), truth, rtol=1e-12, atol=0)
