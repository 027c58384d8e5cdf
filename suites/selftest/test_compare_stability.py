"""Comparing verdicts, frontiers and claims: what got worse fails, what got better is told."""

import json
import shutil
from pathlib import Path

import pytest

from harness import Run, Verdict, load
from harness.compare import Comparison, compare_runs
from harness.record import Record
from suites.selftest.conftest import Stability
from suites.selftest.written_runs import HEAD, id_at, judged, write

OK, NAN, INF = Verdict.OK, Verdict.NAN, Verdict.INF
INACCURATE, ERROR, UNREPRESENTABLE = Verdict.INACCURATE, Verdict.ERROR, Verdict.UNREPRESENTABLE


def compared(base: list[Record], new: list[Record]) -> Comparison:
    return compare_runs(Run(Path("base"), HEAD, tuple(base)), Run(Path("new"), HEAD, tuple(new)))


# From better to worse in every step that matters: right, finite but wrong, not finite, did not run.
LADDER = (OK, INACCURATE, NAN, ERROR)


@pytest.mark.parametrize("worse", range(1, len(LADDER)))
def test_a_step_down_is_a_regression_and_a_step_up_an_improvement(
    tmp_path: Path, stability: Stability, worse: int
) -> None:
    """ok -> nan fails the comparison with exit code 1; nan -> ok passes it; both are told."""
    id_ = id_at(8)
    for better in range(worse):
        good = write(tmp_path / f"good{better}", [judged(id_, LADDER[better]), judged(id_at(4))])
        bad = write(tmp_path / f"bad{better}", [judged(id_, LADDER[worse]), judged(id_at(4))])
        down = compare_runs(load(good), load(bad)).stability
        up = compare_runs(load(bad), load(good)).stability
        assert [(c.id, c.base, c.new) for c in down.regressions] == [
            (id_, LADDER[better], LADDER[worse])
        ]
        assert [change.id for change in up.improvements] == [id_]
        assert (down.same, up.same) == (1, 1)
        assert not any((down.improvements, down.changes, up.regressions, up.changes))
        assert stability("compare", good, bad).code == 1
        assert stability("compare", bad, good).code == 0


def test_neither_better_nor_worse_is_a_change() -> None:
    """nan -> inf, and ok -> unrepresentable, are told without failing anything."""
    found = compared(
        [judged(id_at(1), NAN), judged(id_at(2), OK)],
        [judged(id_at(1), INF), judged(id_at(2), UNREPRESENTABLE)],
    ).stability
    assert [change.id for change in found.changes] == [id_at(1), id_at(2)]
    assert (found.regressions, found.improvements) == ((), ())


