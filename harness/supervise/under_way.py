"""An item under way: its journal entries, and the end of a process whose device is lost."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from harness.execute import DeviceLost
from harness.judgement import Judgement
from harness.plan import Item
from harness.record import stability_record
from harness.supervise.journal import LOST, Journal
from harness.verdict import Verdict


@contextmanager
def under_way(journal: Journal | None, item: Item) -> Iterator[Callable[[Sequence[float]], None]]:
    """Around the measurement of an item; gives what to call before each launch.

    Where the device is lost the process ends, and the supervisor starts another; without a
    supervisor the session ends, and says how to have one.
    """
    if journal is None:
        try:
            yield lambda magnitudes: None
        except DeviceLost as error:
            pytest.exit(
                f"the device is lost ({error}): no case after this one can be measured in this"
                " process. `stability run` starts a new one and goes on.",
                returncode=int(pytest.ExitCode.INTERNAL_ERROR),
            )
        return
    journal.begin(item.id, _due(item) if item.alone else ())
    try:
        yield journal.launching
    except DeviceLost as error:
        journal.lost(str(error))
        sys.stdout.flush()
        os._exit(LOST)  # without the clean-up that would ask the device
    finally:
        journal.measured()


def _due(item: Item) -> list[dict[str, Any]]:
    """The records of an item that does not end, but for the supervisor's verdict and reason."""
    died = Judgement(Verdict.CRASH, representable=True)
    return [
        stability_record(
            item.case(magnitude, pass_), died, item.path, seconds=0.0, refined=item.refined
        ).to_dict()
        for magnitude in item.magnitudes
        for pass_ in item.passes
    ]
