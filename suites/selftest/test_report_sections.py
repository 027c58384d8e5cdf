"""The report's further sections: training, speed, static table, several runs, environment."""

import json
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.report import build_page
from harness.report.static import read_inspection
from harness.verdict import Verdict
from suites.selftest.markup import Node, read, table_after
from suites.selftest.synthetic import case, run_of, sweep, timed, timings, trained, trainings
from suites.selftest.test_training_analysis import clocked
from suites.selftest.test_training_norms import normed


def section(page: str, name: str) -> Node:
    (found,) = read(page).all("section", id=name)
    return found


def test_what_was_not_measured_says_so() -> None:
    """A sweep alone: no training, no speed, and no number that could be taken for one."""
    page = build_page([run_of(*sweep())])
    assert "Not measured: this run has no records of the training" in section(page, "training").text
    assert "Not measured on a GPU" in section(page, "speed").text
    assert "Not measured. This run has no CUDA timings" in section(page, "summary").text
    assert not list(section(page, "speed").all("table"))


def test_advice_is_the_last_rate_at_which_all_seeds_learnt() -> None:
    """naive learns to 0.1 and is NaN at 1, at step 50 in the middle; triton to 1, and diverges."""
    page = build_page([run_of(*trainings())])
    head, *rows = table_after(read(page), "training")
    assert [cell.rstrip(" ↕") for cell in head][1:4] == [
        *("path", "highest stable rate", "first that fails")
    ]
    axes = "digits_mlp · cross_entropy · fp16 · sgd · constant · none · kaiming · 200 steps"
    assert rows == [
        [axes, "naive", "0.1", "1", "× nan", "50", "0.1", "0.4"],
        [axes, "triton", "1", "10", "× diverged", "–", "1", "0.1"],
    ]
    (chart,) = section(page, "training").all("figure")
    assert {"naive", "triton", "learning rate", "0.01", "10"} <= {t.text for t in chart.all("text")}


def test_what_the_trainings_found() -> None:
    """Slope with its interval, the operation that broke, both costs step by step until it did."""
    page = read(build_page([run_of(*clocked())]))
    (table,) = page.all("table", id="slopesA")
    rows = [[cell.text for cell in row.all("td")] for row in table.all("tr")][1:]
    assert rows[0][1:4] == ["-0.93", "-0.96 to -0.90", "clock"]
    assert rows[0][-1] == "6: forward, aten.log in cost: log_of_zero"
    assert rows[1][3] == "never bad"
    text = " ".join(page.text.split())
    assert "6 runs of a naive cost that broke" in text
    (figure,) = [each for each in page.all("figure") if "goes on" in each.text]
    cells = [[cell.text for cell in row.all("td")] for row in figure.all("tr")]
    assert ["4", "0.4", "0.4", "0.0e+00"] in cells


def test_norms_that_the_trainings_measured() -> None:
    """Spread, drift and the growth of the norm's time, from the records alone."""
    text = " ".join(read(build_page([run_of(*normed())])).text.split())
    assert "0.50 [0.08, 3.12]" in text
    assert "grows as n^2.0 for exact norms and as n^0.0 for inferred ones" in text
    assert "2.0e-03" in text


def test_one_bad_seed_makes_a_rate_unstable() -> None:
    """Stable means every seed; a rate above one that fails is not advised either."""
    luck = [
        trained("naive", 0.1, 0, final_loss=0.5),
        trained("naive", 0.1, 1, first_bad_step=7),
        trained("naive", 1.0, 0, final_loss=0.2),
        trained("naive", 0.01, 0, final_loss=1.0),
    ]
    _, row = table_after(read(build_page([run_of(*luck)])), "training")
    assert row[2:6] == ["0.01", "0.1", "× nan", "7"]


def test_a_rate_too_small_to_learn_is_not_unstable() -> None:
    """Ending about where it began is stable; ending clearly higher is not."""
    slow = trained("naive", 1e-4, 0, final_loss=2.31)
    page = build_page([run_of(slow, trained("naive", 1e-3, 0, final_loss=2.9))])
    assert table_after(read(page), "training")[1][2:5] == ["0.0001", "0.001", "× diverged"]


