"""Tries repairs on the replayed step, forward and backward, in the run's own dtype."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from harness.diagnosis import repairs
from harness.diagnosis.cause import Verdict
from harness.diagnosis.chain import Chain, first_input
from harness.diagnosis.finding import Fix
from harness.diagnosis.numbers import is_finite
from harness.diagnosis.replay import Replay, Substitute, Unavailable
from harness.diagnosis.tape import outputs_of


@dataclass(frozen=True, slots=True)
class Candidate:
    """A repair: what to tell the user, and what to change in the replayed step."""

    advice: str
    substitutes: Mapping[int, Substitute] = field(default_factory=dict)
    leaves: Mapping[int, torch.Tensor] = field(default_factory=dict)
    dtype: torch.dtype | None = None
    scale: float = 1.0  # of the loss
    must_learn: bool = False  # finite is not enough: a gradient must come back


def try_fixes(cause: str, verdict: Verdict, chain: Chain, replay: Replay) -> tuple[Fix, ...]:
    """Every candidate for the cause with what became of it; those that held first."""
    tried = []
    for candidate in candidates(cause, verdict, chain, replay):
        try:
            result = replay.run(
                candidate.substitutes, leaves=candidate.leaves, dtype=candidate.dtype
            )
        except Unavailable as reason:
            tried.append(Fix(candidate.advice, None, f"not applicable: {reason}"))
            continue
        learns = result.gradient_norm > 0 or not candidate.must_learn
        said = result.spell() if learns or not result.finite else "finite, but no gradient is left"
        tried.append(Fix(candidate.advice, result.finite and learns, said))
    return tuple(sorted(tried, key=lambda fix: {True: 0, False: 1, None: 2}[fix.verified]))


def candidates(cause: str, verdict: Verdict, chain: Chain, replay: Replay) -> Iterator[Candidate]:
    """The repairs that may cure a cause."""
    if cause in ("bad_data", "bad_target"):
        yield Candidate(
            "drop or repair the bad samples of this batch",
            leaves={id(each): repairs.repaired(each) for each in replay.data},
        )
        if cause == "bad_data" or "ctc" not in verdict.op:
            return
    if cause == "initialization":
        yield Candidate(
            "initialise the weights with a spread of 1/sqrt(fan in)",
            leaves={id(each): repairs.initialised(each) for each in replay.parameters},
        )
        return
    if cause == "poisoned_buffer":
        yield Candidate(
            "reset what is not finite in the buffer to 1",
            leaves={id(each): repairs.reset(each) for each in replay.data},
        )
        return
    position = verdict.position
    if position is None or cause == "divergence":
        return
    entry, name = chain.entries[position], verdict.op
    if entry.node is not None or not entry.args:
        return
    alike = _alike(chain, position)
    stable = [repairs.stable_formula(chain, each) for each in alike]
    known = [each for each in stable if each is not None]
    if known and len(known) == len(stable):
        advice = "; ".join(dict.fromkeys(each.advice for each in known))
        yield Candidate(advice, {each.position: each.substitute for each in known})
    for lost in repairs.lost_constants(chain, position):
        yield Candidate(lost.advice, {lost.position: lost.substitute})
    for advice, substitute in repairs.of_operation(cause, name, entry):
        yield Candidate(advice, dict.fromkeys(alike, substitute))
    if cause in ("overflow", "cancellation", "epsilon_underflow"):
        yield from _wider(chain, alike, position)
        low = any(each.dtype in (torch.float16, torch.bfloat16) for each in replay.leaves)
        if low or any(each.dtype == torch.float16 for each in repairs.floats(entry)):
            yield Candidate("compute this step in fp32", dtype=torch.float32)
            yield Candidate("compute this step in bf16", dtype=torch.bfloat16)
        else:
            yield Candidate("compute this step in fp64", dtype=torch.float64)
    # The repair that comes to mind first; often its gradient is as bad as before.
    yield Candidate(
        f"replace what is not finite after {name} (nan_to_num)",
        dict.fromkeys(alike, repairs.nan_to_num),
        must_learn=True,
    )


def _wider(chain: Chain, alike: list[int], position: int) -> Iterator[Candidate]:
    """The operation and what follows it in fp32, until something needs the dtype it had."""
    first = first_input(chain.entries[position])
    if first is None or first.dtype not in (torch.float16, torch.bfloat16):
        return
    lost = [each.position for each in repairs.lost_constants(chain, position)]
    begin = [min(lost)] if lost else alike
    names = ", ".join(dict.fromkeys(chain.name(each) for each in begin))
    yield Candidate(f"statistics in fp32: from {names} on", dict.fromkeys(begin, repairs.in_fp32))


def _alike(chain: Chain, position: int) -> list[int]:
    """The operation and others of its kind that broke in the same forward pass."""
    first = chain.entries[position]
    return [
        other
        for other, entry in enumerate(chain.entries)
        if other == position
        or (
            entry.func is first.func
            and entry.node is None
            and any(not is_finite(each) for each in outputs_of(entry))
        )
    ]
