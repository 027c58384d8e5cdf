"""Comparing timings: the same code is SAME, 5% is found, and what cannot be known is UNCLEAR."""

import math
from pathlib import Path

import numpy as np
import pytest

from harness import Run, Verdict
from harness.compare.comparison import compare_runs
from harness.compare.speed import Answer, Speed
from harness.compare.statistics import (
    discoveries,
    rounds_that_count_as_one,
    shift_between,
)
from harness.record import Record
from suites.selftest.written_runs import HEAD, timed

SAME, FASTER, SLOWER, UNCLEAR = Answer.SAME, Answer.FASTER, Answer.SLOWER, Answer.UNCLEAR


def compared(base: list[Record], new: list[Record], **head: object) -> Speed:
    return compare_runs(
        Run(Path("base"), HEAD, tuple(base)), Run(Path("new"), HEAD | head, tuple(new))
    ).speed


def rounds(
    generator: np.random.Generator,
    *,
    count: int = 30,
    width: float = 0.01,
    memory: float = 0.0,  # correlation of a round with the next
    drift: float = 0.0,  # from the first round to the last
    offset: float = 0.0,  # of the whole run: where its memory lies, its clock
    seconds: float = 1e-3,
) -> list[float]:
    """As timings look: log-normal, a slow round in thirty, neighbours alike, a slow drift."""
    noise = generator.standard_normal(count)
    for place in range(1, count):
        kept = memory * noise[place - 1]
        noise[place] = kept + math.sqrt(1 - memory**2) * noise[place]
    logarithms = width * noise + drift * np.linspace(0.0, 1.0, count) + offset
    slow = generator.random(count) < 1 / 30
    logarithms += slow * generator.exponential(0.3, count)
    return [float(each) for each in seconds * np.exp(logarithms)]


# Kinds of noise that devices make: a quiet GPU, one that warms up, a busy machine's long rounds.
NOISE: dict[str, dict[str, float]] = {
    "quiet": {"width": 0.005},
    "warming up": {"width": 0.005, "drift": 0.01},
    "with memory": {"width": 0.01, "memory": 0.4, "count": 60},
    "wide": {"width": 0.03, "count": 60},
}
ROWS = 150
# Enough pairs of runs in the sample to see 99%, more at night.
PAIRS = pytest.mark.parametrize("pairs", [2, pytest.param(30, marks=pytest.mark.full)])


def two_runs(
    seed: int, kind: str, slower: dict[int, float] | None = None, common: float = 0.0
) -> Speed:
    """ROWS timings of unchanged code, half of them of paths that claim, some made slower."""
    generator = np.random.default_rng(seed)
    base, new = [], []
    for row in range(ROWS):
        shape, path = f"{row + 1}x64", ("torch", "triton")[row % 2]
        seconds = 1e-3 * (1 + row)
        of_run = [0.003 * float(each) for each in generator.standard_normal(2)]
        factor = 1.0 + (slower or {}).get(row, 0.0)
        for records, offset, scale in (
            (base, of_run[0], 1.0),
            (new, of_run[1] + common, factor),
        ):
            options = {"offset": offset, "seconds": seconds * scale} | NOISE[kind]
            records.append(timed(path, rounds(generator, **options), shape))  # type: ignore[arg-type]
    return compared(base, new)


@PAIRS
@pytest.mark.parametrize("kind", NOISE)
def test_the_same_code_twice_is_same(kind: str, pairs: int) -> None:
    """Over several pairs of runs: SAME in at least 99% of rows, and not one SLOWER or FASTER."""
    answers = [row.answer for seed in range(pairs) for row in two_runs(seed, kind).rows]
    assert len(answers) == pairs * ROWS
    assert answers.count(SAME) >= 0.99 * len(answers)
    assert answers.count(SLOWER) + answers.count(FASTER) == 0


@PAIRS
@pytest.mark.parametrize("kind", NOISE)
def test_a_planted_slowdown_of_5_percent_is_found(kind: str, pairs: int) -> None:
    """Ten rows of a hundred and fifty: at least 95% of them are found, and those rows alone."""
    planted = {row: -0.05 if row % 4 == 0 else 0.05 for row in range(0, ROWS, 15)}
    found = wrong = 0
    for seed in range(pairs):
        rows = {row.id: row for row in two_runs(100 + seed, kind, planted).rows}
        for row, change in planted.items():
            id_ = timed(("torch", "triton")[row % 2], [1.0], f"{row + 1}x64").id
            found += rows.pop(id_).answer is (SLOWER if change > 0 else FASTER)
        wrong += sum(each.answer in (SLOWER, FASTER) for each in rows.values())
    assert found >= 0.95 * pairs * len(planted)
    assert wrong == 0


def test_a_run_that_is_slower_as_a_whole_is_no_regression() -> None:
    """8% slower everywhere, as of a warm device: taken off, told, a real change still seen."""
    found = two_runs(1, "quiet", {7: 0.05}, common=0.08)
    assert found.common == pytest.approx(math.expm1(0.08), abs=0.003)
    assert found.controls == ROWS // 2
    assert [row.answer for row in found.rows].count(SLOWER) == 1
    assert found.rows[0].id == timed("triton", [1.0], "8x64").id


