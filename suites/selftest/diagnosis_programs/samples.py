"""Bad samples, bad targets, poisoned buffers, bad initialisation."""

import torch
import torch.nn.functional as F
from torch import nn

from suites.selftest.diagnosis_programs.program import fit, linear, normal, program


def batches(broken: bool, value: float) -> list[torch.Tensor]:
    """Ten batches, of which the seventh has one bad entry."""
    x = [normal(8, 4, seed=seed) for seed in range(10)]
    if broken:
        x[6][3, 1] = value
    return x


def train_on(x: list[torch.Tensor], model: nn.Module, lr: float = 0.01) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for batch in x:
        optimizer.zero_grad()
        model(batch).pow(2).mean().backward()
        optimizer.step()


@program("aten.addmm aten.mm", "bad_data")
def missing_value_in_a_table(broken: bool) -> None:
    train_on(batches(broken, float("nan")), linear(4, 2))


@program("aten.addmm aten.mm aten.pow", "bad_data")
def outlier_in_a_table(broken: bool) -> None:
    train_on(batches(broken, 1e30), linear(4, 2))


@program("aten.addmm aten.mm aten.pow", "bad_data")
def infinite_feature(broken: bool) -> None:
    train_on(batches(broken, float("inf")), linear(4, 2))


@program("aten.mse_loss aten.sub", "bad_target")
def missing_label(broken: bool) -> None:
    y = normal(8, 2, seed=3)
    if broken:
        y[2, 0] = float("nan")
    fit(linear(4, 2), lambda z: F.mse_loss(z, y), normal(8, 4))


@program(
    "aten.native_batch_norm aten.cudnn_batch_norm aten._native_batch_norm_legit", "poisoned_buffer"
)
def statistics_of_a_skipped_batch(broken: bool) -> None:
    """The bad batch is looked at without gradients, and stays in the running averages."""
    model = nn.Sequential(linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), linear(8, 2))
    with torch.no_grad():
        for batch in batches(broken, float("nan")):
            model(batch)
    model.eval()
    train_on(batches(False, 0.0), model)


@program("aten.addmm aten.mm", "initialization")
def weights_never_initialised(broken: bool) -> None:
    layer = linear(4, 2)
    if broken:
        storage = torch.tensor([float("nan"), 1.0] * 4).reshape(2, 4)
        layer.weight = nn.Parameter(storage)
    fit(layer, lambda z: z.pow(2).mean(), normal(8, 4))


@program("aten.addmm aten.mm aten.pow", "initialization")
def deep_net_with_unit_weights(broken: bool) -> None:
    depth, width = 20, 256
    layers = [linear(width, width, 10.0 if broken else 0.06) for _ in range(depth)]
    fit(nn.Sequential(*layers), lambda z: z.pow(2).mean(), normal(8, width), lr=1e-6)
