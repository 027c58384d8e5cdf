"""The speed table of a run on a GPU, made up: its numbers, its notes, its width."""

from pathlib import Path
from typing import Any

import pytest

from harness.record import Record
from harness.render_speed import duration, text_lines
from harness.render_speed_data import speed_csv, speed_json, speed_markdown
from harness.speed_table import speed_rows
from harness.store import Run
from harness.verdict import Verdict


def record(path: str, seconds: float | None, **more: Any) -> Record:
    """A record of one path; its ratios are given."""
    regime, magnitude = more.pop("regime", "normal"), more.pop("magnitude", 1.0)
    verdict = more.pop("verdict", Verdict.OK)
    data: dict[str, Any] = {
        "regime": regime,
        "magnitude": magnitude,
        "shape": [8192, 128_256],
        "pass": "both",
        "options": {"timer": "cuda"},
        "claimed": path == "triton",
        "timer": "cuda",
        **more,
    }
    if seconds is not None:
        data |= {
            "median_seconds": seconds,
            "low_seconds": 0.99 * seconds,
            "high_seconds": 1.01 * seconds,
            "gigabytes_per_second": 4.0 / seconds,
            "share_of_copy": 1e-3 / seconds,
            "peak_bytes": 2_100_000_000,
        }
    name = f"cross_entropy/{path}/bf16/{regime}@{magnitude:g}/8192x128256/both/timer=cuda"
    return Record(name, "speed", "cross_entropy", path, "bf16", verdict, data)


def run_of(*records: Record, **environment: Any) -> Run:
    return Run(Path("run"), {"complete": True, "seed": 0, **environment}, records)


NAIVE = record("naive", 0.012, verdict=Verdict.NAN, ratios={"triton": 10.0, "liger": 6.0})
OURS = record(
    "triton",
    0.0012,
    ratios={"naive": 0.1, "liger": 0.6},
    price_of_safety=0.1,
    rounds={"sm_mhz": [1980, 1755, 1980], "throttle": ["", "power_cap", "idle"]},
    repeated_rounds=2,
)
LIGER = record("liger", 0.002, ratios={"naive": 1 / 6, "triton": 1.67}, price_of_safety=1 / 6)
ABSENT = record("quack", None, verdict=Verdict.UNSUPPORTED, reason="quack-kernels is not installed")
PEAK = record("triton", 0.0013, regime="peak", magnitude=9984.0, rounds={"sm_mhz": [1500]})
RUN = run_of(NAIVE, OURS, LIGER, ABSENT, PEAK)


def test_rows_hold_the_record_s_numbers_and_quotients() -> None:
    """Each path against the naive one and against ours, in time: below 1 is faster."""
    rows = {row.path: row for row in speed_rows(RUN.records) if row.regime == "normal@1"}
    assert (rows["naive"].over("naive"), rows["naive"].over("triton")) == (1.0, 10.0)
    assert (rows["triton"].over("naive"), rows["triton"].over("triton")) == (0.1, 1.0)
    assert rows["quack"].over("naive") is None
    assert rows["triton"].sm_mhz == 1980
    assert rows["triton"].throttled == ("power_cap",)


def test_text_says_all_of_it_in_80_columns() -> None:
    """Time, rate, share, memory, quotients, verdict; price; other inputs, their clock; notes."""
    lines = list(text_lines(RUN))
    text = " ".join("\n".join(lines).split())
    assert max(map(len, lines)) <= 80
    ours = next(line for line in lines if line.startswith("triton "))
    assert ours.split()[1:] == ["1.20", "ms", "1.0%", "3333", "83%", "2.10", "0.10", "1.00", "."]
    assert "GPU time (CUDA events)" in text
    assert "naive 10.00" not in text
    assert "triton 0.10, liger 0.17" in text
    assert "peak@9984: triton 1.08 (1500 MHz)" in text
    assert "not measured: quack (unsupported): quack-kernels is not installed" in text
    assert "power_cap; 2 throttled rounds were repeated" in text
    assert "N nan:" in text
    assert "CPU" not in text


def test_other_forms_have_the_same_numbers() -> None:
    """CSV and JSON as written, Markdown with every path and its verdict."""
    header, *lines = speed_csv(RUN).splitlines()
    cells = dict(zip(header.split(","), lines[1].split(","), strict=True))
    assert (cells["path"], cells["price_of_safety"], cells["ours"]) == ("triton", "0.1", "triton")
    assert cells["median_seconds"] == "0.0012"
    rows = speed_json(RUN)
    assert rows[0]["ratios"] == {"triton": 10.0, "liger": 6.0}
    assert [row["over_ours"] for row in rows[:3]] == [10.0, 1.0, 1.67]
    markdown = speed_markdown(RUN)
    assert "| triton | 1.20 ms | 1.0% |" in markdown
    assert "| quack | - |" in markdown
    assert "unsupported: quack-kernels is not installed" in markdown


def test_an_incomplete_run_says_how_to_go_on() -> None:
    """The command stands in the last line."""
    assert "stability run --resume --out run" in list(text_lines(run_of(OURS, complete=False)))[-1]


def test_a_path_that_waits_for_the_device_is_named() -> None:
    """Its time is its users' time, but not its kernels'."""
    waiting = record("apex", 0.002, waits_for_host=True)
    assert any("wait for the device" in line for line in text_lines(run_of(waiting)))


# Values that no suite writes: a file may come from anybody.
@pytest.mark.parametrize("bad", ["text", [], {}, True, None])
def test_a_damaged_record_does_no_harm(bad: Any) -> None:
    """What is no number is absent; control characters of a file reach no terminal."""
    names = ("median_seconds", "ratios", "rounds", "shape", "price_of_safety", "peak_bytes")
    hostile = record("tri\x1b[31mton", 0.1, reason="a|b\x07", **dict.fromkeys(names[1:5], bad))
    run = run_of(hostile, record("other", None, median_seconds=bad, verdict=Verdict.ERROR))
    for text in (*text_lines(run), speed_markdown(run)):
        assert "\x1b" not in text
        assert "\x07" not in text
    assert "a¦b?" in speed_markdown(run)
    speed_csv(run)
    speed_json(run)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(1.5, "1.50 s"), (0.0999, "99.9 ms"), (0.25, "250 ms"), (1e-3, "1.00 ms"), (4e-6, "4.00 us")],
)
def test_durations_have_three_digits(seconds: float, told: str) -> None:
    """Each in the unit that suits it."""
    assert duration(seconds) == told
