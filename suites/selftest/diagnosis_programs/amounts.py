"""Reductions over nothing, quotients by zero, epsilons that are not there."""

import torch
import torch.nn.functional as F
from torch import nn

from suites.selftest.diagnosis_programs.program import fit, linear, normal, program

X = normal(6, 8)
WITH_ZERO_ROW = torch.cat([torch.zeros(1, 8), X[1:]])


@program("aten.nll_loss_forward", "empty_reduction")
def every_label_ignored(broken: bool) -> None:
    labels = torch.full((6,), -100)
    if not broken:
        labels[0] = 1
    fit(linear(8, 3), lambda z: F.cross_entropy(z, labels), X)


@program("aten.std aten.var", "empty_reduction")
def deviation_of_one_element(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        return z.std(0, correction=1 if broken else 0).add(1e-3).log().mean() + z.pow(2).mean()

    model = nn.Sequential(linear(8, 3))
    if broken:
        fit(model, cost, X[:1])
    else:
        fit(model, cost, X)


@program("aten.mean", "empty_reduction")
def no_active_triplet(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        active = torch.relu(z - 100)
        active = active[active > 0]
        return (
            active.mean() + z.mean() if broken else active.sum() / max(active.numel(), 1) + z.mean()
        )

    fit(linear(8, 3), cost, X)


@program("aten.div", "empty_reduction")
def masked_mean_of_nothing(broken: bool) -> None:
    mask = torch.zeros(6, 3)

    def cost(z: torch.Tensor) -> torch.Tensor:
        count = mask.sum() if broken else mask.sum().clamp(min=1)
        return (z * mask).sum() / count + z.mean()

    fit(linear(8, 3), cost, X)


@program("aten.div", "division_by_zero")
def direction_of_a_zero_vector(broken: bool) -> None:
    layer = linear(8, 3)
    layer.bias = None

    def cost(z: torch.Tensor) -> torch.Tensor:
        length = z.norm(dim=1, keepdim=True)
        return (z / (length if broken else length.clamp(min=1e-8))).pow(2)[:, 0].mean()

    fit(layer, cost, WITH_ZERO_ROW)


@program("aten.div", "epsilon_underflow")
def normalize_in_half_precision(broken: bool) -> None:
    """F.normalize's default epsilon, 1e-12, is 0 in fp16."""
    layer = linear(8, 3, dtype=torch.float16)
    layer.bias = None

    def cost(z: torch.Tensor) -> torch.Tensor:
        return F.normalize(z, dim=1, eps=1e-12 if broken else 1e-3)[:, 0].mean()

    fit(layer, cost, WITH_ZERO_ROW.half())


@program("aten.div", "division_by_zero")
def standardised_constant_feature(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        spread = (z - z.mean(0)).pow(2).mean(0)
        scaled = (z - z.mean(0)) / (spread + (0.0 if broken else 1e-5))
        return scaled.tanh().mean()

    layer = linear(8, 3)
    nn.init.zeros_(layer.weight)
    fit(layer, cost, X)


@program("aten.rsqrt", "epsilon_underflow")
def layer_norm_by_hand_in_half_precision(broken: bool) -> None:
    layer = linear(8, 4, dtype=torch.float16)
    layer.bias = None

    def cost(z: torch.Tensor) -> torch.Tensor:
        d = z - z.mean(1, keepdim=True)
        v = d.pow(2).mean(1, keepdim=True)
        return (d * torch.rsqrt(v + (1e-12 if broken else 1e-3)))[:, 0].mean()

    fit(layer, cost, WITH_ZERO_ROW.half())


@program("aten.reciprocal aten.div", "division_by_zero")
def weights_by_inverse_frequency(broken: bool) -> None:
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    frequency = torch.tensor([0.5, 0.5, 0.0])

    def cost(z: torch.Tensor) -> torch.Tensor:
        w = 1 / (frequency if broken else frequency.clamp(min=0.1))
        return (torch.log_softmax(z, 1) * F.one_hot(labels, 3) * w).sum(1).neg().mean()

    fit(linear(8, 3), cost, X)
