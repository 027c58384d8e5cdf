"""What a seed decides: the initial parameters and the order of the samples."""

import torch
from torch import Tensor, nn

from harness.training.setting import Setting
from harness.training.workload import Workload

INITIALIZATIONS = ("default", "xavier", "he", "too_large", "too_small")
_TOO_LARGE, _TOO_SMALL = 10.0, 0.01  # times the default


def initial_model(workload: Workload, setting: Setting, seed: int) -> nn.Module:
    """The model of a seed in fp32: the same for every rate, cost path and precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = workload.model(setting.normalization)
        _initialize(model, setting.initialization)
    return model


def _initialize(model: nn.Module, how: str) -> None:
    """Change the weights (of two dimensions or more) as asked; biases and norms' scales stay."""
    if how == "default":
        return
    for parameter in model.parameters():
        if parameter.dim() < 2:
            continue
        if how == "xavier":
            nn.init.xavier_uniform_(parameter)
        elif how == "he":
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        else:
            with torch.no_grad():
                parameter.mul_(_TOO_LARGE if how == "too_large" else _TOO_SMALL)


def order(samples: int, batch: int, steps: int, seed: int) -> Tensor:  # (steps, batch)
    """Which samples each step sees: every epoch a new permutation, its remainder left out."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + 17)
    per_epoch = samples // batch
    rows: list[Tensor] = []
    while sum(len(each) for each in rows) < steps:
        shuffled = torch.randperm(samples, generator=generator)
        rows.append(shuffled[: per_epoch * batch].reshape(per_epoch, batch))
    return torch.cat(rows)[:steps]