def test_more_charts_than_a_page_holds_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts beyond the limit are told, and their curves stand in the table all the same."""
    monkeypatch.setattr("harness.report.training.MOST_CHARTS", 1)
    more = [trained("naive", 0.1, 0, final_loss=0.5, optimizer=name) for name in ("sgd", "adam")]
    page = build_page([run_of(*more)])
    assert "1 chart left out here" in section(page, "training").text
    assert len(list(section(page, "training").all("svg"))) == 1
    assert len(table_after(read(page), "training")) == 3


def test_speed_rows_show_the_records_numbers() -> None:
    """Time, interval, bandwidth, share of the copy, memory, clocks, ratios: as recorded."""
    page = build_page([run_of(*timings())])
    head, _, ours = table_after(read(page), "speed")
    told = dict(zip(head, ours, strict=True))
    assert told["time"] == "2 ms"
    assert told["95% interval"] == "1.98 ms – 2.02 ms"
    assert (told["GB/s"], told["of copy"], told["peak"]) == ("2000", "88%", "3 MiB")
    assert (told["MHz"], told["÷ naive"], told["÷ others"]) == ("1700–1755", "0.40×", "naive 0.40×")
    assert told["answer"] == ". ok"
    assert "Not measured on a GPU" not in section(page, "speed").text
    price = table_after(read(page), "summary")[1]
    assert price == ["toy triton", "bf16", "0.40×", "0.40 – 0.40"]


def test_a_cpus_time_is_marked_and_is_no_price_of_safety() -> None:
    """CPU timings stand in a table of their own, named so; the price stays unmeasured."""
    page = build_page([run_of(*timings("cpu"))])
    speed = section(page, "speed")
    assert "Not measured on a GPU" in speed.text
    assert "CPU time of PyTorch's own kernels; not a GPU's" in speed.text
    (table,) = speed.all("table")
    assert "timer-cpu" in table.attributes["class"]
    assert "Not measured. This run has no CUDA" in section(page, "summary").text


def test_what_was_not_timed_has_its_reason() -> None:
    """A path under the interpreter has no time, and the page says why."""
    reason = "not measured: the interpreter's time is no GPU's"
    untimed = timed("triton", 1.0, timer="cpu", median_seconds=None, reason=reason)
    assert f"1 case: {reason}" in section(build_page([run_of(untimed)]), "speed").text


def test_many_timings_are_folded_to_the_largest_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a path keeps its largest shape, and the others are counted."""
    monkeypatch.setattr("harness.report.speed.MOST_ROWS", 2)
    shapes = [[16, 32], [1024, 4096], [64, 64]]
    found = [timed("naive", 0.001 * k, shape=shape) for k, shape in enumerate(shapes, start=1)]
    page = build_page([run_of(*(_renamed(each, k) for k, each in enumerate(found)))])
    _, row = table_after(read(page), "speed")
    assert "1024×4096" in row
    assert "2 more measurements" in section(page, "speed").text


