"""`stability merge`: parts of one run become that run, and nothing else does."""

import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import InputError, load
from harness.merge import merge_runs
from harness.merge_heads import _in_order
from suites.selftest.conftest import Stability, run_pytest
from suites.selftest.many_records import HEAD, plain_records

RECORDS = tuple(
    {key: value for key, value in each.items() if value is not None} for each in plain_records(300)
)
IDS = {str(each["id"]) for each in RECORDS}


def part(directory: Path, records: Sequence[dict[str, Any]], shard: str, **head: Any) -> Path:
    """A run directory that says it is this shard."""
    directory.mkdir(parents=True)
    asked = HEAD["asked"] | {"shard": shard} | head.pop("asked", {})
    (directory / "run.json").write_text(json.dumps(HEAD | {"asked": asked} | head))
    lines = "".join(json.dumps(each) + "\n" for each in records)
    (directory / "records.jsonl").write_text(lines)
    return directory


def shards(tmp_path: Path, count: int, **head: Any) -> list[Path]:
    return [
        part(tmp_path / f"shard{k}", RECORDS[k::count], f"{k + 1}/{count}", **head)
        for k in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_all_shards_make_the_whole_run(tmp_path: Path, stability: Stability, count: int) -> None:
    """Every record once, as it was; complete; one shard in run.json; each part described."""
    parts = shards(tmp_path, count)
    done = stability("merge", *reversed(parts), "-o", tmp_path / "whole")
    assert (done.code, done.err) == (0, "")
    assert "300 cases, complete" in done.out
    run = load(tmp_path / "whole")
    assert run.complete
    assert run.environment["asked"] == HEAD["asked"]
    assert [each["records"] for each in run.environment["parts"]] == [
        len(RECORDS[k::count]) for k in reversed(range(count))
    ]
    lines = [json.loads(e) for e in (tmp_path / "whole" / "records.jsonl").read_text().splitlines()]
    assert sorted(lines, key=lambda each: each["id"]) == sorted(RECORDS, key=lambda e: e["id"])


def test_records_say_where_they_come_from_if_places_differ(tmp_path: Path) -> None:
    """Node and device of each record, and of each part, where the parts had several."""
    device = HEAD["device"]
    parts = [
        part(tmp_path / "a", RECORDS[:100], "1/2", node="n1", device=device | {"uuid": "GPU-1"}),
        part(tmp_path / "b", RECORDS[100:], "2/2", node="n2", device=device | {"uuid": "GPU-2"}),
    ]
    merge_runs(parts, tmp_path / "whole")
    run = load(tmp_path / "whole")
    places = [(each["node"], each["device"]) for each in run.records]
    assert places == [("n1", "GPU-1")] * 100 + [("n2", "GPU-2")] * 200
    assert [each["node"] for each in run.environment["parts"]] == ["n1", "n2"]
    assert "uuid" not in run.environment["device"]
    assert run.environment["device"]["name"] == device["name"]


Spoil = Callable[[Path], Sequence[Path]]


def two(tmp_path: Path, first: dict[str, Any], second: dict[str, Any]) -> list[Path]:
    return [
        part(tmp_path / "a", RECORDS[:100], "1/2", **first),
        part(tmp_path / "b", RECORDS[100:], "2/2", **second),
    ]


def damaged(tmp_path: Path) -> list[Path]:
    parts = shards(tmp_path, 2)
    path = parts[1] / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    return parts


CUDA = {"kind": "cuda", "name": "nvidia-h100", "model": "H100 SXM"}

# What cannot be merged, and what the error says: each fact that makes records incomparable, each
# way to have too little or too much.
REFUSED: dict[str, tuple[Spoil, str]] = {
    "seed": (lambda t: two(t, {}, {"seed": 1}), "seed is 0 in the first and 1 in the second"),
    "catalog": (lambda t: two(t, {}, {"asked": {"catalog": "other"}}), "catalog is made.up"),
    "commit": (lambda t: two(t, {}, {"git": {"commit": "1" * 40}}), "commit is 0000"),
    "device": (lambda t: two(t, {}, {"device": CUDA}), "device is cpu-interpreter"),
    "model": (
        lambda t: two(t, {"device": CUDA}, {"device": CUDA | {"model": "H100 PCIe"}}),
        "device model is H100 SXM in the first and H100 PCIe",
    ),
    "version": (lambda t: two(t, {}, {"versions": {"torch": "9.8"}}), "version of torch is 9.9"),
    "switch": (
        lambda t: two(t, {}, {"switches": {"allow_tf32_matmul": True}}),
        "switch allow_tf32_matmul is not said in the first and True",
    ),
    "quick": (lambda t: two(t, {}, {"asked": {"quick": True}}), "asked quick is not said"),
    "missing": (lambda t: shards(t, 4)[:2], r"shards 3, 4 of 4 are missing.*--partial"),
    "twice": (lambda t: [*shards(t, 2), t / "shard0"], "both shard 1/2; give each once"),
    "counts": (
        lambda t: [part(t / "a", RECORDS, "1/2"), part(t / "b", RECORDS, "2/3")],
        "is a shard of 2 and .* one of 3",
    ),
    "overlap": (
        lambda t: [part(t / "a", RECORDS[:9], "1/2"), part(t / "b", RECORDS[8:], "2/2")],
        "both measured op0/naive/fp16/regime0@",
    ),
    "axes": (
        lambda t: [
            part(t / "a", RECORDS[:9], "1/1", asked={"dtype": ["fp16"], "path": ["naive"]}),
            part(t / "b", RECORDS[9:], "1/1", asked={"dtype": ["bf16"], "path": ["torch"]}),
        ],
        "asked for different path and dtype; merge along one axis",
    ),
    "unfinished": (lambda t: two(t, {}, {"complete": False}), "b is not complete; go on with"),
    "damaged": (damaged, r"shard1 is damaged \(records.jsonl line 150 skipped"),
    "shard": (lambda t: [part(t / "a", RECORDS, "0/0")], "malformed shard '0/0'"),
    "no run": (lambda t: [t / "nowhere"], "no run at"),
    "huge": (lambda t: [part(t / "a", RECORDS, "1/999999999")], "and 999999998|shards 2, 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_one_run_is_refused_and_nothing_written(
    tmp_path: Path, stability: Stability, name: str
) -> None:
    """One sentence that names the two and the difference; exit code 4; no directory, no draft."""
    spoil, says = REFUSED[name]
    parts = spoil(tmp_path)
    before = sorted(tmp_path.iterdir())
    out = tmp_path / "new" / "whole"
    with pytest.raises(InputError, match=says):
        merge_runs(parts, out)
    done = stability("merge", *parts, "-o", out)
    assert done.code == 4
    assert done.err.count("\n") == 1
    left = [each for each in tmp_path.rglob("*") if each.is_relative_to(tmp_path / "new")]
    assert not [each for each in left if each.is_file()]
    assert sorted(each for each in tmp_path.iterdir() if each.name != "new") == before


@pytest.mark.parametrize("name", ["missing", "unfinished", "damaged"])
def test_partial_takes_what_is_there_and_says_so(
    tmp_path: Path, stability: Stability, name: str
) -> None:
    """Not complete, exit code 3, why, and how to complete it; what is there is readable."""
    parts = REFUSED[name][0](tmp_path)
    done = stability("merge", *parts, "-o", tmp_path / "whole", "--partial")
    assert done.code == 3
    assert "not complete" in done.err
    assert f"stability run --resume --out {tmp_path / 'whole'}" in done.err
    run = load(tmp_path / "whole")
    assert not run.complete
    assert run.problems == ()
    expected = {"missing": 150, "unfinished": 300, "damaged": 299}[name]
    assert len({each.id for each in run.records}) == len(run.records) == expected


def test_a_matrix_over_one_axis_is_one_run(tmp_path: Path) -> None:
    """Runs that were asked for different dtypes were together asked for all of them."""
    by_dtype = {
        dtype: [each for each in RECORDS if each["dtype"] == dtype] for dtype in ("fp16", "bf16")
    }
    whole = merge_runs(
        [
            part(tmp_path / dtype, records, "1/1", asked={"dtype": [dtype]})
            for dtype, records in by_dtype.items()
        ],
        tmp_path / "whole",
    )
    assert whole.complete
    assert load(tmp_path / "whole").environment["asked"]["dtype"] == ["fp16", "bf16"]


def test_of_a_case_that_a_part_measured_again_the_later_counts(tmp_path: Path) -> None:
    """As for every reader of the part; the merged file holds it once."""
    again = RECORDS[0] | {"verdict": "crash"}
    first = part(tmp_path / "a", [*RECORDS[:100], again], "1/2")
    merged = merge_runs([first, part(tmp_path / "b", RECORDS[100:], "2/2")], tmp_path / "whole")
    assert merged.records == 300
    lines = (tmp_path / "whole" / "records.jsonl").read_text().splitlines()
    assert len(lines) == 300
    (kept,) = [each for each in map(json.loads, lines) if each["id"] == again["id"]]
    assert kept["verdict"] == "crash"


def test_an_existing_run_is_not_overwritten(tmp_path: Path) -> None:
    """Nor a folder with something else in it; an empty one is taken."""
    parts = shards(tmp_path, 2)
    with pytest.raises(InputError, match="already holds a run"):
        merge_runs(parts, parts[0])
    with pytest.raises(InputError, match="is not empty"):
        merge_runs(parts, tmp_path)
    (tmp_path / "empty").mkdir()
    assert merge_runs(parts, tmp_path / "empty").complete


@given(st.permutations("abcdef").flatmap(
    lambda order: st.tuples(
        st.just(order),
        st.lists(st.sets(st.sampled_from("abcdef"), min_size=1), min_size=1, max_size=5),
    )
))  # fmt: skip
def test_the_order_of_names_agrees_with_every_part(drawn: tuple[list[str], list[set[str]]]) -> None:
    """However the names of a catalog are spread over shards, none sees two of them swapped."""
    order, kept = drawn
    lists = [[name for name in order if name in names] for names in kept]
    merged = _in_order(lists)
    assert sorted(merged) == sorted({name for names in kept for name in names})
    for names in lists:
        assert [name for name in merged if name in names] == names


def test_names_in_contradicting_orders_are_all_kept() -> None:
    """Two catalogs that disagree cost an order, not a name."""
    assert sorted(_in_order([["a", "b"], ["b", "a"]])) == ["a", "b"]


def measured(directory: Path) -> dict[str, dict[str, Any]]:
    """The records by id, without what a clock said and where they were measured."""
    plain = (each.to_dict() for each in load(directory).records)
    return {
        each["id"]: {k: v for k, v in each.items() if k not in ("seconds", "node", "device")}
        for each in plain
    }


BACKWARDS = """
def pytest_collection_modifyitems(items):
    items.reverse()
"""

# Three ways to make the same run: in parts, in two processes that steal from each other, backwards.
WAYS: dict[str, list[list[str]]] = {
    "shards": [["--shard", "2/2"], ["--shard", "1/2"]],
    "workers": [["-n", "2", "--dist", "worksteal"]],
    "backwards": [["-p", "backwards"]],
}


@pytest.mark.full  # four runs of the toy catalog: half a minute
@pytest.mark.parametrize("way", WAYS)
def test_the_same_seed_gives_the_same_records(
    tmp_path: Path, toy_run: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Whatever the shards, the order and the number of workers: apart from times, every field of
    every record, the frontiers' bisections included.
    """
    (tmp_path / "backwards.py").write_text(BACKWARDS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    parts = [tmp_path / f"part{k}" for k in range(len(WAYS[way]))]
    for directory, options in zip(parts, WAYS[way], strict=True):
        done = run_pytest("--out", directory, *options)
        assert done.code == 0, done.out
    merged = merge_runs(parts, tmp_path / "whole")
    assert merged.complete
    assert measured(tmp_path / "whole") == measured(toy_run)
    if way == "backwards":
        orders = [[each.id for each in load(run).records] for run in (tmp_path / "whole", toy_run)]
        assert orders[0] != orders[1]  # it was indeed another order
    one, other = (load(each).environment for each in (tmp_path / "whole", toy_run))
    for name in ("seed", "versions", "switches", "git", "packages"):
        assert one[name] == other[name]
    assert {k: sorted(v) for k, v in one["catalog"].items()} == {
        k: sorted(v) for k, v in other["catalog"].items()
    }


def test_memory_does_not_grow_with_the_records(tmp_path: Path) -> None:
    """Four thousand records more cost less than 300 kB; held, they would cost two megabytes."""
    peaks = []
    for count in (1_000, 5_000):
        whole = part(tmp_path / f"{count}", list(plain_records(count)), "1/1")
        tracemalloc.start()
        merge_runs([whole], tmp_path / f"merged{count}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 300_000, peaks