def test_a_nan_planted_in_a_real_run_is_found(
    tmp_path: Path, small_run: Path, stability: Stability
) -> None:
    """One ok of a whole sweep turned NaN, wherever it is: exit code 1, and that case named."""
    lines = (small_run / "records.jsonl").read_text().splitlines()
    good = [place for place, line in enumerate(lines) if '"verdict": "ok"' in line]
    for place in (good[0], good[len(good) // 2], good[-1]):
        planted = tmp_path / str(place)
        shutil.copytree(small_run, planted)
        changed = json.loads(lines[place]) | {"verdict": "nan"}
        (planted / "records.jsonl").write_text(
            "\n".join([*lines[:place], json.dumps(changed), *lines[place + 1 :]]) + "\n"
        )
        done = stability("compare", small_run, planted, "--format", "json")
        assert done.code == 1
        (found,) = json.loads(done.out)["stability"]["regressions"]
        assert (found["id"], found["base"], found["new"]) == (changed["id"], "ok", "nan")


def on_axis(
    good: float, bad: float, verdict: Verdict = NAN, *, bisected: bool = True, **fields: object
) -> list[Record]:
    """Powers of ten from 1 to 1e4, ok to `good` and `verdict` from `bad` on, both visited."""
    grid = [1.0, 10.0, 100.0, 1000.0, 10000.0]
    points = [(each, {}) for each in grid]
    if bisected:
        points += [(each, {"refined": True}) for each in (good, bad) if each not in grid]
    return [
        judged(id_at(magnitude), verdict if magnitude >= bad else OK, **extra, **fields)
        for magnitude, extra in points
    ]


def test_a_frontier_inwards_is_a_regression_by_however_little() -> None:
    """11 -> 10.5 between two points of the grid: no verdict in common changed, the frontier did."""
    found = compared(on_axis(11, 11.5), on_axis(10.25, 10.5)).stability
    (finite,) = found.moves  # accuracy went with it, and is not told twice
    assert (found.regressions, found.failures) == ((), 1)
    assert (finite.property, finite.base_until, finite.new_until) == ("finite", 11, 10.25)
    assert (finite.inwards, finite.regression) == (True, True)


def test_a_frontier_outwards_is_an_improvement() -> None:
    """Told, and failing nothing; also where it goes away altogether."""
    for better in (on_axis(20, 21), on_axis(10000, 99999, bisected=False)):
        found = compared(on_axis(11, 11.5), better).stability
        assert {move.inwards for move in found.moves} == {False}
        assert (len(found.moves), found.failures) == (1, 0)


# An unclaimed path's accuracy may jitter with another rounding of exp; a claimed one's may not, and
# a whole factor of two is no jitter.
@pytest.mark.parametrize(
    ("claimed", "to", "regression"),
    [(False, 10.5, False), (True, 10.5, True), (False, 5.0, True)],
)
def test_accuracy_moves_by_rules_of_its_own(claimed: bool, to: float, regression: bool) -> None:
    """Inwards is always told; it fails for claims and for more than a factor of two."""
    base = on_axis(11, 11.5, INACCURATE, claimed=claimed)
    new = on_axis(to, to + 0.5, INACCURATE, claimed=claimed)
    moves = [move for move in compared(base, new).stability.moves if move.property == "accurate"]
    assert [(move.inwards, move.regression) for move in moves] == [(True, regression)]


def test_a_rounding_next_to_the_frontier_is_left_to_it() -> None:
    """A bisected magnitude ok -> inaccurate fails where claimed; else the frontier tells it."""
    for claimed in (False, True):
        base = [judged(id_at(1)), judged(id_at(11), OK, refined=True, claimed=claimed)]
        new = [judged(id_at(1)), judged(id_at(11), INACCURATE, refined=True, claimed=claimed)]
        found = compared(base, new).stability
        assert len(found.regressions) == claimed
        assert len(found.changes) == (not claimed)
        worse = [judged(id_at(1)), judged(id_at(11), NAN, refined=True, claimed=claimed)]
        assert len(compared(base, worse).stability.regressions) == 1


def test_the_low_side_is_outwards_below_one() -> None:
    """Towards zero, smaller is further: 0.01 -> 0.1 is inwards, 0.1 -> 0.01 outwards."""

    def low(good: float, bad: float) -> list[Record]:
        return [
            judged(id_at(1)),
            judged(id_at(good), OK, refined=True),
            judged(id_at(bad), NAN, refined=True),
        ]

    near, far = low(0.125, 0.0625), low(0.015625, 0.0078125)
    assert {(m.side, m.inwards) for m in compared(far, near).stability.moves} == {("low", True)}
    assert {(m.side, m.inwards) for m in compared(near, far).stability.moves} == {("low", False)}


def test_a_wider_bracket_has_not_moved() -> None:
    """A run without bisection knows less, and shows nothing that contradicts the base."""
    bisected, coarse = on_axis(11, 11.5), on_axis(11, 11.5, bisected=False)
    assert compared(bisected, coarse).stability.moves == ()
    assert compared(coarse, bisected).stability.moves == ()


def test_other_grids_have_other_frontiers() -> None:
    """What a finer grid meets between two points of a coarser one is no regression."""
    coarse = [judged(id_at(m), OK) for m in (1, 100)]
    finer = [*coarse, judged(id_at(10), NAN)]
    found = compared(coarse, finer)
    assert (found.stability.moves, found.stability.failures) == ((), 0)
    assert found.added == (id_at(10),)


def test_a_frontier_that_a_real_change_moved_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_run: Path, stability: Stability
) -> None:
    """A path that held to 200 and now holds to 100: no grid case changed, its frontiers did."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "wider.py").write_text(
        "import torch\n"
        "from suites.selftest.toy import TOY, Path\n"
        "def fragile(input):\n"
        "    return torch.where(input.abs() > 200.0, torch.nan, input)\n"
        "OPERATIONS = (TOY.with_paths(Path('fragile', fragile)),)\n"
    )
    asked = ("--catalog", "wider", "--dtype", "fp16", "--magnitude", "1:1e4:1", "--jobs", "1")
    assert stability("run", *asked, "--out", tmp_path / "wider").code == 0
    done = stability("compare", "wider", toy_run, "--format", "json")
    assert done.code == 1
    found = json.loads(done.out)["stability"]
    assert found["regressions"] == []
    moves = [move for move in found["frontiers"] if move["property"] == "finite"]
    assert {(m["base_until"], m["base_from"], m["new_until"]) for m in moves} == {
        (200.0, 200.125, 100.0)
    }
    assert all(move["regression"] for move in moves)


def test_a_claim_that_nobody_makes_any_more_is_lost() -> None:
    """The verdicts are the same; that the path promises nothing now is a regression."""
    base = [judged(id_at(m), OK, claimed=True) for m in (1, 2)]
    new = [judged(id_at(m), OK, claimed=False) for m in (1, 2)]
    found = compared(base, new).stability
    assert [(each.path, each.cases) for each in found.withdrawn] == [("cross_entropy/naive", 2)]
    assert found.failures == 1
    assert compared(new, base).stability.failures == 0


def test_a_claimed_case_that_is_gone_is_a_lost_claim_if_it_was_asked_for() -> None:
    """Where both runs were asked for the same; a narrower run merely lacks it."""
    records = [judged(id_at(m), OK, claimed=True) for m in (1, 2)]
    base = Run(Path("base"), HEAD | {"asked": {"quick": False}}, tuple(records))
    for asked, lost in (
        ({"quick": False}, 1),
        ({"quick": False, "option of a newer version": 7}, 1),
        ({"quick": True}, 0),
    ):
        found = compare_runs(base, Run(Path("new"), HEAD | {"asked": asked}, tuple(records[:1])))
        assert (found.stability.failures, found.missing) == (lost, (id_at(2),))


def test_a_claim_newly_broken_is_a_regression_though_the_verdict_is_old() -> None:
    """A path that began to claim what it never kept: the same verdict, and a broken promise."""
    base = [judged(id_at(1), INACCURATE)]
    new = [judged(id_at(1), INACCURATE, claimed=True, broken=["max_ulp <= 2"])]
    (change,) = compared(base, new).stability.regressions
    assert change.broken == ("max_ulp <= 2",)
