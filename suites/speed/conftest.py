"""The bench that the speed suite measures on: one a session, made when the first test needs it."""

import contextlib
from collections.abc import Iterator

import pytest

from harness.recorder import Session
from harness.timing.bench import Bench, clock_for
from harness.timing.speed_case import SpeedCase


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest, harness_session: Session) -> Iterator[Bench]:
    """Measures the cases that are left after -k and the like, a group at a time."""
    given = [getattr(item, "callspec", None) for item in request.session.items]
    found = [callspec.params.get("speed_case") for callspec in given if callspec is not None]
    with contextlib.ExitStack() as stack:
        yield Bench(
            [case for case in found if isinstance(case, SpeedCase)],
            lambda: clock_for(harness_session.device, stack),
            seed=harness_session.seed,
            budget_s=harness_session.budget_s,
        )
