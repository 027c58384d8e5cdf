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
from dataclasses import dataclass
from pathlib import Path

from suites.selftest.conftest import ROOT
from suites.selftest.many_records import write_run

SIZES = (10_000, 100_000, 1_000_000)  # records of each of the two runs that are compared
PAGES = (1_000, 10_000, 100_000)  # records of a report
STARTS = 5
# The toy catalog in fp16: its paths are a few operations on four small rows, so that a case's own
# computation is small and the harness's share is seen. The second range has the cases of the first
# twenty times, in the same items, so that what an item and a process cost cancels.
_TOY = ("--catalog", "suites.selftest.toy", "--dtype", "fp16", "--path", "honest")
RANGES = ("1:1e3:5", "1:1e3:100")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one process: seconds by the wall and of the processor, and the most memory it had."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    out: str


def cost(*command: str | Path) -> Cost:
    """Run a command to its end. Raises CalledProcessError if it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    child = subprocess.Popen(
        [str(each) for each in command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    out = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - begun
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, child.args, out)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Its own children, pytest's workers, are in the difference and not in `used`.
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, used.ru_maxrss / 1024, out)


def python(program: str, *arguments: str | Path) -> Cost:
    return cost(sys.executable, "-c", program, *arguments)


def start_up() -> None:
    """The command's own time until it answers; the best of several, which no neighbour slowed."""
    every = [cost(sys.executable, "-m", "harness", "--help") for _ in range(STARTS)]
    wall, cpu = min(each.wall_s for each in every), min(each.cpu_s for each in every)
    bare = min(cost(sys.executable, "-c", "pass").wall_s for _ in range(STARTS))
    print(f"stability --help: {wall:.3f} s wall, {cpu:.3f} s cpu (bare Python {bare:.3f} s)")


_SWEPT = """
import sys, time
from harness.environment import choose_device
choose_device("cpu")
from harness.catalog import load_catalog
from harness.magnitudes import parse_range
from harness.plan import Filters, plan
from harness.sweep import TruthCache, sweep_item
filters = Filters(dtype=("fp16",), path=("honest",), magnitude=parse_range(sys.argv[1]))
items = plan(load_catalog("suites.selftest.toy"), filters)
begun, truths = time.process_time(), TruthCache()
count = sum(len(sweep_item(i, seed=0, device="cpu", truths=truths, refine=False)) for i in items)
print(count, time.process_time() - begun)
"""


def overhead() -> None:
    """Processor time of a pytest run of some cases, less that of computing and judging them alone,
    by the case: by differences of two sizes, so that start-up and items are not counted.
    """
    counts, swept, run = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for k, within in enumerate(RANGES):
            count, seconds = python(_SWEPT, within).out.split()
            counts.append(int(count))
            swept.append(float(seconds))
            out = Path(folder) / str(k)
            words = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--quick", "--device", "cpu"]
            whole = cost(
                *(sys.executable, "-m", "pytest", "suites/stability", *words, *_TOY),
                *("--magnitude", within, "--out", out),
            )
            recorded = sum(1 for _ in (out / "records.jsonl").open())
            assert recorded == int(count), (recorded, count)
            run.append(whole.cpu_s)
    more = counts[1] - counts[0]
    alone, all_of_it = ((each[1] - each[0]) / more * 1e3 for each in (swept, run))
    print(f"a case: {alone:.3f} ms computed and judged, {all_of_it:.3f} ms in a run, cpu", end="")
    print(f"; overhead {all_of_it - alone:.3f} ms ({counts[0]} and {counts[1]} cases)")


_COMPARED = """
import sys
from harness import load
from harness.compare import compare_runs, to_text
from harness.store import not_collecting
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
    return cost(sys.executable, "-m", "harness", "report", run, "-o", folder / "report.html")


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
    return cost(sys.executable, "-m", "harness", "merge", *parts, "-o", folder / "whole")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=max(SIZES), help="leave out larger runs")
    most = parser.parse_args().most
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    start_up()
    overhead()
    sizes, pages = (tuple(n for n in every if n <= most) for every in (SIZES, PAGES))
    growth("two runs read and compared, one tabled", sizes, compared)
    growth("two shards merged", sizes, merged)
    growth("the page of a run", pages, page)


if __name__ == "__main__":
    main()
