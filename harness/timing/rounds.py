"""The rounds: one sample of every contender in each, in a shuffled order, throttled ones again."""

import gc
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from harness.timing.card import CardState

Sample = Callable[[int], float]  # takes one sample on the input set of that number, in seconds


@dataclass(frozen=True, slots=True)
class Rounds:
    """Samples of those that ran to the end, round by round, and why the others did not.

    Sample i of every contender, and state i of the card, belong to the same round. `repeated`
    counts throttled rounds that were thrown away and measured again.
    """

    samples: dict[str, list[float]]
    states: list[CardState]  # empty where the card cannot be read
    repeated: int
    failures: dict[str, Exception] = field(default_factory=dict)


def run_rounds(
    contenders: Mapping[str, Sample],
    *,
    rounds: int,
    sets: int,  # of inputs; round i takes set i modulo this, every contender the same
    seed: int,
    card: Callable[[], CardState | None] = lambda: None,
    most_repeats: int | None = None,  # default: half as many as rounds
    pause: Callable[[], None] = lambda: None,  # before a throttled round is repeated
) -> Rounds:
    """Take `rounds` samples of each contender, interleaved.

    All contenders have a sample in every round, so that a clock that drifts bears on all alike;
    the order is shuffled anew in each, so that none always runs in another's wake. One that raises
    is out, with its samples, and the rest go on. A round in which the card says that it slowed
    down for heat or power supply is measured again, up to `most_repeats` times in all; after that
    rounds are kept as they come, and their states tell.
    """
    order = random.Random(seed)
    left = rounds // 2 if most_repeats is None else most_repeats
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    states: list[CardState] = []
    failures: dict[str, Exception] = {}
    repeated = number = 0
    collecting = gc.isenabled()
    gc.disable()  # a collection in the middle of a sample would be counted as the path's time
    try:
        while number < rounds and len(failures) < len(contenders):
            running = [name for name in contenders if name not in failures]
            order.shuffle(running)
            taken: dict[str, float] = {}
            for name in running:
                try:
                    taken[name] = _checked(contenders[name](number % sets))
                except Exception as error:  # noqa: BLE001 - whatever a path raises is its verdict
                    # Without its frames, which would hold the tensors of the failed call.
                    failures[name] = error.with_traceback(None)
            state = card()
            if state is not None and state.throttled and left > 0:
                left -= 1
                repeated += 1
                pause()
                continue
            for name, seconds in taken.items():
                samples[name].append(seconds)
            if state is not None:
                states.append(state)
            number += 1
    finally:
        if collecting:
            gc.enable()
    kept = {name: found for name, found in samples.items() if name not in failures}
    return Rounds(kept, states, repeated, failures)


def _checked(seconds: float) -> float:
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"the clock gave {seconds!r} seconds")
    return seconds