def test_all_of_ours_slower_is_a_regression() -> None:
    """Every path that claims 5% slower, the others not: nothing of it is taken for the device's."""
    found = two_runs(2, "quiet", dict.fromkeys(range(1, ROWS, 2), 0.05))
    assert found.count(SLOWER) == ROWS // 2
    assert found.count(SAME) == ROWS - ROWS // 2
    assert abs(found.common) < 0.003


def test_another_torch_gives_no_common_factor() -> None:
    """Where versions differ others' paths may have changed: they say nothing of the device."""
    generator = np.random.default_rng(3)
    base = [timed("torch", rounds(generator), f"{row + 1}x64") for row in range(20)]
    new = [timed("torch", rounds(generator, offset=0.08), f"{row + 1}x64") for row in range(20)]
    assert compared(base, new).count(SAME) == 20
    other = compared(base, new, versions={"torch": "2.14.0"})
    assert (other.controls, other.common, other.count(SLOWER)) == (0, 0.0, 20)


def test_noise_that_could_hide_a_slowdown_is_unclear() -> None:
    """The same code with rounds 20% wide: neither SAME nor SLOWER can be said of it."""
    generator = np.random.default_rng(4)
    wide = [rounds(generator, width=0.2, count=20) for _ in range(40)]
    found = compared(
        [timed("triton", wide[2 * row], f"{row + 1}x64") for row in range(20)],
        [timed("triton", wide[2 * row + 1], f"{row + 1}x64") for row in range(20)],
    )
    assert found.count(UNCLEAR) == 20
    reasons = {row.reason for row in found.rows}
    assert reasons <= {"the change may be chance", "noise could hide a change of 5%"}


def test_rows_of_few_rounds_are_unclear() -> None:
    """Four rounds prove nothing, though they lie far apart; eight that do are enough."""
    for count, answer in ((1, UNCLEAR), (4, UNCLEAR), (8, SLOWER)):
        first = [1e-3 * (1 + 1e-3 * (place * 5 % 8)) for place in range(count)]
        second = [2 * each for each in first]
        (row,) = compared([timed("triton", first)], [timed("triton", second)]).rows
        assert row.answer is answer


def test_identical_samples_are_same() -> None:
    """All rounds equal, on both sides: no division by zero, no change."""
    (row,) = compared([timed("triton", [1e-3] * 9)], [timed("triton", [1e-3] * 9)]).rows
    assert (row.answer, row.change) == (SAME, 0.0)


def test_the_least_change_is_a_choice() -> None:
    """12% slower is SLOWER by default and SAME where only 20% counts."""
    generator = np.random.default_rng(5)
    base = Run(Path("b"), HEAD, (timed("triton", rounds(generator)),))
    new = Run(Path("n"), HEAD, (timed("triton", rounds(generator, offset=0.12)),))
    assert compare_runs(base, new).speed.rows[0].answer is SLOWER
    assert compare_runs(base, new, least_change=0.2).speed.rows[0].answer is SAME


def test_a_case_that_no_longer_ran_is_no_timing() -> None:
    """Out of memory in the new run is a verdict that got worse, not a row without samples."""
    base = timed("triton", [1e-3] * 9)
    gone = timed("triton", [], verdict=Verdict.OUT_OF_MEMORY)
    found = compare_runs(Run(Path("b"), HEAD, (base,)), Run(Path("n"), HEAD, (gone,)))
    assert found.speed.rows == ()
    assert [change.new for change in found.stability.regressions] == [Verdict.OUT_OF_MEMORY]


def test_the_estimate_and_its_interval_cover_the_truth() -> None:
    """A true shift of 4% lies in the 95% interval in at least 93% of 400 pairs, memory or not."""
    for memory in (0.0, 0.4):
        generator = np.random.default_rng(6)
        covered = 0
        for _ in range(400):
            base = rounds(generator, memory=memory, width=0.02, count=60)
            new = rounds(generator, memory=memory, width=0.02, count=60, offset=0.04)
            shift = shift_between(base, new)
            covered += shift.low <= 0.04 <= shift.high
        assert covered >= 0.93 * 400


def test_rounds_with_memory_count_for_less() -> None:
    """As a first-order autoregression: (1 + r) / (1 - r), which is 1 without and 3 for r = 0.5."""
    generator = np.random.default_rng(7)
    for memory, expected in ((0.0, 1.0), (0.5, 3.0)):
        series = [np.log(rounds(generator, memory=memory, count=4000, width=0.3)) for _ in range(2)]
        assert rounds_that_count_as_one(*series) == pytest.approx(expected, rel=0.2)


def test_very_long_series_cost_no_more() -> None:
    """100,000 rounds, the most a record may hold: neighbours in medians, the shift still found."""
    generator = np.random.default_rng(8)
    series = [list(0.01 + 1e-4 * generator.random(100_000)) for _ in range(2)]
    shift = shift_between(series[0], [1.05 * each for each in series[1]])
    assert shift.estimate == pytest.approx(math.log(1.05), abs=1e-4)
    assert shift.high - shift.low < 1e-3


def test_what_is_significant_depends_on_how_many_were_asked() -> None:
    """p = 0.004 is something alone and nothing among a thousand; many small p help each other."""
    assert discoveries([0.004], 0.01) == [True]
    assert discoveries([0.004, *[0.5] * 999], 0.01) == [False] * 1000
    assert discoveries([0.004, 0.003, 0.5], 0.01) == [True, True, False]
    assert discoveries([], 0.01) == []