def test_prices_beyond_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No price is dropped without a word."""
    monkeypatch.setattr("harness.report.summary.MOST_PRICES", 18)
    more = {"claimed": True, "price_of_safety": 0.5}
    found = [timed(f"ours_{k:02}", 0.001, **more) for k in range(20)]
    part = section(build_page([run_of(*found)]), "speed")
    assert "2 prices left out here" in part.text
    assert "ours_17" in next(iter(part.all("table"))).text
    assert "ours_18" not in next(iter(part.all("table"))).text


def _renamed(record: object, k: int) -> object:
    from dataclasses import replace

    return replace(record, id=f"{record.id}/{k}")  # type: ignore[type-var, attr-defined]


def test_runs_stand_side_by_side() -> None:
    """Two devices: letters with labels, a row of each run, what differs marked and counted."""
    first = run_of(*sweep())
    better = [case(Verdict.OK, m) for m in (0.1, 1.0, 10.0, 100.0, 1000.0)]
    worse = case(Verdict.NAN, 10.0, regime="peak")
    second = run_of(*better, worse, device={"name": "B200"}, name="second")
    page = build_page([first, second])
    document = read(page)
    (labels,) = document.all("ul", class_="runs")
    assert "A H100, torch 9.9, triton 3.9" in labels.text
    assert "B B200, torch 9.9, triton 3.9" in labels.text
    rows = list(document.all("tr", data_p="naive", class_="f"))
    lines = [row for row in rows if "data-k" in row.attributes]
    assert [row.attributes["data-k"][-1] for row in lines] == ["A", "B"]
    assert all(row.attributes.get("data-differs") == "1" for row in lines)
    # In both: five magnitudes of normal and one of peak; 100 and 1000 got better, peak@10 worse.
    assert table_after(document, "summary", 1)[1] == ["B", "6", "1", "2", "0", "4"]
    assert "toy/naive/fp16/peak@10/4x64/forward: nan" in section(page, "summary").text
    fields = {row[0]: row[1:] for row in table_after(document, "environment")}
    assert fields["≠ device.name"] == ["H100", "B200"]
    assert fields["seed"] == ["0", "0"]


def test_runs_of_one_device_are_told_apart() -> None:
    """Labels that would be alike carry when and where; too many runs are refused."""
    run = run_of(*sweep())
    (labels,) = read(build_page([run, run_of(*sweep(), name="second")])).all("ul", class_="runs")
    assert "2026-01-02 03:04, first" in labels.text
    assert "2026-01-02 03:04, second" in labels.text
    with pytest.raises(InputError, match="1 to 8 runs"):
        build_page([run] * 9)


def test_an_unfinished_run_says_so() -> None:
    """Incomplete runs and unreadable lines are told at the top."""
    page = build_page([run_of(*sweep(), complete=False)])
    assert "not complete" in next(iter(read(page).all("ul", class_="runs"))).text


INSPECTION = {
    "schema": 1,
    "versions": {"torch": "9.9", "triton": "3.9"},
    "kernels": [
        {
            "case": {
                **{"operation": "toy", "path": "triton", "dtype": "bf16"},
                **{"rows": 16, "columns": 4096},
            },
            **{"pass": "forward", "kernel": "_k", "target": "cuda:90", "warps": 4},
            **{"registers": 40, "spilled_bytes": 0, "shared_bytes": 1024},
            **{"loads": {"16": 3, "2": 1}, "stores": {"4": 1}},
            "per_element": {"special": 0.5, "fp32": 12.0, "fp64": 0.0, "instructions": 30.25},
        }
    ],
    "traffic": [
        {
            "case": {
                **{"operation": "toy", "path": "triton", "dtype": "bf16"},
                **{"rows": 16, "columns": 4096},
            },
            **{"pass": "forward", "ratio": 1.25, "moved_bytes": 2560, "least_bytes": 2048},
        }
    ],
    "failures": [],
}


def test_the_static_table_stands_in_and_says_what_it_is(tmp_path: Path) -> None:
    """Registers, widths and bytes of an inspection are shown, never as a time."""
    file = tmp_path / "inspection.json"
    file.write_text(json.dumps(INSPECTION))
    page = build_page([run_of(*sweep())], inspection=read_inspection(file))
    traffic, kernels = (table_after(read(page), "speed", k)[1] for k in (0, 1))
    where = ["toy", "triton", "bf16", "16×4096", "forward"]
    assert traffic == [*where, "1.25", "2.5 KiB", "2 KiB"]
    numbers = ["4", "40", "0", "1024", "16", "4", "0.5", "12", "0", "30.2"]
    assert kernels == [*where, "_k", "cuda:90", *numbers]
    assert "No time is in it." in section(page, "speed").text
    assert "Not measured on a GPU" in section(page, "speed").text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kernels": [1]}', "\x00", '{"versions": {}}'])
def test_a_file_that_is_no_inspection_is_refused(text: str, tmp_path: Path) -> None:
    """Whatever it holds, the sentence names the file and what should be in it."""
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"other\.json .*stability inspect --json|cannot read"):
        read_inspection(file)
