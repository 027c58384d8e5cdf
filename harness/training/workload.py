"""What a suite declares of a workload, and what somebody's own model hands over."""

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.training.setting import Setting

# Outputs (N, C) and targets (N,) to one loss a row (N,), in the dtype that the path leaves it in.
Rows = Callable[[Tensor, Tensor], Tensor]

# Numbers that a run's record holds beside the usual ones, taken when it has ended.
Measure = Callable[[], Mapping[str, float]]
# Model, optimiser and the name of the normalisation.
Prepare = Callable[[nn.Module, torch.optim.Optimizer, str], Measure | None]


@dataclass(frozen=True, slots=True)
class Data:
    """A split: inputs as fp64, or whole numbers (tokens); the first dimension is the sample."""

    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor


# A workload is itself: its functions have no equality, and its data are loaded once.
@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """A model on data, stated as in a paper by `statement`.

    `model` makes the module for a normalisation, drawing from torch's global generator in fp32. The
    module must work under torch.func.vmap (no in-place statistics) unless the normalisation is one
    of `modules`, whose layers need a real module and optimiser. `costs` are the paths of the cost;
    `stable` judges all of them and is called in fp64. `classes` of 1 is a binary target.
    """

    name: str
    statement: str
    data: Callable[[], Data]
    model: Callable[[str], nn.Module]
    operation: str
    costs: Mapping[str, Rows]
    stable: Rows
    metric: Rows  # per row, averaged: 1 where right
    batch_size: int
    steps: int
    normalizations: tuple[str, ...] = ("none",)
    modules: tuple[str, ...] = ()  # normalisations that lanes cannot take
    prepare: Prepare | None = None  # before a run of one of `modules`
    absent: Callable[[str, str], str | None] = lambda path, device: None  # why a path is
    # Around the whole run of a setting: what decides how a path is computed.
    context: Callable[[Setting], AbstractContextManager[object]] = lambda setting: nullcontext()
    most_lanes: int = 512  # at once, for memory's sake
    evaluation_rows: int = 1024  # of the training set, for initial and final loss


@functools.lru_cache(maxsize=32)
def data_of(workload: Workload) -> Data:
    """A workload's data, loaded once a process."""
    return workload.data()
