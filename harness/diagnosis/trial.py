"""Some steps from the first weights on the batch that failed: at the run's rate, and at others.

One step cannot show what a rate does. The recorded step is therefore repeated, each time from the
weights that the last repetition left, by an optimiser made as the script's own was.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from harness.diagnosis.finding import Fix
from harness.diagnosis.numbers import is_finite
from harness.diagnosis.optimizer_replay import weights_of
from harness.diagnosis.replay import Replay, Unavailable

# Steps of a trial, at least and at most: as many as the run needed to fail, in these bounds.
_FEWEST, _MOST = 10, 60


def try_rates(
    replay: Replay,
    optimizer: Any,
    first_weights: Mapping[int, torch.Tensor],  # by id of the parameter
    failed_at: int,  # step
    leftover: bool,  # gradients were not set to 0 between the steps
) -> tuple[Fix, ...]:
    """Lower rates and a clipped norm, each with where the loss went."""
    rate = float(optimizer.param_groups[0].get("lr", math.nan))
    own = {id(each) for each in weights_of(optimizer)}
    movable = [each for each in replay.parameters if id(each) in own]
    if (
        not movable
        or not math.isfinite(rate)
        or any(id(each) not in first_weights for each in movable)
    ):
        return ()
    steps = min(max(failed_at + 5, _FEWEST), _MOST)
    fixes = []
    for advice, factor, clip in (
        (f"the rate {rate:g} as it is, for comparison", 1.0, None),
        (f"a rate of {rate / 10:g} instead of {rate:g}", 0.1, None),
        (f"a rate of {rate / 100:g} instead of {rate:g}", 0.01, None),
        ("clip the gradient's norm at 1", 1.0, 1.0),
    ):
        try:
            losses = _train(replay, optimizer, movable, first_weights, steps, factor, clip)
        except (Unavailable, RuntimeError, TypeError, ValueError) as error:
            fixes.append(Fix(advice, None, f"not applicable: {str(error).splitlines()[0]}"))
            continue
        held = len(losses) == steps + 1 and losses[-1] <= losses[0]
        fixes.append(Fix(advice, held, _spell(losses, steps)))
    if fixes and fixes[0].verified is not False:
        # On this one batch the run's own rate holds, too: if it was not the gradients of earlier
        # steps, the trial says nothing.
        fresh = Fix("optimizer.zero_grad() in every step", True, fixes[0].evidence)
        return (fresh,) if leftover else ()
    return tuple(sorted(fixes[1:], key=lambda fix: not fix.verified))


def _train(
    replay: Replay,
    optimizer: Any,
    movable: list[torch.Tensor],
    first_weights: Mapping[int, torch.Tensor],
    steps: int,
    factor: float,  # of every rate
    clip: float | None,  # largest norm of the gradient
) -> list[float]:
    """The losses before each step and after the last, up to the first that is not finite."""
    weights = {id(each): first_weights[id(each)].clone() for each in movable}
    groups = []
    for group in optimizer.param_groups:
        settings = {key: each for key, each in group.items() if key not in ("params", "initial_lr")}
        ours = [weights[id(each)] for each in group["params"] if id(each) in weights]
        if ours:
            groups.append({**settings, "lr": group["lr"] * factor, "params": ours})
    twin = type(optimizer)(groups)
    losses = []
    for step in range(steps + 1):
        loss, gradients = replay.gradients(leaves=weights)
        losses.append(loss)
        found = dict(zip(map(id, replay.parameters), gradients, strict=True))
        mine = [found[key] for key in weights]
        if not math.isfinite(loss) or not all(g is None or is_finite(g) for g in mine):
            break
        if step == steps:
            break
        for key, weight in weights.items():
            weight.grad = found[key]
        if clip is not None:
            norms = [float(g.double().norm()) for g in mine if g is not None]
            total = math.sqrt(sum(norm**2 for norm in norms))
            for each in mine:
                if each is not None and total > clip:
                    each.mul_(clip / total)
        with torch.no_grad():
            type(twin).step(twin)
    return losses


def _spell(losses: list[float], steps: int) -> str:
    finite = [each for each in losses if math.isfinite(each)]
    begun = "from the first weights, on this batch: "
    if len(losses) < steps + 1 or not finite:
        return f"{begun}not finite after {len(losses) - 1} steps"
    return f"{begun}loss {finite[0]:.4g}, after {steps} steps {finite[-1]:.4g}"
