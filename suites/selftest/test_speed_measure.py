"""One group measured on a made-up clock: planted times, planted faults, and what is recorded."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from harness.formats import FORMATS
from harness.operation import ALL_CLAIMS, UPSTREAM, Operation, Path, Regime
from harness.timing.card import CardState
from harness.timing.measure import Effort, GroupResult, measure
from harness.timing.speed_case import SpeedCase, SpeedGroup, SpeedPass, group_of
from harness.timing.speed_record import speed_record
from harness.timing.tiled import draw
from harness.timing.workload import Size
from harness.verdict import Verdict
from suites.selftest.speed_toy import SIZED

EFFORT = Effort(rounds=9, seconds=1e9)


@dataclass
class World:
    """A clock that stands still but for what paths cost, and memory of a given size."""

    device: str = "cpu"
    threads: int | None = None
    now: float = 0.0
    free: int = 2**40
    states: list[CardState] = field(default_factory=list)
    waits_for_host: bool = False

    def costing(self, seconds: float, result: Callable[[Tensor], Tensor]) -> Callable:
        """A path's function of that cost."""

        def function(input: Tensor) -> Tensor:
            self.now += seconds
            return result(input)

        return function

    def timer(self, arrange: Callable[[], None], call: Callable[[], object]) -> "_Timer":
        return _Timer(self, arrange, call)

    def settle(self) -> None: ...

    def peak_bytes(self, arrange: Callable[[], None], call: Callable[[], object]) -> int:
        arrange()
        call()
        return 1234

    def free_bytes(self) -> int:
        return self.free

    def release(self) -> None: ...

    def card(self) -> CardState | None:
        return self.states.pop(0) if self.states else CardState(sm_mhz=1500)

    def copier(self) -> tuple[Callable[[], object], int]:
        def copy() -> None:
            self.now += 0.5

        return copy, 10**9


@dataclass
class _Timer:
    world: World
    arrange: Callable[[], None]
    call: Callable[[], object]
    waits_for_host: bool = False

    def seconds(self) -> float:
        self.arrange()
        before = self.world.now
        self.call()
        return self.world.now - before


def same(input: Tensor) -> Tensor:
    return input * 1.0


def group(pass_: SpeedPass = "forward", operation: Operation = SIZED) -> SpeedGroup:
    size = Size(40, 8, "quick")
    return group_of(
        operation, FORMATS["fp32"], "normal", 1.0, size, pass_, device="cuda", level="default"
    )


def measured(world: World, *paths: Path, pass_: SpeedPass = "forward") -> GroupResult:
    one = group(pass_)
    return measure(
        one, paths, world, draw(one, seed=0), seed=0, effort=EFFORT, sleep=lambda seconds: None
    )


def verdicts(result: GroupResult) -> dict[str, Verdict]:
    return {name: each.judgement.verdict for name, each in result.paths.items()}


def test_a_planted_slow_path_has_its_ratio() -> None:
    """Three times as slow is 3 in its record and a third in the other's; rates follow the bytes."""
    world = World()
    paths = (
        Path("naive", world.costing(1.0, same)),
        Path("slow", world.costing(3.0, same), claims=ALL_CLAIMS),
    )
    result = measured(world, *paths)
    naive, slow = (speed_record(SpeedCase(group(), path), result) for path in paths)
    assert slow["samples"] == pytest.approx([3.0] * 9)
    assert (slow["ratios"], naive["ratios"]) == (
        {"naive": pytest.approx(3.0)},
        {"slow": pytest.approx(1 / 3)},
    )
    assert slow["price_of_safety"] == pytest.approx(3.0)
    assert naive.get("price_of_safety") is None
    assert slow["bytes_least"] == 2 * 40 * 8 * 4
    assert slow["gigabytes_per_second"] == pytest.approx(2 * 40 * 8 * 4 / 3.0 / 1e9)
    assert slow["copy_gigabytes_per_second"] == pytest.approx(1.0 / 0.5)
    assert slow["rounds"]["sm_mhz"] == [1500] * 9
    assert slow["peak_bytes"] == 1234
    assert slow.id == "toy/slow/fp32/normal@1/40x8/forward/timer=cuda"


# The forward's cost belongs to the forward and to both, the gradient's to the backward and to both.
@pytest.mark.parametrize(("pass_", "seconds"), [("forward", 1.0), ("backward", 4.0), ("both", 5.0)])
def test_each_pass_is_timed_by_itself(pass_: SpeedPass, seconds: float) -> None:
    """What runs before a backward is arranged, not timed."""
    world = World()

    class Costly(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, input: Tensor) -> Tensor:
            world.now += 1.0
            return input.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
            world.now += 4.0
            return gradient.clone()

    result = measured(world, Path("costly", Costly.apply), pass_=pass_)
    assert list(result.paths["costly"].samples) == pytest.approx([seconds] * 9)
    assert verdicts(result) == {"costly": Verdict.OK}


def failing_at(world: World, count: int, error: Exception) -> Callable[[Tensor], Tensor]:
    """Sound for `count` calls, then raising."""
    left = iter(range(count))

    def function(input: Tensor) -> Tensor:
        world.now += 1.0
        if next(left, None) is None:
            raise error
        return same(input)

    return function


# At once; while it is warmed up and checked; in the middle of the rounds.
@pytest.mark.parametrize("count", [0, 4, 12])
@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), Verdict.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: unspecified launch failure"), Verdict.ERROR),
        (NotImplementedError("takes no fp32"), Verdict.UNSUPPORTED),
    ],
)
def test_a_path_that_fails_leaves_the_others(
    count: int, error: Exception, verdict: Verdict
) -> None:
    """Recorded with its reason and without samples; the path beside it has all of its own."""
    world = World()
    bad = Path("bad", failing_at(world, count, error), claims=ALL_CLAIMS)
    good = Path("good", world.costing(1.0, same))
    result = measured(world, bad, good)
    record = speed_record(SpeedCase(group(), bad), result)
    assert (record.verdict, record.get("samples")) == (verdict, None)
    assert str(error) in record["reason"]
    assert len(result.paths["good"].samples) == 9
    # Neither a small device nor a refusal is the path's broken promise; an error is.
    assert bool(record.get("broken")) is (verdict is Verdict.ERROR)


