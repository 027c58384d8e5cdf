"""The rounds of the speed suite: everybody in each of them, in turns, and throttled ones again."""

import math
from collections.abc import Callable, Iterator

import pytest

from harness.timing.card import CardState
from harness.timing.quotients import quotient
from harness.timing.rounds import run_rounds

COOL, HOT = CardState(), CardState(reasons=("hardware_thermal",))
CAPPED = CardState(reasons=("power_cap",))


class Log:
    """Contenders that note who was called on which input set, and take a second each."""

    def __init__(self, *names: str) -> None:
        self.calls: list[tuple[str, int]] = []
        self.contenders = {name: self._noting(name) for name in names}

    def _noting(self, name: str) -> Callable[[int], float]:
        def sample(number: int) -> float:
            self.calls.append((name, number))
            return 1.0

        return sample

    def rounds(self) -> list[list[tuple[str, int]]]:
        size = len(self.contenders)
        return [self.calls[k : k + size] for k in range(0, len(self.calls), size)]


def states(*given: CardState) -> Callable[[], CardState]:
    left: Iterator[CardState] = iter(given)
    return lambda: next(left)


def test_every_round_has_every_contender_once_on_the_same_inputs() -> None:
    """Round i takes input set i modulo their number, for all; nobody is left out or asked twice."""
    log = Log("a", "b", "c")
    found = run_rounds(log.contenders, rounds=20, sets=3, seed=0)
    assert [sorted(name for name, _ in each) for each in log.rounds()] == [["a", "b", "c"]] * 20
    assert [{number for _, number in each} for each in log.rounds()] == [{k % 3} for k in range(20)]
    assert {name: len(samples) for name, samples in found.samples.items()} == dict.fromkeys(
        "abc", 20
    )


def test_the_order_is_shuffled_anew_and_repeatable() -> None:
    """Each contender comes first, and follows each other, in some round; a seed fixes the order."""
    one, same, other = (Log(*"abc") for _ in range(3))
    for log, seed in ((one, 1), (same, 1), (other, 2)):
        run_rounds(log.contenders, rounds=60, sets=1, seed=seed)
    orders = {"".join(name for name, _ in each) for each in one.rounds()}
    assert len(orders) == 6
    assert one.calls == same.calls != other.calls


def test_throttled_rounds_are_measured_again_and_counted() -> None:
    """Two hot rounds of five: their samples are gone, the repetitions take the same inputs."""
    log, rested = Log("a", "b"), []
    given = (COOL, HOT, COOL, HOT, COOL, COOL, COOL)
    found = run_rounds(
        log.contenders,
        rounds=5,
        sets=5,
        seed=0,
        card=states(*given),
        most_repeats=9,
        pause=lambda: rested.append(1),
    )
    assert (found.repeated, len(rested)) == (2, 2)
    assert [len(samples) for samples in found.samples.values()] == [5, 5]
    assert found.states == [COOL] * 5
    assert [each[0][1] for each in log.rounds()] == [0, 1, 1, 2, 2, 3, 4]


def test_a_card_that_stays_hot_does_not_hold_the_run_up() -> None:
    """After the bound rounds are kept as they come, and their states say so."""
    found = run_rounds(
        Log("a").contenders, rounds=4, sets=1, seed=0, card=lambda: HOT, most_repeats=3
    )
    assert (found.repeated, found.states) == (3, [HOT] * 4)
    assert len(found.samples["a"]) == 4


def test_the_power_cap_is_recorded_and_repeats_nothing() -> None:
    """A large GPU's steady state under load: as good a round as any."""
    found = run_rounds(Log("a").contenders, rounds=4, sets=1, seed=0, card=lambda: CAPPED)
    assert (found.repeated, found.states) == (0, [CAPPED] * 4)


def test_one_that_raises_midway_is_out_and_the_others_go_on() -> None:
    """Its samples go with it; its exception is kept without the frames, which hold tensors."""
    log = Log("good", "bad")
    count = iter(range(100))

    def breaking(number: int) -> float:
        if next(count) == 3:
            raise MemoryError("full")
        return 1.0

    contenders = log.contenders | {"bad": breaking}
    found = run_rounds(contenders, rounds=10, sets=1, seed=0)
    assert list(found.samples) == ["good"]
    assert len(found.samples["good"]) == 10
    assert str(found.failures["bad"]) == "full"
    assert found.failures["bad"].__traceback__ is None


@pytest.mark.parametrize("time", [0.0, -1.0, math.nan, math.inf])
def test_a_time_that_is_none_is_no_sample(time: float) -> None:
    """Zero, negative, NaN or infinite seconds are a failure of the clock, not a fast path."""
    found = run_rounds({"a": lambda number: time}, rounds=3, sets=1, seed=0)
    assert found.samples == {}
    assert "the clock gave" in str(found.failures["a"])


def test_a_drifting_clock_leaves_the_quotient_alone() -> None:
    """A card that slows down threefold during the run: a path of twice the time stays at 2."""
    passed = iter(range(1000))
    slow, fast = (lambda n: 2.0 * (1 + next(passed) / 40)), (lambda n: 1 + next(passed) / 40)
    found = run_rounds({"slow": slow, "fast": fast}, rounds=41, sets=1, seed=0)
    assert found.samples["fast"][-1] > 2.9 * found.samples["fast"][0]
    assert quotient(found.samples["slow"], found.samples["fast"]) == pytest.approx(2.0, rel=0.02)
