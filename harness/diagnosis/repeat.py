"""Does it happen again: with this batch, with these weights, or only with these random numbers."""

from collections.abc import Mapping, Sequence

import torch

from harness.diagnosis.replay import Replay, Unavailable

# Fresh random numbers that are tried. A step that fails one time in two shows it with 7 of 8.
_DRAWS = 3


def repeatable(
    replay: Replay,
    other_batch: Sequence[torch.Tensor],  # data leaves of an earlier step, in order of use
    first_weights: Mapping[int, torch.Tensor],  # by id of the parameter
) -> tuple[str | None, str | None]:
    """The contract's word, or None with the reason."""
    if replay.is_random:
        for seed in range(_DRAWS):
            if _finite(replay, seed=seed):
                return "random", None
    data = replay.data
    swapped = {
        id(now): before
        for now, before in zip(data, other_batch, strict=False)
        if now.shape == before.shape and now.dtype == before.dtype
    }
    differs = any(not torch.equal(each, swapped.get(id(each), each)) for each in data)
    if differs and len(data) == len(other_batch) and _finite(replay, leaves=swapped):
        return "input", None
    weights = {
        id(each): first_weights[id(each)] for each in replay.parameters if id(each) in first_weights
    }
    moved = any(not torch.equal(each, weights.get(id(each), each)) for each in replay.parameters)
    if not moved:
        weights = {id(each): _shuffled(each) for each in replay.parameters}
    if _finite(replay, leaves=weights):
        return "state", None
    if differs:
        return "state", None
    if moved or weights:
        return "input", None
    return None, "no other batch and no other weights were seen to compare with"


def _finite(
    replay: Replay, *, leaves: Mapping[int, torch.Tensor] | None = None, seed: int | None = None
) -> bool:
    try:
        return replay.run(leaves=leaves, seed=seed).finite
    except Unavailable:
        return False


def _shuffled(tensor: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
    return tensor.detach().flatten()[order].reshape(tensor.shape)
