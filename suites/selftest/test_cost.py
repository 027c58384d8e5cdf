"""The harness's own cost stays within its targets, in processor time: the machine may be shared.

The figures themselves, to a million records, are `python -m suites.selftest.bench_harness`.
"""

from pathlib import Path

import pytest

from suites.selftest import bench_harness


def test_the_command_answers_at_once() -> None:
    """`stability --help` takes less than 0.3 s, torch's import alone takes more than a second."""
    _, cpu = bench_harness.start_up()
    assert cpu < 0.3


@pytest.mark.full  # six processes with torch in them: half a minute
def test_a_case_costs_less_than_a_millisecond_beyond_its_computation() -> None:
    """In a run of plain pytest, records written and flushed."""
    _, other = bench_harness.overhead()
    assert 0 < other < 1.0


@pytest.mark.full  # 220,000 records written and read: a minute
def test_reading_and_comparing_is_linear_in_time_and_small_in_memory(tmp_path: Path) -> None:
    """Ten times the records take at most fifteen times as long; a million would fit in 60 s and
    2 GiB: 60 us and 2 kB each, with what every process has.
    """
    few, many = (bench_harness.compared(n, tmp_path / str(n)) for n in (10_000, 100_000))
    assert many.cpu_s < 15 * few.cpu_s
    assert many.cpu_s < 100_000 * 80e-6  # a third more, for a machine that is not idle
    assert many.peak_mb - few.peak_mb < 0.002 * 90_000


@pytest.mark.full  # 110,000 records: half a minute
def test_merging_keeps_little_of_a_record(tmp_path: Path) -> None:
    """Ninety thousand records more take less than twenty megabytes, of which eight bytes each."""
    few, many = (bench_harness.merged(n, tmp_path / str(n)) for n in (10_000, 100_000))
    assert many.peak_mb - few.peak_mb < 20
