"""Many runs of one setting as lanes of one batched model: one rate and seed a lane.

Parameters lie in one tensor (lanes, P). The forward pass is torch.func.vmap over them, the cost one
call on all lanes' rows; a lane's loss depends on its own parameters alone, so the gradient of the
losses' sum is each lane's own gradient, and NaN stays where it is.
"""

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from harness.training.alone import find_place
from harness.training.draws import initial_model, order
from harness.training.evaluate import evaluate_lanes
from harness.training.memory import PeakMemory
from harness.training.optimizers import UPDATES, new_state
from harness.training.outcome import Conditions, Outcome
from harness.training.precision import PRECISIONS, Precision
from harness.training.scaler import LaneScaler
from harness.training.schedules import Schedule
from harness.training.sequential import job_of
from harness.training.setting import Lane, Setting
from harness.training.stopwatch import Clock
from harness.training.watch import About, Step, Watch
from harness.training.workload import Workload, data_of


class Stacked:
    """The shape of a model's parameters, to cut lanes' flat rows into them."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.names = tuple(name for name, _ in model.named_parameters())
        self._shapes = [tuple(each.shape) for each in model.parameters()]
        self.sizes = tuple(each.numel() for each in model.parameters())
        self._buffers = dict(model.named_buffers())

    def views(self, flat: Tensor) -> dict[str, Tensor]:  # (l, P) -> each (l, ...)
        parts = flat.split(self.sizes, dim=1)
        return {
            name: part.view(len(flat), *shape)
            for name, part, shape in zip(self.names, parts, self._shapes, strict=True)
        }

    def forward(self, flat: Tensor, inputs: Tensor) -> Tensor:  # (l, P), (l, B, ...)
        """Every lane's outputs for its own inputs."""

        def one(parameters: dict[str, Tensor], mine: Tensor) -> Tensor:
            found: Tensor = functional_call(self.model, parameters, (mine,))
            return found

        if len(flat) == 1:
            alone = {name: each[0] for name, each in self.views(flat).items()}
            return one(alone, inputs[0])[None]
        return vmap(one)(self.views(flat), inputs)


