"""Defects without a NaN."""

import torch
import torch.nn.functional as F
from torch import nn

from suites.selftest.diagnosis_programs.program import fit, linear, normal, program

X = normal(16, 8)
LABELS = (X[:, 0] > 0).long()


@program("optimizer.step", "lost_update", kind="silent")
def bf16_weights_never_move(broken: bool) -> None:
    layer = linear(8, 2, 1.0, torch.bfloat16)
    fit(
        layer,
        lambda z: F.cross_entropy(z.float(), LABELS),
        X.bfloat16(),
        steps=20,
        lr=1e-5 if broken else 0.1,
    )


@program("aten.pow aten.mean aten.mul", "dead_output", kind="silent")
def rms_norm_of_zeros_in_half_precision(broken: bool) -> None:
    """The squares overflow, rsqrt(inf) is 0, and the norm is 0."""
    layer = linear(8, 16, 0.35, torch.float16)

    def cost(z: torch.Tensor) -> torch.Tensor:
        z = z if broken else z.float()
        n = z * torch.rsqrt(z.pow(2).mean(-1, keepdim=True) + 1e-5)
        return n[:, 0].float().mean()

    fit(layer, cost, (X * 900).half(), steps=8, lr=0.1)


@program("aten._softmax", "activation_mismatch", kind="silent")
def softmax_before_cross_entropy(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(torch.softmax(z, 1) if broken else z, LABELS)

    fit(linear(8, 2), cost, X, steps=8)


@program("aten.relu", "activation_mismatch dead_output", kind="silent")
def relu_on_the_logits(broken: bool) -> None:
    model = nn.Sequential(linear(8, 2), *([nn.ReLU()] if broken else []))
    fit(model, lambda z: F.cross_entropy(z, LABELS), X, steps=8)


@program("aten.nll_loss_forward", "activation_mismatch", kind="silent")
def logits_as_log_probabilities(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        return F.nll_loss(z if broken else F.log_softmax(z, 1), LABELS)

    fit(linear(8, 2), cost, X, steps=8)


@program("aten.sigmoid", "activation_mismatch", kind="silent")
def sigmoid_twice(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        z = torch.sigmoid(z) if broken else z
        return F.binary_cross_entropy_with_logits(z[:, 0], LABELS.float())

    fit(linear(8, 1), cost, X, steps=8)


@program("aten.relu", "dead_output", kind="silent")
def dead_rectifiers(broken: bool) -> None:
    first = linear(8, 16)
    nn.init.constant_(first.bias, -100.0 if broken else 0.0)
    model = nn.Sequential(first, nn.ReLU(), linear(16, 2))
    fit(model, lambda z: F.cross_entropy(z, LABELS), X, steps=10)


@program("aten.mean aten.div aten.mul aten._to_copy", "lost_update", kind="silent")
def gradients_flushed_to_zero(broken: bool) -> None:
    """A loss weighted by 1e-9: its gradient is below fp16's smallest number."""
    layer = linear(8, 2, dtype=torch.float16)

    def cost(z: torch.Tensor) -> torch.Tensor:
        return (z.float() * (1e-9 if broken else 1.0)).pow(1).mean() + (0.1 if broken else 0.0)

    fit(layer, cost, X.half(), steps=8)


@program("aten.add", "epsilon_underflow", kind="silent")
def epsilon_that_is_not_there(broken: bool) -> None:
    """Nothing divides by zero yet; the guard is missing all the same."""
    layer = linear(8, 4, dtype=torch.float16)

    def cost(z: torch.Tensor) -> torch.Tensor:
        return (z / (z.abs().sum(1, keepdim=True) + (1e-8 if broken else 1e-3)))[:, 0].mean()

    fit(layer, cost, X.half(), steps=6)


@program("aten._softmax", "activation_mismatch", kind="silent")
def softmax_over_one_column(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        p = torch.softmax(z, 1) if broken else torch.sigmoid(z)
        return (p[:, 0] - LABELS).pow(2).mean()

    fit(linear(8, 1), cost, X, steps=6)
