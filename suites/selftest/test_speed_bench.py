"""What a session measures: each group once, with the selected paths, until time is over."""

from collections.abc import Callable

import pytest
import torch

from harness.plan import Filters
from harness.timing import bench as benching
from harness.timing.bench import Bench, OutOfTime
from harness.timing.cpu_clock import NOT_MEASURED, CpuClock, measuring_on_cpu
from harness.timing.measure import GroupResult
from harness.timing.speed_case import SpeedCase
from harness.timing.speed_plan import speed_plan
from kernels import launch
from suites.selftest import speed_toy

CASES = speed_plan(
    {"toy": speed_toy.SIZED},
    speed_toy.speed_workloads,
    Filters(dtype=("fp32",), regime=("normal",)),
    device="cpu",
)
GROUPS = list(dict.fromkeys(case.group.id for case in CASES))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """The groups that are measured, with their paths, in order; nothing is run."""
    calls: list[tuple[str, list[str]]] = []

    def measure(group: object, paths: tuple, *_: object, **__: object) -> GroupResult:
        calls.append((group.id, [path.name for path in paths]))  # type: ignore[attr-defined]
        return GroupResult({})

    monkeypatch.setattr(benching, "measure", measure)
    return calls


def bench(cases: list[SpeedCase], **options: object) -> Bench:
    return Bench(cases, CpuClock, seed=0, **options)  # type: ignore[arg-type]


def test_a_group_is_measured_once_for_all_its_tests(
    measured: list[tuple[str, list[str]]],
) -> None:
    """The first test that asks measures every selected path; the others get the same result."""
    one = bench(CASES)
    found = {case.id: one.result_for(case) for case in CASES}
    assert [group for group, _ in measured] == GROUPS
    assert all(paths == [p.name for p in speed_toy.SIZED.paths] for _, paths in measured)
    for group in GROUPS:
        assert len({id(found[case.id]) for case in CASES if case.group.id == group}) == 1
    # Forgotten after its last test: a repeated one (pytest --lf, a plugin) measures again.
    one.result_for(CASES[0])
    assert len(measured) == len(GROUPS) + 1


def test_what_was_not_selected_takes_no_part(measured: list[tuple[str, list[str]]]) -> None:
    """-k honest, or honest and naive: the rounds have these paths and no other."""
    for names in (["honest"], ["naive", "honest"]):
        measured.clear()
        chosen = [case for case in CASES if case.path.name in names]
        one = bench(chosen)
        for case in chosen:
            one.result_for(case)
        assert [paths for _, paths in measured] == [names] * len(GROUPS)


def test_after_the_budget_nothing_is_begun_and_what_was_is_finished(
    measured: list[tuple[str, list[str]]],
) -> None:
    """Time ends after the first test: its group's others have a result, the next group none."""
    now = [0.0]
    one = bench(CASES, budget_s=10.0, now=lambda: now[0])
    first, *rest = [case for case in CASES if case.group.id == GROUPS[0]]
    one.result_for(first)
    now[0] = 10.0
    assert all(isinstance(one.result_for(case), GroupResult) for case in rest)
    other = next(case for case in CASES if case.group.id == GROUPS[1])
    with pytest.raises(OutOfTime):
        one.result_for(other)
    assert [group for group, _ in measured] == GROUPS[:1]


def test_the_interpreter_cannot_run_while_anything_is_timed() -> None:
    """A launch raises within, with the reason that is recorded; outside it works as before."""
    if not launch.INTERPRETED:
        pytest.skip("kernels are compiled here")
    launched: Callable[..., torch.Tensor] = speed_toy.LAUNCHED.function
    values, threads = torch.ones(4, 8), torch.get_num_threads()
    with measuring_on_cpu(1):
        assert torch.get_num_threads() == 1
        with pytest.raises(NotImplementedError, match=NOT_MEASURED):
            launched(values)
    assert torch.equal(launched(values), values)
    assert torch.get_num_threads() == threads
