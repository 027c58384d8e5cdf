"""How does each cost, precision and normalisation train along the learning rate? Only recorded."""

from collections.abc import Callable

import pytest

from harness.record import Record
from harness.recorder import Session
from harness.training.plan import TrainingItem
from harness.training.sweep import sweep_curve
from harness.verdict import Verdict


def test_training(
    training_item: TrainingItem,
    harness_session: Session,
    record_cases: Callable[[list[Record]], None],
) -> None:
    """Every run of the curve ends with a record; what goes bad is a finding, not a failure."""
    records = sweep_curve(training_item, device=harness_session.device)
    record_cases(records)
    for each in records:
        if each.verdict is Verdict.ERROR:  # somebody's own model, which raised
            pytest.fail(each["reason"], pytrace=False)
