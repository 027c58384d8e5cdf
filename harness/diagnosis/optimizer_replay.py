"""An optimiser's step run again on copies: as it was, and with the repairs that may cure it."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from harness.diagnosis.finding import Fix
from harness.diagnosis.numbers import is_finite, short

# An epsilon that the format holds beside the roots of second moments.
_EPS = {torch.float16: 1e-4, torch.bfloat16: 1e-8, torch.float32: 1e-8, torch.float64: 1e-8}


class Before:
    """What an optimiser started from: weights and state, copied where that is affordable."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.weights = [each.detach().clone() for each in weights_of(optimizer)]
        self.states = [
            {key: _copied(each) for key, each in dict(optimizer.state.get(weight, {})).items()}
            for weight in weights_of(optimizer)
        ]

    @staticmethod
    def size(optimizer: Any) -> int:
        """Bytes that a copy takes."""
        states = [state for state in optimizer.state.values() if isinstance(state, dict)]
        tensors = [each for state in states for each in state.values()] + weights_of(optimizer)
        return sum(each.nbytes for each in tensors if isinstance(each, torch.Tensor))


def weights_of(optimizer: Any) -> list[torch.Tensor]:
    """The parameters that an optimiser moves."""
    return [each for group in optimizer.param_groups for each in group["params"]]


def twin_of(
    optimizer: Any,
    before: Before | None,  # else it starts from what is there now, without what is not finite
    dtype: torch.dtype | None = None,  # of weights, gradients and state
) -> Any:
    """A copy whose step can be run without touching the training."""
    twin = copy.deepcopy(optimizer)
    known = before is not None and before.optimizer is optimizer
    for index, (theirs, ours) in enumerate(
        zip(weights_of(twin), weights_of(optimizer), strict=True)
    ):
        start = before.weights[index] if known and before is not None else _finite(theirs.detach())
        state = before.states[index] if known and before is not None else None
        if state is not None and theirs in twin.state:
            twin.state[theirs].clear()
        if state:
            twin.state[theirs].update({key: _copied(each) for key, each in state.items()})
        gradient = None if ours.grad is None else _finite(ours.grad.detach()).clone()
        theirs.grad = None
        theirs.data = start.clone() if dtype is None else start.to(dtype)
        if gradient is not None:
            theirs.grad = gradient if dtype is None else gradient.to(dtype)
        own = twin.state.get(theirs, {})
        for key, each in list(own.items()) if isinstance(own, dict) else ():
            if isinstance(each, torch.Tensor) and each.is_floating_point() and key != "step":
                each = each if known else _finite(each)
                own[key] = each if dtype is None else each.to(dtype)
    return twin


def step_of(twin: Any) -> bool:
    """Let a twin move; whether all its weights and its state are finite then."""
    with torch.no_grad():
        # Not `twin.step`: a scheduler puts a method of the first optimiser there.
        type(twin).step(twin)
    states = [state for state in twin.state.values() if isinstance(state, dict)]
    kept = [each for state in states for each in state.values()]
    return all(
        is_finite(each)
        for each in (*weights_of(twin), *kept)
        if isinstance(each, torch.Tensor) and each.is_floating_point()
    )


def try_steps(optimizer: Any, before: Before | None) -> tuple[bool | None, tuple[Fix, ...]]:
    """Whether the step is finite in fp64, and the repairs with what became of them."""
    in_fp64 = None
    tried = []
    for advice, dtype, change in _candidates(optimizer):
        twin = twin_of(optimizer, before, dtype)
        change(twin)
        starts = [each.detach().clone() for each in weights_of(twin)]
        try:
            finite = step_of(twin)
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            tried.append(Fix(advice, None, f"not applicable: {line}"))
            continue
        if dtype is torch.float64:
            in_fp64 = finite
            continue
        tried.append(Fix(advice, finite, _spell(twin, starts, finite)))
    return in_fp64, tuple(sorted(tried, key=lambda fix: {True: 0, False: 1, None: 2}[fix.verified]))


def _candidates(
    optimizer: Any,
) -> Iterator[tuple[str, torch.dtype | None, Callable[[Any], None]]]:
    yield "", torch.float64, lambda twin: None
    dtypes = {each.dtype for each in weights_of(optimizer) if each.is_floating_point()}
    group = optimizer.param_groups[0]
    if isinstance(group.get("eps"), (int, float)):
        eps = max(_EPS.get(each, 1e-8) for each in dtypes)
        if group["eps"] < eps:
            yield f"eps={eps:g} instead of {group['eps']:g}", None, _set("eps", eps)
    rate = float(group.get("lr", math.nan))
    if math.isfinite(rate):
        yield f"a rate of {rate / 10:g} instead of {rate:g}", None, _set("lr", rate / 10)
    else:
        yield f"a finite rate (0.001 was tried) instead of {rate:g}", None, _set("lr", 1e-3)
    if dtypes & {torch.float16, torch.bfloat16}:
        word = "/".join(sorted(map(short, dtypes)))
        yield f"weights and state in fp32 instead of {word}", torch.float32, lambda twin: None
    yield "clip the gradient's norm at 1", None, _clip


def _set(key: str, value: float) -> Callable[[Any], None]:
    def change(twin: Any) -> None:
        for group in twin.param_groups:
            group[key] = value

    return change


def _clip(twin: Any) -> None:
    gradients = [each.grad for each in weights_of(twin) if each.grad is not None]
    largest = max((float(each.abs().max()) for each in gradients if each.numel()), default=0.0)
    if not largest:
        return
    # Divided by the largest first: the squares of the norm may overflow.
    total = math.sqrt(sum(float((each.double() / largest).pow(2).sum()) for each in gradients))
    for each in gradients:
        each.mul_(min(1.0, 1.0 / (total * largest)))


def _spell(twin: Any, starts: list[torch.Tensor], finite: bool) -> str:
    bad = sum(int((~each.detach().isfinite()).sum()) for each in weights_of(twin))
    if bad:
        return f"{bad} weights are not finite after the step"
    if not finite:
        return "every weight finite after the step, the optimiser's state not"
    pairs = zip(weights_of(twin), starts, strict=True)
    moved = max(
        (float((now.detach() - then).abs().max()) for now, then in pairs if then.numel()),
        default=0.0,
    )
    return f"weights and state finite, the largest update {moved:.3g}"


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else copy.copy(value)


def _finite(tensor: torch.Tensor) -> torch.Tensor:
    return torch.nan_to_num(tensor, 0.0, 0.0, 0.0)
