"""Gradients whose parts leave the dtype's range though the result does not; means of subnormals."""

from __future__ import annotations

import pytest
import torch

import kernels
from suites.conformance import exact

WIDE = {"fp32": torch.float32, "fp64": torch.float64}
bce = kernels.binary_cross_entropy_with_logits


# Logits whose exponential is subnormal, or below even that.
@pytest.mark.parametrize("scale", [1.0, 65536.0, 2.0**60])
@pytest.mark.parametrize("name", ["fp32", "fp64", "bf16"])
@pytest.mark.usefixtures("route")
def test_upstream_scale_enters_before_rounding(
    name: str, scale: float, device: torch.device
) -> None:
    """A subnormal exponential times an upstream gradient keeps the result's relative accuracy."""
    dtype = WIDE.get(name, torch.bfloat16)
    start = -700.0 if name == "fp64" else -80.0
    x = torch.linspace(start, start * 1.06 - 20, 40, dtype=torch.float64).to(dtype).to(device)
    truth = exact.sigmoid_times(x, scale)

    logits = x.clone().requires_grad_()
    loss = bce(logits, torch.zeros_like(x), reduction="none")
    loss.backward(torch.full_like(loss, scale))
    assert logits.grad is not None
    assert exact.max_excess(logits.grad, truth, 1e-15 * truth.high.abs()) <= 2.0

    rows = torch.stack([x, torch.zeros_like(x)], dim=1).requires_grad_()
    target = torch.ones(40, dtype=torch.long, device=device)
    loss = kernels.cross_entropy(rows, target, reduction="none")
    loss.backward(torch.full_like(loss, scale))
    assert rows.grad is not None
    slack = 1e-15 * truth.high.abs()
    assert exact.max_excess(rows.grad[:, 0], truth, slack) <= 2.0
    assert exact.max_excess(-rows.grad[:, 1], truth, slack) <= 2.0


@pytest.mark.parametrize(
    ("name", "x", "upstream"),
    [
        ("fp32", [1.0, 0.0], [1e30, 1e-30]),
        ("fp32", [1e-4, 1.4e-45], [1.0, 0.0]),
        ("fp32", [1.0, 1e-42], [1e30, 0.0]),
        ("fp32", [1.0, 0.0], [1e-30, 1e30]),
        ("bf16", [1.0, 0.0], [1e30, 1e-30]),
        ("bf16", [1.0, 1e-38], [1e30, 0.0]),
        ("fp64", [1e-6, 3e-320], [1.0, 0.0]),
        ("fp64", [1.0, 0.0], [1e200, 1e-200]),
        ("fp64", [1.0, 1e-310], [1e250, 1e-300]),
        ("fp64", [1e300, 1e-300], [1e250, 1e-300]),
        ("fp64", [1e-300, 1e-310], [1e-250, 1e-300]),
        ("fp64", [1e-300, 1e-310], [1e-310, 3e-316]),
    ],
)
@pytest.mark.usefixtures("route")
def test_normalize_wide_rows(
    name: str, x: list[float], upstream: list[float], device: torch.device
) -> None:
    """A row of x or of its upstream gradient may span the dtype's range: each entry is right."""
    dtype = WIDE.get(name, torch.bfloat16)
    rows = torch.tensor([x], dtype=dtype, device=device).requires_grad_()
    g = torch.tensor([upstream], dtype=dtype, device=device)
    kernels.normalize(rows, eps=0.0).backward(g)
    _, truth, size = exact.normalize(rows, g, 0.0)
    # The first entry's two terms nearly cancel. fp64 has nothing wider: five roundings, each at
    # most half an ULP or, across a power of two, one.
    slack = 6 * torch.finfo(torch.float64 if name == "fp64" else torch.float32).eps / 2 * size
    slack[:, 1] = 0.0
    assert rows.grad is not None
    assert exact.max_excess(rows.grad, truth, slack) <= (3.0 if name == "fp64" else 2.0)


@pytest.mark.usefixtures("route")
def test_mean_of_subnormal_losses(device: torch.device) -> None:
    """The mean of fp64 losses that are subnormal is not lost to a division before the sum."""
    rows = torch.tensor([[738.0, 0.0]] * 1000, dtype=torch.float64, device=device)
    target = torch.zeros(1000, dtype=torch.long, device=device)
    one = exact.elementwise("exp", rows[:1, 0] * -1).high.item()
    assert kernels.cross_entropy(rows, target).item() == one
    assert bce(-rows[:, 0], torch.zeros(1000, dtype=torch.float64, device=device)).item() == one
