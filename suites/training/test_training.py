"""How does each cost, precision and normalisation train along the learning rate? Only recorded."""

from collections.abc import Callable

from harness.record import Record
from harness.recorder import Session
from harness.training.plan import TrainingItem
from harness.training.sweep import sweep_curve


def test_training(
    training_item: TrainingItem,
    harness_session: Session,
    record_cases: Callable[[list[Record]], None],
) -> None:
    """Every run of the curve ends with a record; what goes bad is a finding, not a failure."""
    record_cases(sweep_curve(training_item, device=harness_session.device))
