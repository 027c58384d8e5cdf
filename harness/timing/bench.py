"""What a pytest session measures: a group once, when the first of its paths is asked for."""

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from harness.timing.clock import Clock
from harness.timing.measure import GroupResult, measure
from harness.timing.speed_case import SpeedCase, SpeedGroup
from harness.timing.tiled import Drawn, draw

_HELD = 2  # blocks of inputs kept: the passes of one shape follow each other


class OutOfTime(Exception):
    """The session's budget is over; nothing more is started."""


class Bench:
    """Measures groups as they are asked for, with exactly the paths that were selected.

    `-k` or an option that leaves one path of a group leaves it alone in its rounds, and its record
    without ratios. A group is measured when its first test runs and forgotten after its last.
    """

    def __init__(
        self,
        selected: Iterable[SpeedCase],
        clock: Callable[[], Clock],
        *,
        seed: int,
        budget_s: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cases: dict[str, list[SpeedCase]] = {}
        for case in selected:
            self._cases.setdefault(case.group.id, []).append(case)
        self._make_clock = clock
        self._clock: Clock | None = None
        self._seed, self._now = seed, now
        self._until = None if budget_s is None else now() + budget_s
        self._results: dict[str, tuple[GroupResult, set[str]]] = {}
        self._drawn: OrderedDict[tuple[str, ...], Drawn] = OrderedDict()

    def result_for(self, case: SpeedCase) -> GroupResult:
        """The result of the case's group.

        Raises:
            OutOfTime: if the group was not begun before the budget ended.
        """
        group = case.group
        if group.id not in self._results:
            if self._until is not None and self._now() >= self._until:
                raise OutOfTime
            cases = self._cases.get(group.id, [case])
            self._results[group.id] = self._measured(cases), {each.id for each in cases}
        result, waiting = self._results[group.id]
        waiting.discard(case.id)
        if not waiting:
            del self._results[group.id]
        return result

    def _measured(self, cases: list[SpeedCase]) -> GroupResult:
        clock = self._clock = self._clock or self._make_clock()
        group = cases[0].group
        paths = tuple(case.path for case in cases)
        context: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if clock.threads is not None:
            from harness.timing.cpu_clock import measuring_on_cpu

            context = measuring_on_cpu(clock.threads)
        with context:
            return measure(group, paths, clock, self._block(group), seed=self._seed)

    def _block(self, group: SpeedGroup) -> Drawn:
        key = group.inputs_key
        if key not in self._drawn:
            self._drawn[key] = draw(group, seed=self._seed)
            while len(self._drawn) > _HELD:
                self._drawn.popitem(last=False)
        return self._drawn[key]


def clock_for(device: str, stack: contextlib.ExitStack) -> Clock:
    """The clock of this machine; what it holds open is closed with the stack."""
    if device != "cuda":
        from harness.timing.cpu_clock import CpuClock

        return CpuClock()
    import torch

    from harness.timing.card import card_reader
    from harness.timing.cuda_clock import CudaClock

    uuid = str(getattr(torch.cuda.get_device_properties(0), "uuid", ""))
    return CudaClock(
        torch.cuda,
        empty=lambda count: torch.empty(count, dtype=torch.int8, device="cuda"),
        card=stack.enter_context(card_reader(uuid)),
    )
