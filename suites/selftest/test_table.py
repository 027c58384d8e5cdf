"""The table of a run: what its cells and frontiers say, and that every form of it can be read."""

import csv
import io
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from harness import Verdict, load
from harness.case import Case
from harness.formats import FORMATS
from harness.record import Record
from harness.render_text import block_lines
from harness.table import COLUMNS, Row, cells_of, table_rows
from suites.selftest.conftest import Stability

OK, NAN, INACCURATE, UNREPRESENTABLE = (
    Verdict.OK,
    Verdict.NAN,
    Verdict.INACCURATE,
    Verdict.UNREPRESENTABLE,
)


def record(magnitude: float, verdict: Verdict, regime: str = "peak", **fields: Any) -> Record:
    case = Case("cross_entropy", "naive", "fp64", regime, magnitude, (4, 64), "forward")
    axes = {"regime": regime, "magnitude": magnitude, "pass": case.pass_}
    return Record(
        case.id, "stability", case.operation, case.path, case.dtype, verdict, axes | fields
    )


def column(exponent: int) -> int:
    return COLUMNS.index(exponent)


def strict(text: str) -> Any:
    """Parse JSON and refuse the literals that only Python calls JSON."""

    def refuse(literal: str) -> NoReturn:
        raise AssertionError(f"{literal} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_columns_ascend_over_all_formats() -> None:
    """Each column begins above the one before; the first is below fp64's smallest float."""
    assert all(low < high for low, high in itertools.pairwise(COLUMNS))
    assert COLUMNS[0] <= -324
    assert {-8, -45, -38, 0, 4, 38} <= set(COLUMNS)  # where the limits of the formats lie


# Each column begins at its power of ten, that power included, and ends before the next one; the
# smallest subnormal and the largest double have their place, too.
@pytest.mark.parametrize(
    ("magnitude", "exponent"),
    [
        *((1.0, 0), (9.99, 0), (10.0, 1), (0.999, -1), (65504.0, 4), (9e4, 4), (1e5, 5)),
        *((9e7, 5), (3.4e38, 38), (5e-324, -324), (1.7976931348623157e308, 300)),
    ],
)
def test_a_case_falls_in_its_column(magnitude: float, exponent: int) -> None:
    """One case marks one cell of the strip."""
    cells = cells_of([record(magnitude, NAN)])
    assert [place for place, cell in enumerate(cells) if cell] == [column(exponent)]


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32", "fp64"])
def test_a_rounded_power_of_ten_keeps_its_column(dtype: str) -> None:
    """0.1 rounds to 0.09998 in fp16 and to 0.1001 in bf16: both stand in the column of 0.1."""
    rounded = replace(record(FORMATS[dtype].round(0.1), NAN), dtype=dtype)
    cells = cells_of([rounded])
    assert [place for place, cell in enumerate(cells) if cell] == [column(-1)]


def test_a_cell_shows_the_worst_and_nobodys_fault_hides_nothing() -> None:
    """nan over inaccurate over unrepresentable over ok, in any order; no case is no verdict."""
    ladder = [OK, UNREPRESENTABLE, INACCURATE, NAN]
    for upto in range(1, len(ladder) + 1):
        for order in itertools.permutations(ladder[:upto]):
            cells = cells_of(record(2.0, verdict) for verdict in order)
            assert cells[column(0)] is ladder[upto - 1]
    assert set(cells_of([record(0.0, NAN)])) == {None}


def row_of(*records: Record) -> Row:
    (row,) = table_rows(records, by_regime=False)
    return row


def test_the_tightest_frontier_of_all_regimes_is_shown() -> None:
    """Folded over regimes, each side has the failure nearest to 1, with its own neighbours."""
    found = row_of(
        *(record(m, OK) for m in (0.25, 0.5, 1.0, 2.0)),
        record(4.0, NAN),
        record(0.125, INACCURATE),
        *(record(m, OK, "normal") for m in (0.5, 1.0, 2.0, 4.0)),
        record(3.0, NAN, "normal"),
        record(0.25, NAN, "normal"),
    )
    assert (found.high.finite_until, found.high.nonfinite_from) == (2.0, 3.0)
    assert (found.low.finite_until, found.low.nonfinite_from) == (0.5, 0.25)
    assert (found.low.accurate_until, found.low.inaccurate_from) == (0.5, 0.25)
    assert found.counts == {NAN: 3, INACCURATE: 1, OK: 8}


def test_by_regime_each_regime_has_its_row() -> None:
    """The same records apart: one row a regime, each with its own frontier."""
    records = [record(1.0, OK), record(2.0, NAN), record(1.0, OK, "normal")]
    rows = {row.regime: row for row in table_rows(records, by_regime=True)}
    assert set(rows) == {"peak", "normal"}
    assert rows["peak"].high.nonfinite_from == 2.0
    assert rows["normal"].high.nonfinite_from is None


def rows_of_run(directory: Path) -> set[tuple[str, ...]]:
    """What a table must have a row for: operation, pass, path, dtype, regime."""
    return {
        (each.operation, each["pass"], each.path, each.dtype, each["regime"])
        for each in load(directory).records
    }


def test_text_fits_80_columns(
    small_run: Path, stability: Stability, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line is longer, each path has a row an operation and pass, each verdict its meaning."""
    monkeypatch.chdir(small_run.parent)
    done = stability("table", small_run.name)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = {key[:4] for key in rows_of_run(small_run)}
    for path in ("naive", "torch"):
        named = [line for line in lines if line.split()[:2] == [path, "fp16"]]
        assert len(named) == len({key for key in rows if key[2] == path}) == 4
    text = " ".join(done.out.split())
    for verdict in {each.verdict for each in load(small_run).records}:
        assert verdict.meaning in text
        assert verdict is OK or verdict.next_step in text
    assert "\x1b" not in done.out  # no colour codes where there is no terminal


def test_csv_is_one_line_a_row(small_run: Path, stability: Stability) -> None:
    """Parsed back: the axes of each row, numbers as numbers, every case counted once."""
    done = stability("table", small_run, "--format", "csv")
    parsed = list(csv.DictReader(io.StringIO(done.out), strict=True))
    axes = ("operation", "pass", "path", "dtype", "regime")
    assert {tuple(row[name] for name in axes) for row in parsed} == rows_of_run(small_run)
    assert len(parsed) == len(rows_of_run(small_run))
    assert sum(int(row["cases"]) for row in parsed) == len(load(small_run).records)
    frontier = [value for row in parsed for name, value in row.items() if "_from" in name]
    assert any(float(value) > 1 for value in frontier if value)


def test_json_is_strict_and_whole(small_run: Path, stability: Stability) -> None:
    """No NaN or Infinity; rows, verdicts and the environment agree with the records."""
    done = stability("table", small_run, "--format", "json")
    said = strict(done.out)
    records = load(small_run).records
    assert said["complete"] is True
    assert said["columns"] == list(COLUMNS)
    assert {len(row["cells"]) for row in said["rows"]} == {len(COLUMNS)}
    counted: dict[str, int] = {}
    for row in said["rows"]:
        for word, count in row["verdicts"].items():
            counted[word] = counted.get(word, 0) + count
    words = [each.verdict.word for each in records]
    assert counted == {word: words.count(word) for word in words}
    assert said["verdicts"].keys() == counted.keys()


def test_markdown_has_a_row_for_each_path_and_dtype(small_run: Path, stability: Stability) -> None:
    """Tables of equal width: one row a path and dtype in each block, no bar in a cell."""
    done = stability("table", small_run, "--format", "markdown")
    lines = [line for line in done.out.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in lines]
    rows = [(path, dtype) for path, dtype in cells if dtype == "fp16"]
    wanted = {key[:4] for key in rows_of_run(small_run)}
    assert len(rows) == len(wanted)
    assert set(rows) == {key[2:] for key in wanted}


def test_problems_and_incompleteness_are_told(
    small_run: Path, tmp_path: Path, stability: Stability
) -> None:
    """A truncated line and a missing end are named under the table, and JSON carries them."""
    lines = (small_run / "records.jsonl").read_text().splitlines()
    (tmp_path / "records.jsonl").write_text("\n".join(lines)[:-20])
    head = json.loads((small_run / "run.json").read_text()) | {"complete": False}
    (tmp_path / "run.json").write_text(json.dumps(head))
    text = stability("table", tmp_path)
    assert text.code == 0
    assert f"records.jsonl line {len(lines)} skipped" in text.out
    assert "not complete" in text.out
    said = strict(stability("table", tmp_path, "--format", "json").out)
    assert said["complete"] is False
    assert len(said["problems"]) == 1


def test_a_regime_that_a_path_does_not_take_hides_nothing() -> None:
    """Folded over regimes, an unsupported one leaves the others' cells; alone it is shown."""
    unsupported = [record(m, Verdict.UNSUPPORTED, "weighted") for m in (1.0, 10.0)]
    measured = [record(m, OK) for m in (1.0, 10.0)]
    (folded,) = table_rows([*unsupported, *measured], by_regime=False)
    assert {cell for cell in folded.cells if cell} == {OK}
    assert not folded.wrong_at_one
    (alone,) = table_rows(unsupported, by_regime=False)
    assert {cell for cell in alone.cells if cell} == {Verdict.UNSUPPORTED}


def test_absent_paths_share_a_line() -> None:
    """A path that is unsupported whole takes no row of the text, and is named below the block."""
    absent = [replace(record(1.0, Verdict.UNSUPPORTED), path="peer")]
    rows = table_rows([record(1.0, OK), *absent], by_regime=False)
    lines = [line.plain for line in block_lines(rows)]
    assert [line for line in lines if "peer" in line] == ["  unsupported here: peer (fp64)"]
    assert any(line.startswith("peer ") for line in map(str, block_lines(rows[-1:])))
