"""The walk for one group: inputs, warm-up, check, rounds, check again, and what each path gave."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from harness.execute import fault_of
from harness.judgement import Judgement
from harness.operation import Path
from harness.timing.card import CardState
from harness.timing.check import checked, worse
from harness.timing.clock import Clock, Timer
from harness.timing.footprint import footprint_of
from harness.timing.rounds import Rounds, run_rounds
from harness.timing.speed_case import SpeedGroup
from harness.timing.subject import Subject
from harness.timing.tiled import Drawn, TiledInputs, tile
from harness.timing.workload import Level
from harness.verdict import Verdict

COPY = "copy"  # the pseudo path that every round times beside the others
_MOST_SETS = 3
_SET_SHARE = 0.5  # of the free memory, for all sets of inputs together
_WARM_CALLS = 3  # after the one that compiles: autotuners and allocators have settled by then
_FEWEST_ROUNDS = 7  # with six and more the 95% interval of a median exists
_PAUSE_S = 0.5  # before a throttled round is measured again


@dataclass(frozen=True, slots=True)
class Effort:
    """How often a group is measured: at most so many rounds, and about so many seconds."""

    rounds: int
    seconds: float


EFFORTS: Mapping[Level, Effort] = {
    "quick": Effort(11, 1.0),
    "default": Effort(21, 1.5),
    "full": Effort(51, 15.0),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """What one path gave: its samples, or why it has none."""

    judgement: Judgement
    samples: tuple[float, ...] = ()
    peak_bytes: int | None = None
    waits_for_host: bool = False


@dataclass(frozen=True, slots=True)
class GroupResult:
    """All paths of a group, and what their rounds have in common."""

    paths: dict[str, Measured]
    bytes_least: int = 0
    copy_samples: tuple[float, ...] = ()
    copy_bytes: int = 0
    states: tuple[CardState, ...] = ()
    repeated: int = 0
    seconds: float = 0.0  # wall time of it all
    threads: int | None = None


@dataclass(slots=True)
class _Ready:
    """A path that has been warmed up and checked."""

    subject: Subject
    timer: Timer
    before: Judgement
    peak_bytes: int | None
    number: list[int] = field(default_factory=lambda: [0])  # the set that the timer takes next


def measure(
    group: SpeedGroup,
    paths: tuple[Path, ...],
    clock: Clock,
    drawn: Drawn,
    *,
    seed: int,
    effort: Effort | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> GroupResult:
    """Measure the paths of a group side by side.

    A path that raises, before the rounds or among them, is recorded with its reason and the others
    go on. Where not even one set of inputs fits the device nothing is allocated.
    """
    started = time.perf_counter()
    effort = effort or EFFORTS[group.level]
    chooser = random.Random(f"{seed}/{group.id}")
    footprint = footprint_of(group, drawn)
    needed, free = footprint.held, clock.free_bytes()
    if needed > free:
        reason = (
            f"one set of inputs and outputs takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB"
            " are free; nothing was allocated"
        )
        failed = Measured(Judgement(Verdict.OUT_OF_MEMORY, True, reason=reason))
        return GroupResult({each.name: failed for each in paths}, footprint.moved)
    count = max(1, min(_MOST_SETS, int(_SET_SHARE * free // max(footprint.one_set, 1))))
    done: dict[str, Measured] = {}
    try:
        inputs = tile(drawn, group.shape, device=clock.device, count=count)
        copy, copied = clock.copier()
    except Exception as error:  # noqa: BLE001 - above all memory; every path bears the reason
        return GroupResult({each.name: Measured(raised(error)) for each in paths})
    ready: dict[str, _Ready] = {}
    for path in paths:
        try:
            ready[path.name] = _prepared(path, group, inputs, clock, chooser)
        except Exception as error:  # noqa: BLE001 - whatever a path raises is its verdict
            done[path.name] = Measured(raised(error))
            clock.release()
    rounds = _rounds(ready, clock, copy, group, effort, len(inputs.sets), seed, sleep)
    for name, failure in rounds.failures.items():
        if name in ready:
            done[name] = Measured(raised(failure))
    for name, one in ready.items():
        if name in done:
            continue
        try:
            number = chooser.randrange(len(inputs.sets))
            after = checked(one.subject, group, number=number, chooser=chooser)
        except Exception as error:  # noqa: BLE001 - as above
            done[name] = Measured(raised(error))
            continue
        done[name] = Measured(
            worse(one.before, after),
            tuple(rounds.samples[name]),
            one.peak_bytes,
            one.timer.waits_for_host,
        )
    return GroupResult(
        {path.name: done[path.name] for path in paths},
        footprint.moved,
        tuple(rounds.samples.get(COPY, ())),
        copied,
        tuple(rounds.states),
        rounds.repeated,
        time.perf_counter() - started,
        clock.threads,
    )


def _prepared(
    path: Path, group: SpeedGroup, inputs: TiledInputs, clock: Clock, chooser: random.Random
) -> _Ready:
    """Compiled, checked and warm; raises what the path raises."""
    subject = Subject(path, inputs, group.pass_)
    number = [0]

    def arrange() -> None:
        subject.arrange(number[0])

    arrange()
    subject.call()  # compiles
    clock.settle()
    before = checked(subject, group, number=chooser.randrange(len(inputs.sets)), chooser=chooser)
    timer = clock.timer(arrange, subject.call)
    for _ in range(_WARM_CALLS):
        timer.seconds()
    peak = clock.peak_bytes(arrange, subject.call)
    subject.release()
    return _Ready(subject, timer, before, peak, number)


def _rounds(
    ready: Mapping[str, _Ready],
    clock: Clock,
    copy: Callable[[], object],
    group: SpeedGroup,
    effort: Effort,
    sets: int,
    seed: int,
    sleep: Callable[[float], None],
) -> Rounds:
    if not ready:
        return Rounds({}, [], 0)

    def sample_of(one: _Ready) -> Callable[[int], float]:
        def sample(number: int) -> float:
            one.number[0] = number
            try:
                return one.timer.seconds()
            finally:
                one.subject.release()  # the next path finds the memory free

        return sample

    copying = clock.timer(lambda: None, copy)
    copying.seconds()
    contenders: dict[str, Callable[[int], float]] = {
        name: sample_of(one) for name, one in ready.items()
    }
    contenders[COPY] = lambda number: copying.seconds()
    # A first round says how long one takes; as many are made as fit in the time.
    begun = time.perf_counter()
    first = run_rounds(contenders, rounds=1, sets=sets, seed=seed, most_repeats=0)
    taken = max(time.perf_counter() - begun, 1e-9)
    for name in first.failures:
        contenders.pop(name)
    rounds = max(_FEWEST_ROUNDS, min(effort.rounds, int(effort.seconds / taken)))
    found = run_rounds(
        contenders,
        rounds=rounds,
        sets=sets,
        seed=seed + 1,
        card=clock.card,
        pause=lambda: sleep(_PAUSE_S),
    )
    found.failures.update(first.failures)
    return found


def raised(error: Exception) -> Judgement:
    """The verdict of an exception, with its text as the reason."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
    if isinstance(error, NotImplementedError):
        reason = " ".join(str(error).split())[:400]
    return Judgement(fault_of(error), True, reason=reason)
