"""What the README shows is what the commands print today."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from harness.store import load

ROOT = Path(__file__).resolve().parents[2]


def test_tables_and_picture_come_from_the_committed_baseline() -> None:
    """docs/regenerate.py would change nothing."""
    done = subprocess.run(
        [sys.executable, "docs/regenerate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_atlas_comes_from_the_committed_baseline() -> None:
    """`stability atlas` would change nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", "atlas", "results/baselines/cpu-interpreter", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_baseline_is_whole_and_the_triton_paths_hold_in_it() -> None:
    """The committed run is complete and readable, and no claimed case in it is broken."""
    run = load(ROOT / "results" / "baselines" / "cpu-interpreter")
    assert run.complete
    assert run.problems == ()
    claimed = [record for record in run.records if record["claimed"]]
    assert len(claimed) > 5000
    assert not [record.id for record in claimed if not record.verdict.is_accurate]
    # The peer's overwriting of its input was seen, on the clone that it was given.
    liger = [record for record in run.records if record.path == "liger"]
    assert any(record.get("overwrites_input") for record in liger)


def test_the_example_prints_what_it_says() -> None:
    """The README's `$ stability frontier ...` is run, and must print the lines below it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```\n\$ stability (.+)\n((?:.+\n)+)```", text)
    assert found
    done = subprocess.run(
        [sys.executable, "-m", "harness", *shlex.split(found[1])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == found[2]
