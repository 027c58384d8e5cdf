"""Repairs of defects that show no NaN, tried on the recorded step: what changes in loss and slope.

Such a step is finite to begin with. A repair counts as verified where it is finite, too, and a
gradient comes back; the numbers before and after stand beside it.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from harness.diagnosis import repairs
from harness.diagnosis.chain import Chain
from harness.diagnosis.finding import Fix
from harness.diagnosis.fixes import Candidate
from harness.diagnosis.numbers import short
from harness.diagnosis.optimizer_replay import step_of, twin_of, weights_of
from harness.diagnosis.replay import Look, Replay, Unavailable

if TYPE_CHECKING:
    from harness.diagnosis.session import Session

_SCALE = 2.0**16


def try_silent(session: "Session", cause: str, chain: Chain, position: int) -> tuple[Fix, ...]:
    """Repairs of an operation in the step under way."""
    try:
        replay = Replay(session.tape.entries, session.step_roots, session.random_state)
        before = replay.run()
    except Unavailable as reason:
        return (Fix("its repairs could not be tried", None, f"not applicable: {reason}"),)
    tried = []
    for candidate in _candidates(cause, chain, position):
        try:
            after = replay.run(candidate.substitutes, scale=candidate.scale)
        except Unavailable as reason:
            tried.append(Fix(candidate.advice, None, f"not applicable: {reason}"))
            continue
        held = after.finite and after.gradient_norm > 0
        if held:
            said = (
                f"loss {before.loss:.4g} before, {after.loss:.4g} after; "
                f"gradient norm {before.gradient_norm:.4g} before, {after.gradient_norm:.4g} after"
            )
        else:
            said = after.spell()
        tried.append(Fix(candidate.advice, held, said))
    return tuple(sorted(tried, key=lambda fix: {True: 0, False: 1, None: 2}[fix.verified]))


def _candidates(cause: str, chain: Chain, position: int) -> Iterator[Candidate]:
    name = chain.name(position)
    if cause == "activation_mismatch":
        if "nll_loss" in name:
            yield Candidate("log_softmax before nll_loss", {position: _log_softmax})
        elif _single_column(chain, position):
            yield Candidate("sigmoid instead of a softmax over one column", {position: _sigmoid})
        else:
            yield Candidate(f"leave out {name}", {position: _identity})
    elif cause == "epsilon_underflow":
        for lost in repairs.lost_constants(chain, position):
            yield Candidate(lost.advice, {lost.position: lost.substitute})
    elif cause == "lost_update":
        yield Candidate(f"a loss scale of {_SCALE:g} (GradScaler)", scale=_SCALE)
    elif cause == "dead_output":
        if "relu" in name or "threshold" in name or "clamp" in name:
            yield Candidate("leaky_relu instead of relu", {position: _leaky})
        elif name in ("aten.sigmoid", "aten.tanh"):
            yield Candidate(f"divide the input of {name} by 100", {position: _smaller})
        else:
            yield Candidate(f"statistics in fp32: from {name} on", {position: repairs.in_fp32})


def _single_column(chain: Chain, position: int) -> bool:
    entry = chain.entries[position]
    rows = entry.args[0]
    return chain.name(position) == "aten._softmax" and rows.shape[entry.args[1]] == 1


def _identity(func: Any, args: Any, kwargs: Any, look: Look) -> Any:
    return args[0]


def _sigmoid(func: Any, args: Any, kwargs: Any, look: Look) -> Any:
    return torch.sigmoid(args[0])


def _leaky(func: Any, args: Any, kwargs: Any, look: Look) -> Any:
    return F.leaky_relu(args[0])


def _smaller(func: Any, args: Any, kwargs: Any, look: Look) -> Any:
    return func(args[0] / 100)


def _log_softmax(func: Any, args: Any, kwargs: Any, look: Look) -> Any:
    return func(F.log_softmax(args[0], -1), *args[1:], **kwargs)


def unscale_first(
    parameters: list[torch.Tensor],  # clipped, and still scaled
    norm: float,  # of their gradients before they were clipped
    limit: float,
    scale: float,
) -> Fix | None:
    """The other order, on copies of the gradients at hand."""
    if not (math.isfinite(norm) and norm > 0 and scale > 0):
        return None
    gradients = [each.grad.detach() for each in parameters if each.grad is not None]
    kept = min(1.0, limit / norm)
    given = math.sqrt(sum(float(each.double().pow(2).sum()) for each in gradients)) / scale
    copies = [each.double() / kept / scale for each in gradients]
    true = math.sqrt(sum(float(each.pow(2).sum()) for each in copies))
    factor = min(1.0, limit / true) if true else 1.0
    after = math.sqrt(sum(float((each * factor).pow(2).sum()) for each in copies))
    return Fix(
        "unscale_ first, then clip",
        abs(after - min(true, limit)) <= 1e-3 * limit and after > given,
        f"of a true norm of {true:.4g} and a limit of {limit:g}, the optimiser got {given:.4g}; "
        f"in the other order it gets {after:.4g}",
    )


def move_weights(optimizer: Any) -> tuple[Fix, ...]:
    """Ways to make weights move, on copies of what the optimiser has now."""
    dtypes = {each.dtype for each in weights_of(optimizer) if each.grad is not None}
    low = dtypes & {torch.float16, torch.bfloat16}
    tried = []
    rate = float(optimizer.param_groups[0].get("lr", math.nan))
    for advice, dtype, factor in (
        ("a copy of the weights in fp32 that the optimiser moves", torch.float32, 1.0),
        (f"a rate of {rate * 1000:g} instead of {rate:g}", None, 1000.0),
    ):
        if dtype is not None and not low:
            continue
        twin = twin_of(optimizer, None, dtype)
        for group in twin.param_groups:
            group["lr"] = group["lr"] * factor
        moving = [each for each in weights_of(twin) if each.grad is not None]
        before = [each.detach().clone() for each in moving]
        try:
            finite = step_of(twin)
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            tried.append(Fix(advice, None, f"not applicable: {str(error).splitlines()[0]}"))
            continue
        moved = sum(
            int((now.detach() != then).sum()) for now, then in zip(moving, before, strict=True)
        )
        count = sum(int((each.grad != 0).sum()) for each in moving if each.grad is not None)
        words = "/".join(sorted(short(each) for each in ({dtype} if dtype else dtypes)))
        said = f"one step in {words} changes {moved} of {count} weights with a gradient"
        tried.append(Fix(advice, finite and moved > count // 2, said))
    return tuple(tried)
