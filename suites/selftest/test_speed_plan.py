"""What the speed suite would time: shapes that people train with, filters, ids."""

import re
from collections import Counter

import pytest

from harness.case import parse_case
from harness.errors import InputError
from harness.magnitudes import parse_range
from harness.plan import Filters, plan
from harness.timing.speed_case import SpeedCase
from harness.timing.speed_plan import speed_plan
from suites.catalog import OPERATIONS, speed_workloads
from suites.selftest import speed_toy

CATALOG = {each.name: each for each in OPERATIONS}
TOY = {each.name: each for each in speed_toy.OPERATIONS}


def planned(filters: Filters, device: str = "cuda") -> list[SpeedCase]:
    return speed_plan(CATALOG, speed_workloads, filters, device=device)


def toy(device: str = "cpu", **filters: object) -> list[str]:
    cases = speed_plan(TOY, speed_toy.speed_workloads, Filters(**filters), device=device)
    return [case.id for case in cases]


def test_the_shapes_are_those_people_train_with() -> None:
    """Vocabularies and widths of the range, 4k to 64k tokens, every operation, dtype and pass."""
    cases = planned(Filters(full=True))
    losses = {case.group.shape for case in cases if case.group.operation.name == "cross_entropy"}
    norms = {case.group.shape for case in cases if case.group.operation.name == "rms_norm"}
    assert {32_000, 50_257, 128_256, 151_936, 262_144} <= {columns for _, columns in losses}
    assert {columns for _, columns in norms} >= {1024, 4096, 65_536}
    assert {4096, 65_536} <= {rows for rows, _ in losses} & {rows for rows, _ in norms}
    assert all(4096 <= rows <= 65_536 for rows, _ in losses | norms)
    assert {case.group.operation.name for case in cases} == set(CATALOG)
    assert {case.group.fmt.name for case in cases} == {"fp16", "bf16", "fp32", "fp64"}
    assert {case.group.pass_ for case in cases} == {"forward", "backward", "both"}


def test_each_level_holds_the_one_before() -> None:
    """quick within default within full, and none the same as another."""
    quick, usual, full = (
        {case.group.id for case in planned(Filters(quick=level == 0, full=level == 2))}
        for level in range(3)
    )
    assert quick < usual < full


def test_ids_are_unique_and_collide_with_no_stability_id() -> None:
    """Every id bears its timer, and reads as the id of a case does."""
    ids = [case.id for case in planned(Filters(full=True))]
    assert max(Counter(ids).values()) == 1
    assert all(each.endswith("/timer=cuda") for each in ids)
    swept = plan(CATALOG, Filters(operation=("rms_norm",), quick=True))
    assert not {case.id for item in swept for case in item.cases()} & set(ids)
    one = next(each for each in ids if "/forward/" in each and each.startswith("linear"))
    assert dict(parse_case(one).options) == {"classes": "32000", "timer": "cuda"}
    assert "cross_entropy/triton/bf16/normal@1/8192x128256/backward/timer=cuda" in ids


def test_the_paths_of_a_group_stand_together() -> None:
    """So that a group is measured once, and forgotten when its last path has been recorded."""
    groups = [case.group.id for case in planned(Filters())]
    seen = list(dict.fromkeys(groups))
    assert groups == sorted(groups, key=seen.index)


def test_the_most_important_comes_first() -> None:
    """The first size of every operation before any second size: a budget cuts the rest."""
    sizes = [(case.group.operation.name, case.group.size) for case in planned(Filters())]
    first = {name: workload.cuda[0] for name, workload in speed_workloads.items()}
    later = [place for place, (name, size) in enumerate(sizes) if size != first[name]]
    early = [place for place, (name, size) in enumerate(sizes) if size == first[name]]
    assert max(early) < min(later)


def test_filters_select_as_in_stability() -> None:
    """Globs, dtypes beyond the usual ones, passes, regimes by name, magnitudes, shards."""
    assert toy(path=("hon*",), pass_=("both",), quick=True) == [
        "toy/honest/fp32/normal@1/64x32/both/timer=cpu"
    ]
    assert {each.split("/")[2] for each in toy(dtype=("fp16",))} == {"fp16"}
    named = toy(regime=("constant",), path=("honest",), quick=True)
    assert [each.split("/")[3] for each in named] == ["constant@10000", "constant@1"]
    large = toy(magnitude=parse_range("100:1e5"), path=("honest",))
    assert {each.split("/")[3] for each in large} == {"constant@10000"}
    halves = [toy(shard=(k, 2)) for k in (1, 2)]
    assert sorted(halves[0] + halves[1]) == sorted(toy())
    assert not set(halves[0]) & set(halves[1])


def test_another_regime_is_timed_where_the_operation_has_it() -> None:
    """A slice that names a regime the operation lacks is no error, and no case."""
    regimes = {each.split("/")[3] for each in toy()}
    assert regimes == {"normal@1", "constant@10000", "signs@1"}


def test_a_library_that_is_not_here_says_so_once() -> None:
    """One case an operation and dtype for an absent path, not one a shape."""
    cases = planned(Filters(operation=("cross_entropy",)))
    absent = Counter((case.path.name, case.group.fmt.name) for case in cases if case.path.absent())
    assert absent
    assert set(absent.values()) == {1}
    assert Counter(case.path.name for case in cases)["torch"] > 10


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        ({"operation": ("nope",)}, "unknown operation 'nope'"),
        ({"pass_": ("sideways",)}, "unknown pass 'sideways'; choose from: backward, both, forward"),
        ({"path": ("nope",)}, "unknown path 'nope'"),
        ({"regime": ("nope",)}, "unknown regime 'nope'"),
        ({"dtype": ("fp8",)}, "unknown dtype 'fp8'"),
        ({"quick": True, "full": True}, "--quick and --full exclude each other"),
        ({"magnitude": parse_range("3:4")}, "select nothing of the speed suite"),
    ],
)
def test_bad_filters_are_told(filters: dict[str, object], says: str) -> None:
    """One sentence, with the valid choices."""
    with pytest.raises(InputError, match=re.escape(says)):
        toy(**filters)


def test_an_operation_without_sizes_has_ordinary_ones() -> None:
    """A catalog of one's own needs to declare nothing."""
    cases = speed_plan(CATALOG, None, Filters(operation=("softmax",), quick=True), device="cuda")
    assert {case.group.shape for case in cases} == {(16_384, 4096)}
