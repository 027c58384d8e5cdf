"""`stability tune`: the fastest launch shapes on this machine's GPU, written where kernels look.

The search knows no GPU: whoever calls gives the function that times a call. Candidates are timed in
rounds, interleaved, so that a clock that drifts bears on all alike. A candidate replaces a simpler
one only where it is faster in the median by more than `MARGIN`, the noise of such timings: of
equals the first counts, and candidates come in the order of preference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Generic, Protocol, TypeVar

from harness.errors import InputError
from harness.inspection import Inspected
from harness.timing.clock import Clock, Timer

Candidate = TypeVar("Candidate")
MARGIN = 0.02  # of the time: below it two candidates are equal
ROUNDS = 15
MOST_ELEMENTS = 2**26  # of a matrix: far beyond any L2, and drawn on the CPU in seconds
_SLOW = 2.0  # a candidate this many times slower than the best after a few rounds is out
_BEFORE_GIVING_UP = 3


@dataclass(frozen=True, slots=True)
class Choice(Generic[Candidate]):
    """What was chosen, and why: the median time of every candidate, and what failed."""

    best: Candidate | None  # None: all failed
    seconds: dict[Candidate, float]  # median of those that ran to the end
    skipped: dict[Candidate, str] = field(default_factory=dict)  # with the reason


def choose(
    candidates: Sequence[Candidate],  # in order of preference, simplest first
    time: Callable[[Candidate], float],  # seconds of one run; raises if the candidate cannot run
    *,
    rounds: int = ROUNDS,
) -> Choice[Candidate]:
    """Time the candidates and choose."""
    samples: dict[Candidate, list[float]] = {each: [] for each in candidates}
    skipped: dict[Candidate, str] = {}
    for number in range(rounds):
        for each in candidates:
            if each in skipped:
                continue
            try:
                samples[each].append(_checked(time(each)))
            except Exception as error:  # noqa: BLE001 - too many resources, no compilation, ...
                skipped[each] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        if number + 1 == _BEFORE_GIVING_UP:
            running = {each: median(samples[each]) for each in candidates if each not in skipped}
            limit = _SLOW * min(running.values(), default=math.inf)
            for each, taken in running.items():
                if taken > limit:
                    skipped[each] = f"{taken / limit * _SLOW:.1f} times slower than the best"
    seconds = {each: median(samples[each]) for each in candidates if each not in skipped}
    best: Candidate | None = None
    for each, taken in seconds.items():
        if best is None or taken < (1 - MARGIN) * seconds[best]:
            best = each
    return Choice(best, seconds, skipped)


def _checked(seconds: float) -> float:
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"the timer gave {seconds!r} seconds")
    return seconds


# --- the search over a catalog's kernels ----------------------------------------------------------


class LaunchShapes(Protocol):
    """What a catalog offers to tune, as its attribute `launch_shapes`; a question is hashable."""

    def asked(self) -> AbstractContextManager[list[Any]]:
        """List the questions that launches ask within the context."""

    def candidates(self, question: Any) -> Sequence[Any]:
        """The answers worth timing, in the order of preference."""

    def using(self, question: Any, candidate: Any) -> AbstractContextManager[None]:
        """Answer a question with a candidate within the context."""

    def save(self, chosen: Mapping[Any, Any], about: Mapping[str, Any]) -> Any:
        """Keep what was chosen, and say where."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """One question, and the choice among its candidates."""

    case: Inspected
    pass_: str
    question: Any
    choice: Choice[Any]


def tune_calls(
    calls: Mapping[str, Callable[[], object]],  # pass -> a call that launches its kernels
    case: Inspected,
    shapes: LaunchShapes,
    seconds_of: Callable[[Callable[[], object]], float],  # times one call
) -> Iterator[Tuned]:
    """Tune every question that the calls ask, each with the others as they are."""
    for pass_, call in calls.items():
        with shapes.asked() as questions:
            call()
        for question in dict.fromkeys(questions):
            timed = _timed(call, question, shapes, seconds_of)
            yield Tuned(case, pass_, question, choose(list(shapes.candidates(question)), timed))


def _timed(
    call: Callable[[], object],
    question: Any,
    shapes: LaunchShapes,
    seconds_of: Callable[[Callable[[], object]], float],
) -> Callable[[Any], float]:
    warm: set[Any] = set()

    def timed(candidate: Any) -> float:
        with shapes.using(question, candidate):
            if candidate not in warm:
                call()  # compiles, which is not to be timed
                warm.add(candidate)
            return seconds_of(call)

    return timed


def require_gpu() -> None:
    """Raise InputError, in words, where there is no GPU to time on."""
    import torch

    if not torch.cuda.is_available():
        raise InputError(
            "launch shapes are chosen by measuring them, which needs a GPU, and torch sees none;"
            " without one the built-in table applies; `stability inspect` shows what it compiles to"
        )


def seconds_on(clock: Clock) -> Callable[[Callable[[], object]], float]:
    """A function that times a call once on a clock. Each call keeps its timer, which learns how
    long the device has to wait for the host.
    """
    timers: dict[Callable[[], object], Timer] = {}

    def seconds(call: Callable[[], object]) -> float:
        if call not in timers:
            timers[call] = clock.timer(lambda: None, call)
        return timers[call].seconds()

    return seconds


def tune(
    cases: Sequence[Inspected],
    *,
    catalog: str | None = None,
    tell: Callable[[str], None] = lambda told: None,
) -> tuple[list[Tuned], Any]:
    """Measure on this machine's GPU, and write the table; what was tuned, and where it was written.

    Raises:
        InputError: without a GPU, or for a catalog that offers nothing to tune.
    """
    import sys

    import torch

    from harness.catalog import DEFAULT, load_catalog
    from harness.environment import describe
    from harness.timing.bench import clock_for

    require_gpu()
    operations = load_catalog(catalog)
    shapes = getattr(sys.modules[catalog or DEFAULT], "launch_shapes", None)
    if shapes is None:
        raise InputError(f"the catalog {catalog!r} has no `launch_shapes` to tune")
    done: list[Tuned] = []
    with ExitStack() as stack:
        clock = clock_for("cuda", stack)
        for asked in cases:
            rows = max(min(asked.rows, MOST_ELEMENTS // asked.columns), 16)
            case = replace(asked, rows=rows)
            operation = operations[case.operation]
            calls = _calls_on_gpu(operation, operation.path(case.path), case)
            for one in tune_calls(calls, case, shapes, seconds_on(clock)):
                done.append(one)
                tell(told(one))
            torch.cuda.empty_cache()
    chosen = {one.question: one.choice.best for one in done if one.choice.best is not None}
    environment = describe("cuda")
    about = {"measured_on": environment["device"], "versions": environment["versions"]}
    return done, shapes.save(chosen, about)


def told(one: Tuned) -> str:
    """A choice in one line: what, which, how much faster than today's, what was skipped."""
    seconds = one.choice.seconds
    name = f"{one.case.operation} {one.pass_} {one.case.dtype} {one.case.columns} columns"
    if one.choice.best is None:
        return f"{name}: every candidate failed: {next(iter(one.choice.skipped.values()))}"
    first = next(iter(seconds))
    gain = seconds[first] / seconds[one.choice.best]
    return (
        f"{name}: {one.choice.best}, {1e6 * seconds[one.choice.best]:.1f} us,"
        f" {gain:.2f} x as fast as {first}; {len(one.choice.skipped)} skipped"
    )


def _calls_on_gpu(operation: Any, path: Any, case: Inspected) -> dict[str, Callable[[], object]]:
    import torch

    from harness.inspect_worker import forward, inputs_for, upstream_for

    batch = inputs_for(operation, path, case)
    roles = batch.on("cuda")
    leaf = next(iter(roles.values()))
    value = forward(path, batch, roles)
    calls: dict[str, Callable[[], object]] = {"forward": lambda: forward(path, batch, roles)}
    if value.requires_grad:
        given = upstream_for(value, roles)
        calls["backward"] = lambda: torch.autograd.grad(value, leaf, given, retain_graph=True)
    return calls
