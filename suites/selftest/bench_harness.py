"""What the harness itself costs: `python -m suites.selftest.bench_harness [--most N]`.

Start-up of the command; overhead a case, beyond what the case computes; and, for runs of growing
size, reading two of them, comparing and tabling them, and the page of one. Wall time and processor
time both, since a machine may be shared; memory is the highest that each process reached. Every
step runs in a process of its own.
"""

import argparse
import contextlib
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from suites.selftest.conftest import ROOT
from suites.selftest.many_records import write_run

SIZES = (10_000, 100_000, 1_000_000)  # records of each of the two runs that are compared
PAGES = (1_000, 10_000, 100_000)  # records of a report
TRIES = 3  # of which the least counts
# The toy catalog in fp16: its paths are a few operations on four small rows, so that a case's own
# computation is small and the harness's share is seen. The second range has the cases of the first
# two hundred times, in the same items, so that what an item and a process cost cancels.
_TOY = ("--catalog", "suites.selftest.toy", "--dtype", "fp16", "--path", "honest")
RANGES = ("1:1e3:5", "1:1e3:1000")


# What a process says of its own memory as it ends. (What the kernel says of a child begins with the
# memory of the process that started it.)
_PEAK = """
import atexit, os, re
def _tell():
    with open("/proc/self/status") as status, open(os.environ["BENCH_PEAK"], "w") as out:
        out.write(re.search(r"VmHWM:\\s*(\\d+) kB", status.read())[1])
atexit.register(_tell)
"""
_COMMAND = "from harness.cli import main; main()"


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one process: seconds by the wall and of the processor, and the most memory it had."""

    wall_s: float
    cpu_s: float
    peak_mb: float  # 0 where it was not asked
    out: str


def cost(*command: str | Path, **environment: str) -> Cost:
    """Run a command to its end. Raises CalledProcessError if it fails."""
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    words = [str(each) for each in command]
    done = subprocess.run(
        words, cwd=ROOT, env=settings, stdout=subprocess.PIPE, text=True, check=True
    )
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, 0.0, done.stdout)


def python(program: str, *arguments: str | Path) -> Cost:
    """Run a program with its peak of memory."""
    with tempfile.NamedTemporaryFile("r") as told:
        found = cost(sys.executable, "-c", _PEAK + program, *arguments, BENCH_PEAK=told.name)
        return replace(found, peak_mb=int(told.read()) / 1024)


def start_up() -> tuple[float, float]:
    """Seconds until `stability --help` has answered, by the wall and of the processor."""
    every = [cost(sys.executable, "-m", "harness", "--help") for _ in range(TRIES)]
    return min(each.wall_s for each in every), min(each.cpu_s for each in every)


# pytest, with a clock around what computes and judges the cases of an item.
_SWEPT = """
import sys, time
from harness.environment import choose_device
choose_device("cpu")
import harness.sweep
sweep_item, spent = harness.sweep.sweep_item, [0.0]
def timed(*args, **kwargs):
    begun = time.process_time()
    try:
        return sweep_item(*args, **kwargs)
    finally:
        spent[0] += time.process_time() - begun
harness.sweep.sweep_item = timed
import pytest
code = pytest.main(sys.argv[1:])
print("\\n", spent[0], time.process_time() - spent[0])
sys.exit(code)
"""


def overhead() -> tuple[float, float]:
    """Processor time of a case in milliseconds: computed and judged, and all else of a pytest run.

    By differences of two sizes, so that start-up and items are not counted; of several tries the
    least, which no neighbour slowed.
    """
    tries = [[_swept(within) for _ in range(TRIES)] for within in RANGES]
    counts = [every[0][0] for every in tries]
    spent, other = ([min(each[k] for each in every) for every in tries] for k in (1, 2))
    assert min(spent) > 0, "the clock was not around what is measured"
    each = 1e3 / (counts[1] - counts[0])
    return (spent[1] - spent[0]) * each, (other[1] - other[0]) * each


def _swept(within: str) -> tuple[int, float, float]:
    """Cases that `pytest suites/stability` recorded; seconds in them, and in all else."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--quick", "--device", "cpu"]
        found = cost(
            *(sys.executable, "-c", _SWEPT, "suites/stability", *words, *_TOY),
            *("--magnitude", within, "--out", out),
        )
        spent, other = map(float, found.out.split()[-2:])
        return (out / "records.jsonl").read_bytes().count(b"\n"), spent, other


_COMPARED = """
import sys
from harness import load
from harness.compare import compare_runs, to_text
from harness.reading import not_collecting
from harness.table import table_rows
with not_collecting():
    base, new = map(load, sys.argv[1:])
    text = to_text(compare_runs(base, new))
    rows = table_rows(new.records, by_regime=False)
assert len(base.records) == len(new.records) and rows and "worse" in text
"""


def growth(name: str, sizes: tuple[int, ...], measure: Callable[[int, Path], Cost]) -> None:
    """A line a size, with the time a record: linear where it stays the same."""
    print(f"{name}\n  records     wall s    cpu s   cpu us/record   peak MB")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(size, Path(folder))
        each = found.cpu_s / size * 1e6
        print(
            f"{size:>9}  {found.wall_s:>9.2f}  {found.cpu_s:>7.2f}  {each:>14.1f}"
            f"  {found.peak_mb:>8.0f}",
            flush=True,
        )


def compared(size: int, folder: Path) -> Cost:
    runs = [write_run(folder / str(seed), size, seed=seed) for seed in (0, 1)]
    return python(_COMPARED, *runs)


def page(size: int, folder: Path) -> Cost:
    run = write_run(folder / "run", size)
    return python(_COMMAND, "report", run, "-o", folder / "report.html")


def merged(size: int, folder: Path) -> Cost:
    run = write_run(folder / "run", size)
    head = json.loads((run / "run.json").read_text())
    parts = [folder / "part0", folder / "part1"]
    with contextlib.ExitStack() as stack:
        # Line by line: what this process holds would count as its child's memory.
        source = stack.enter_context((run / "records.jsonl").open())
        for k, part in enumerate(parts):
            part.mkdir()
            head["asked"]["shard"] = f"{k + 1}/2"
            (part / "run.json").write_text(json.dumps(head))
        halves = [stack.enter_context((part / "records.jsonl").open("w")) for part in parts]
        for line, half in zip(source, itertools.cycle(halves), strict=False):
            half.write(line)
    return python(_COMMAND, "merge", *parts, "-o", folder / "whole")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=max(SIZES), help="leave out larger runs")
    most = parser.parse_args().most
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    wall, cpu = start_up()
    print(f"stability --help: {wall:.3f} s wall, {cpu:.3f} s cpu")
    computed, other = overhead()
    print(f"a case: {computed:.3f} ms computed and judged, overhead {other:.3f} ms, cpu")
    sizes, pages = (tuple(n for n in every if n <= most) for every in (SIZES, PAGES))
    growth("two runs read and compared, one tabled", sizes, compared)
    growth("two shards merged", sizes, merged)
    growth("the page of a run", pages, page)


if __name__ == "__main__":
    main()
