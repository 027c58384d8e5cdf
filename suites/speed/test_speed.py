"""How fast is each path, and what does safety cost? Fails where a path's answers are wrong."""

from collections.abc import Callable

import pytest

from harness.failures import broken_claims_text, reproduction
from harness.record import Record
from harness.recorder import Session
from harness.timing.bench import Bench, OutOfTime
from harness.timing.replay import replay
from harness.timing.speed_case import SpeedCase
from harness.timing.speed_record import speed_record


def test_speed(
    speed_case: SpeedCase,
    bench: Bench,
    harness_session: Session,
    record_cases: Callable[[list[Record]], None],
    request: pytest.FixtureRequest,
) -> None:
    """A path that claims to be right is right at the size at which it is timed, before and after.

    The first test of a group measures all its paths in the same rounds; each test records its own
    path and replays its samples through pytest-benchmark.
    """
    session = harness_session
    try:
        result = bench.result_for(speed_case)
    except OutOfTime:
        pytest.skip(f"left for --resume: the budget of {session.budget_s:g} s was over")
    record = speed_record(speed_case, result)
    record_cases([record])
    if record.get("samples"):
        replay(
            request,
            record["samples"],
            group=speed_case.group.id,
            timer=record["timer"],
            id=record.id,
        )
    if record.get("broken"):
        command = reproduction(record, seed=session.seed, catalog=session.catalog)
        pytest.fail(broken_claims_text([record], lambda _: command), pytrace=False)
