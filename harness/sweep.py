"""The walk through the stations for one item: inputs, truth, execute, judge, frontier, records."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from harness.case import PASSES, Pass
from harness.execute import execute
from harness.formats import Format
from harness.inputs import Batch, build_batch
from harness.judge import judge
from harness.judgement import Judgement
from harness.operation import Expected, Operation, Path, Regime
from harness.plan import Item
from harness.record import Record, stability_record
from harness.search import SIDES, search_frontier
from harness.truth import expected_of
from harness.verdict import Verdict

# fp64 truth costs milliseconds a magnitude, so there a bisection takes more and smaller launches.
_MOST_CERTIFIED = 7


def bisection_width(path: Path, fmt: Format) -> int:
    """How many magnitudes to judge in one launch while bisecting."""
    return min(path.launch_magnitudes, _MOST_CERTIFIED if fmt.name == "fp64" else 31)


class Evaluator:
    """Judges magnitudes of one item and remembers them, so that none is measured twice."""

    def __init__(
        self,
        operation: Operation,
        path: Path,
        fmt: Format,
        regime: Regime,
        *,
        passes: tuple[Pass, ...],
        seed: int,
        device: str,
        truths: "TruthCache | None" = None,
        before_launch: Callable[[Sequence[float]], None] = lambda magnitudes: None,
    ) -> None:
        self.operation, self.path, self.fmt, self.regime = operation, path, fmt, regime
        self.passes, self.seed, self.device = passes, seed, device
        self.truths = truths or TruthCache()
        self.before_launch = before_launch
        self.judged: dict[float, dict[Pass, Judgement]] = {}

    def evaluate(self, magnitudes: Sequence[float], *, twice: bool = False) -> None:
        """Run all of these that were not run before, in one launch."""
        new = [each for each in dict.fromkeys(magnitudes) if each not in self.judged]
        if not new:
            return
        batch, expected = self.truths.get(
            self.operation, self.regime, self.fmt, new, seed=self.seed
        )
        self.before_launch(new)
        outputs = execute(
            self.path,
            batch,
            shape=tuple(expected["forward"].high.shape),
            passes=self.passes,
            device=self.device,
            twice=twice,
        )
        if len(new) > 1 and any(_is_shared(each.fault) for each in outputs.values()):
            # One magnitude may have brought down the launch of all: each alone bears its verdict.
            for magnitude in new:
                self.evaluate([magnitude], twice=twice)
            return
        found: dict[float, dict[Pass, Judgement]] = {each: {} for each in new}
        for pass_ in self.passes:
            judgements = judge(
                self.operation,
                self.path,
                self.fmt,
                pass_,
                outputs[pass_],
                expected[pass_],
                rows=batch.rows,
            )
            for magnitude, judgement in zip(new, judgements, strict=True):
                found[magnitude][pass_] = judgement
        self.judged |= found

    def of_pass(self, pass_: Pass) -> Callable[[Sequence[float]], list[Judgement]]:
        """What a frontier search calls: magnitudes in, their judgements of one pass out."""

        def judgements(magnitudes: Sequence[float]) -> list[Judgement]:
            self.evaluate(magnitudes)
            return [self.judged[each][pass_] for each in magnitudes]

        return judgements


def _is_shared(fault: Verdict | None) -> bool:
    """Whether a fault of a launch may be the doing of only some of its magnitudes."""
    return fault is not None and fault is not Verdict.UNSUPPORTED


class TruthCache:
    """Inputs and truths of the last few batches: paths that follow each other share them."""

    def __init__(self, entries: int = 4) -> None:
        self._entries = entries
        self._held: OrderedDict[tuple[object, ...], tuple[Batch, dict[str, Expected]]] = (
            OrderedDict()
        )

    def get(
        self,
        operation: Operation,
        regime: Regime,
        fmt: Format,
        magnitudes: list[float],
        *,
        seed: int,
    ) -> tuple[Batch, dict[str, Expected]]:
        key = (operation.name, regime.name, fmt.name, tuple(magnitudes), seed)
        if key not in self._held:
            batch = build_batch(operation, regime, fmt, magnitudes, seed=seed)
            self._held[key] = (batch, expected_of(operation, fmt, batch))
            while len(self._held) > self._entries:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return self._held[key]


def sweep_item(
    item: Item,
    *,
    seed: int,
    device: str,
    truths: TruthCache | None = None,
    refine: bool = True,
    before_launch: Callable[[Sequence[float]], None] = lambda magnitudes: None,
) -> list[Record]:
    """Measure the item's magnitudes, refine its frontiers, and return one record a case.

    The grid is run twice to see whether the path repeats itself. Refined magnitudes come first and
    the grid last, so that an item whose grid is on disk is complete.
    """
    started = time.perf_counter()
    evaluator = Evaluator(
        item.operation,
        item.path,
        item.fmt,
        item.regime,
        passes=item.passes,
        seed=seed,
        device=device,
        truths=truths,
        before_launch=before_launch,
    )
    evaluator.evaluate(item.magnitudes, twice=True)
    neighbours: set[float] = set()
    if refine and len(item.magnitudes) > 1:
        for pass_ in item.passes:
            for side in SIDES:
                frontier = search_frontier(
                    evaluator.of_pass(pass_),
                    item.fmt,
                    item.magnitudes,
                    side=side,
                    width=bisection_width(item.path, item.fmt),
                )
                neighbours |= {
                    each
                    for each in (
                        frontier.finite_until,
                        frontier.nonfinite_from,
                        frontier.accurate_until,
                        frontier.inaccurate_from,
                    )
                    if each is not None
                }
    refined = sorted(neighbours - set(item.magnitudes))
    seconds = time.perf_counter() - started
    return [
        stability_record(
            item.case(magnitude, pass_),
            evaluator.judged[magnitude][pass_],
            item.path,
            seconds=seconds,
            refined=item.refined or place < len(refined),
        )
        for place, magnitude in enumerate((*refined, *item.magnitudes))
        for pass_ in PASSES
        if pass_ in item.passes
    ]
