"""The one evaluator: parameters of any precision, cast to fp64, judged by the stable cost."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.training.workload import Rows, Workload, data_of

if TYPE_CHECKING:
    from harness.training.lanes import Stacked


def evaluate_lanes(
    workload: Workload,
    stacked: "Stacked",
    flat: Tensor,  # (l, P)
) -> tuple[list[float | None], list[float | None]]:
    """Loss on the training set and metric on the test set, a number a lane; None if not finite.

    The model runs in fp64 on fp64 copies of the parameters, on the first `evaluation_rows` samples
    of each set. The loss is that of the stable cost whatever path trained them.
    """
    data = data_of(workload)
    most = workload.evaluation_rows
    losses = _means(
        workload.stable, stacked, flat, data.train_inputs[:most], data.train_targets[:most]
    )
    metric = _means(
        workload.metric, stacked, flat, data.test_inputs[:most], data.test_targets[:most]
    )
    return losses, [
        value if loss is not None else None for loss, value in zip(losses, metric, strict=True)
    ]


_AT_ONCE = 32  # lanes, for memory's sake


def _means(
    judge: Rows, stacked: "Stacked", flat: Tensor, inputs: Tensor, targets: Tensor
) -> list[float | None]:
    inputs, targets = inputs.to(flat.device), targets.to(flat.device)
    found: list[float | None] = []
    with torch.no_grad():
        for part in flat.split(_AT_ONCE):
            shared = inputs.expand(len(part), *inputs.shape)
            outputs = stacked.forward(part.double(), shared)
            wanted = targets.expand(len(part), *targets.shape)
            rows = judge(outputs.flatten(0, -2), wanted.flatten())
            means = rows.double().view(len(part), -1).mean(dim=1).tolist()
            found += [each if math.isfinite(each) else None for each in means]
    return found


def evaluate_model(workload: Workload, model: nn.Module) -> tuple[float | None, float | None]:
    """The same for a module, which is turned into fp64 in place."""
    data, most = data_of(workload), workload.evaluation_rows
    model.double()
    device = next(model.parameters()).device
    found: list[float | None] = []
    with torch.no_grad():
        for judge, inputs, targets in (
            (workload.stable, data.train_inputs[:most], data.train_targets[:most]),
            (workload.metric, data.test_inputs[:most], data.test_targets[:most]),
        ):
            outputs = model(inputs.to(device)).flatten(0, -2)
            mean = float(judge(outputs, targets.to(device).flatten()).double().mean())
            found.append(mean if math.isfinite(mean) else None)
    return found[0], found[1] if found[0] is not None else None