def test_a_kernel_that_goes_wrong_in_the_loop_is_caught() -> None:
    """Right when it was checked first, wrong after the rounds: the worse verdict is recorded."""
    world, calls = World(), iter(range(1000))

    def rots(input: Tensor) -> Tensor:
        world.now += 1.0
        return same(input) if next(calls) < 10 else input * 1.5

    result = measured(world, Path("rots", rots, claims=ALL_CLAIMS), Path("sound", same_cost(world)))
    assert verdicts(result) == {"rots": Verdict.INACCURATE, "sound": Verdict.OK}
    record = speed_record(SpeedCase(group(), Path("rots", rots, claims=ALL_CLAIMS)), result)
    assert record["broken"]
    assert len(record["samples"]) == 9


def same_cost(world: World) -> Callable[[Tensor], Tensor]:
    return world.costing(1.0, same)


def test_faults_that_a_fast_kernel_may_have_are_seen() -> None:
    """A tail that is not written, an input that is changed, a wrong row, a wrong shape."""
    world = World()

    def unwritten(input: Tensor) -> Tensor:
        world.now += 1.0
        out = torch.empty_like(input)
        out[:-1] = input[:-1]
        out[-1, :-1] = input[-1, :-1]
        return out

    def writes(input: Tensor) -> Tensor:
        world.now += 1.0
        result = same(input)
        with torch.no_grad():
            input[5, 3] = 7.0
        return result

    def transposed(input: Tensor) -> Tensor:
        world.now += 1.0
        return same(input).t()

    paths = (
        Path("unwritten", unwritten),
        Path("transposed", transposed),
        Path("all_ones", world.costing(1.0, torch.ones_like)),
        Path("writes", writes),
    )
    assert verdicts(measured(world, *paths)) == {
        "unwritten": Verdict.UNWRITTEN,
        "transposed": Verdict.ERROR,
        "all_ones": Verdict.INACCURATE,
        "writes": Verdict.MUTATED_INPUT,
    }


def test_a_path_known_to_overwrite_gets_its_own_input_each_time() -> None:
    """The same numbers in every call, the others' inputs whole, and no verdict for it."""
    world, seen = World(), []

    class Overwriting(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, input: Tensor) -> Tensor:
            world.now += 1.0
            seen.append(float(input.abs().max()))
            result = input.clone()
            input.data.fill_(9.0)
            return result

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient

    path = Path("over", Overwriting.apply, overwrites_input=True)
    result = measured(world, path, Path("honest", same_cost(world)), pass_="both")
    assert verdicts(result) == {"over": Verdict.OK, "honest": Verdict.OK}
    assert set(seen) == {1.0}


def test_what_does_not_fit_is_not_allocated() -> None:
    """On a device with a byte too little every path is out_of_memory, and none was called."""
    called = []
    world = World(free=4 * 40 * 8 * 3 - 1)
    path = Path("path", lambda input: called.append(1) or same(input), claims=ALL_CLAIMS)
    result = measured(world, path)
    assert verdicts(result) == {"path": Verdict.OUT_OF_MEMORY}
    assert called == []
    record = speed_record(SpeedCase(group(), path), result)
    assert "nothing was allocated" in record["reason"]
    assert record.get("broken") is None
    world.free += 1
    world.now = 1.0
    assert verdicts(measured(world, Path("p", same_cost(world)))) == {"p": Verdict.OK}


def test_throttled_rounds_reach_the_record() -> None:
    """Two rounds on a hot card are measured again: counted, and gone from samples and states."""
    hot = CardState(sm_mhz=300, reasons=("thermal",))
    world = World(states=[CardState(sm_mhz=1500), hot, hot])
    path = Path("path", same_cost(world))
    record = speed_record(SpeedCase(group(), path), measured(world, path))
    assert record["repeated_rounds"] == 2
    assert record["rounds"]["throttle"] == [""] * 9
    assert len(record["samples"]) == 9


def test_a_regime_s_inputs_and_options_reach_only_paths_that_take_them() -> None:
    """A path whose signature lacks a role is unsupported, with the role's name."""
    weighted = replace(
        SIZED,
        regimes=(
            Regime(
                "normal",
                "with a weight",
                lambda draws: {
                    **SIZED.regimes[0].draw(draws),
                    "weight": draws.generator("weight").standard_normal(draws.shape[1]),
                    UPSTREAM: draws.generator(UPSTREAM).standard_normal(draws.shape),
                },
                shared=("weight",),
            ),
        ),
        truth=lambda roles: {
            "forward": roles["input"] * roles["weight"],
            "backward": roles[UPSTREAM] * roles["weight"],
        },
    )
    world, one = World(), group("both", weighted)
    paths = (
        Path("plain", world.costing(1.0, same)),
        Path("weighted", lambda input, weight: world.costing(1.0, same)(input) * weight),
    )
    result = measure(one, paths, world, draw(one, seed=0), seed=0, effort=EFFORT)
    assert verdicts(result) == {"plain": Verdict.UNSUPPORTED, "weighted": Verdict.OK}
    assert result.paths["plain"].judgement.reason == "takes no weight"
    # Input, weight, result, its gradient, and the gradients of both inputs.
    assert result.bytes_least == 4 * (2 * (40 * 8 + 8) + 2 * 40 * 8)
