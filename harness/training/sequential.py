"""The runs of a declared workload, one after another."""

import copy
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from harness.training.alone import Job, Losses, run_alone
from harness.training.draws import initial_model, order
from harness.training.evaluate import evaluate_model
from harness.training.memory import PeakMemory
from harness.training.outcome import Conditions, Outcome
from harness.training.precision import PRECISIONS
from harness.training.setting import Lane, Setting
from harness.training.workload import Measure, Workload, data_of


def run_sequential(
    workload: Workload,
    setting: Setting,
    lanes: Sequence[Lane],
    steps: int,
    *,
    device: str,
    dense: bool = False,
) -> tuple[list[Outcome], Conditions]:
    """Train every lane alone, as `run_lanes` trains them beside each other."""
    started = time.perf_counter()
    memory = PeakMemory(device)
    precision = PRECISIONS[setting.precision]
    data = data_of(workload)
    inputs = data.train_inputs.to(device)
    if inputs.is_floating_point():
        inputs = inputs.to(precision.storage)
    targets = data.train_targets.to(device)
    outcomes, training = [], 0.0
    for lane in lanes:
        model = initial_model(workload, setting, lane.seed).to(device, precision.storage)
        initial, _ = evaluate_model(workload, copy.deepcopy(model))
        job = job_of(workload, setting, model, inputs, targets, steps, lane.seed)
        trained = run_alone(job, setting, lane, precision, steps, device=device, dense=dense)
        training += trained.seconds
        final, metric = evaluate_model(workload, copy.deepcopy(model))
        outcomes.append(
            Outcome(lane, trained.notes, initial, final, metric, dict(trained.measured))
        )
    per_epoch = max(1, len(inputs) // workload.batch_size)
    seconds = time.perf_counter() - started
    made = sum(each.notes.steps for each in outcomes)
    return outcomes, Conditions(
        "alone", len(lanes), seconds, training, made, per_epoch, memory.bytes()
    )


def job_of(
    workload: Workload,
    setting: Setting,
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    steps: int,
    seed: int,
) -> Job:
    """The run of a seed; inputs in the storage dtype, the model as it begins."""
    picked = order(len(inputs), workload.batch_size, steps, seed).to(inputs.device)
    cost = workload.costs[setting.path]

    def batch(number: int) -> tuple[Tensor, ...]:
        return inputs[picked[number]], targets[picked[number]]

    def loss(module: nn.Module, given: tuple[Tensor, ...]) -> Losses:
        outputs, wanted = module(given[0]).flatten(0, -2), given[1].flatten()
        return Losses(cost(outputs, wanted).mean(), outputs, wanted)

    def prepare(module: nn.Module, optimizer: torch.optim.Optimizer) -> Measure | None:
        if workload.prepare is None or setting.normalization not in workload.modules:
            return None
        return workload.prepare(module, optimizer, setting.normalization)

    return Job(model, batch, loss, prepare, workload.operation == "normalize")
