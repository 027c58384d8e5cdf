"""Where does each path break? Records every case; fails where a path breaks its own claims."""

from collections.abc import Callable

import pytest

from harness.failures import broken_claims_text, reproduction
from harness.plan import Item
from harness.record import Record
from harness.recorder import Session
from harness.supervise.under_way import under_way
from harness.sweep import TruthCache, sweep_item


@pytest.fixture(scope="session")
def truths() -> TruthCache:
    """Shared by the paths of one operation, dtype and regime, which follow each other."""
    return TruthCache()


def test_stability(
    stability_item: Item,
    harness_session: Session,
    truths: TruthCache,
    record_cases: Callable[[list[Record]], None],
) -> None:
    """No case of the item breaks a claim of its path; paths without claims are only recorded."""
    with under_way(harness_session.journal, stability_item) as before_launch:
        records = sweep_item(
            stability_item,
            seed=harness_session.seed,
            device=harness_session.device,
            truths=truths,
            refine=not harness_session.filters.quick,
            before_launch=before_launch,
        )
    record_cases(records)
    broken = [record for record in records if record.get("broken")]
    session = harness_session
    if broken:

        def command(record: Record) -> str:
            return reproduction(record, seed=session.seed, catalog=session.catalog)

        # Without the traceback: it would show this file, and the fault is in the path.
        pytest.fail(broken_claims_text(broken, command), pytrace=False)