def run_lanes(
    workload: Workload,
    setting: Setting,
    lanes: Sequence[Lane],
    steps: int,
    *,
    device: str,
    dense: bool = False,
) -> tuple[list[Outcome], Conditions]:
    """Train all lanes beside each other."""
    started = time.perf_counter()
    memory = PeakMemory(device)
    precision = PRECISIONS[setting.precision]
    data = data_of(workload)
    models = {seed: initial_model(workload, setting, seed) for seed in {e.seed for e in lanes}}
    stacked = Stacked(next(iter(models.values())).to(device))
    start = torch.stack(
        [nn.utils.parameters_to_vector(models[each.seed].parameters()).detach() for each in lanes]
    ).to(device)
    flat = start.to(precision.storage)
    watch = Watch(_about(workload, setting, stacked, precision, dense), len(lanes))
    inputs = data.train_inputs.to(device)
    if inputs.is_floating_point():
        inputs = inputs.to(precision.storage)
    targets = data.train_targets.to(device)
    orders = {seed: order(len(inputs), workload.batch_size, steps, seed) for seed in models}
    initial, _ = evaluate_lanes(workload, stacked, flat)
    clock = Clock(device)
    with precision.products():
        flat = _train(
            workload,
            setting,
            precision,
            stacked,
            flat,
            lanes,
            steps,
            watch,
            orders,
            inputs,
            targets,
        )
    training = clock.seconds()
    for lane, notes in zip(lanes, watch.notes, strict=True):
        if notes.first_bad is not None:
            model = models[lane.seed].to(flat.device, precision.storage)
            job = job_of(workload, setting, model, inputs, targets, steps, lane.seed)
            find_place(notes, job, precision, setting)
    final, metric = evaluate_lanes(workload, stacked, flat)
    per_epoch = max(1, len(inputs) // workload.batch_size)
    seconds = time.perf_counter() - started
    outcomes = [
        Outcome(lane, watch.notes[place], initial[place], final[place], metric[place])
        for place, lane in enumerate(lanes)
    ]
    made = sum(notes.steps for notes in watch.notes)
    return outcomes, Conditions(
        "lanes", len(lanes), seconds, training, made, per_epoch, memory.bytes()
    )


def _about(
    workload: Workload, setting: Setting, stacked: Stacked, precision: Precision, dense: bool
) -> About:
    return About(
        stacked.names,
        stacked.sizes,
        precision.storage,
        precision.logits,
        setting.optimizer in ("adam", "adamw"),
        workload.operation == "normalize",
        dense,
    )


def _train(
    workload: Workload,
    setting: Setting,
    precision: Precision,
    stacked: Stacked,
    flat: Tensor,
    lanes: Sequence[Lane],
    steps: int,
    watch: Watch,
    orders: dict[int, Tensor],
    inputs: Tensor,
    targets: Tensor,
) -> Tensor:
    """The loop; returns the last parameters of every lane."""
    device = flat.device.type
    left = list(range(len(lanes)))  # lanes whose parameters are finite: the others are over
    ended = flat.clone()
    rates = torch.tensor([each.rate for each in lanes], dtype=torch.float64, device=flat.device)
    schedule = Schedule(setting.schedule, steps, len(lanes), str(flat.device))
    scaler = LaneScaler(len(lanes), str(flat.device)) if precision.scaled else None
    state = new_state(setting.optimizer, flat)
    update = UPDATES[setting.optimizer]
    cost = workload.costs[setting.path]
    picked = torch.stack([orders[each.seed] for each in lanes], dim=1).to(flat.device)
    for number in range(steps):
        at = picked[number, torch.tensor(left)]  # (l, B)
        mine, wanted = inputs[at], targets[at]
        flat = flat.detach().requires_grad_()
        with precision.forward(device):
            outputs = stacked.forward(flat, mine)
            rows = cost(outputs.flatten(0, -2), wanted.flatten())
            losses = rows.view(len(left), -1).mean(dim=1)
        scaled = losses if scaler is None else losses * scaler.scale
        (gradient,) = torch.autograd.grad(scaled.sum(), flat)
        with torch.no_grad():
            skipped = None
            if scaler is not None:
                gradient = gradient * (1.0 / scaler.scale)[:, None]
                skipped = ~torch.isfinite(gradient).all(dim=1)
            clipped = _clipped(gradient, setting.clip)
            factor = schedule.factor(number)
            rate = (rates[left] * factor).to(_rate_dtype(flat.dtype))[:, None]
            before = dict(state)
            after = update(flat.detach(), clipped, rate, state)
            if scaler is not None and skipped is not None:
                hold = skipped[:, None]
                after = torch.where(hold, flat.detach(), after)
                for name, old in before.items():
                    state[name] = torch.where(hold, old, state[name])
            step = Step(
                number,
                losses.detach(),
                outputs.detach(),
                wanted,
                flat.detach(),
                gradient,
                after,
                scaler.scale.clone() if scaler is not None else None,
                skipped,
            )
            alive = watch.see(step, left)
            if scaler is not None and skipped is not None:
                scaler.update(skipped)
            schedule.see(number, losses.detach())
        flat = after
        if not bool(alive.all()):
            keep = torch.nonzero(alive)[:, 0]
            for place, lane in enumerate(left):
                ended[lane] = flat[place]
            left = [left[place] for place in keep.tolist()]
            flat = flat[keep]
            state = {name: each[keep] for name, each in state.items()}
            schedule.keep(keep)
            if scaler is not None:
                scaler.keep(keep)
            if not left:
                return ended
    for place, lane in enumerate(left):
        ended[lane] = flat[place].detach()
    return ended


def _rate_dtype(storage: torch.dtype) -> torch.dtype:
    """As torch's scalars: a rate takes part in fp32 (fp64 for fp64), the result is rounded once."""
    return torch.float64 if storage == torch.float64 else torch.float32


def _clipped(gradient: Tensor, limit: float | None) -> Tensor:
    """torch.nn.utils.clip_grad_norm_, a lane at a time: NaN and infinity spread as there."""
    if limit is None:
        return gradient
    norm: Tensor = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    return gradient * (limit / (norm + 1e-6)).clamp(max=1.0)
