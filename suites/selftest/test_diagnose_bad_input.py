"""`stability diagnose` on scripts that do not train, or do not end: outcome, exit code, output."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from suites.selftest.conftest import ROOT
from suites.selftest.diagnosed import document, run, started

TRAINS = """
    import torch
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    for step in range(5):
        optimizer.zero_grad()
        layer(torch.ones(4, 2)).pow(2).mean().backward()
        optimizer.step()
        print("step", step, flush=True)
"""
NEEDS_ARGUMENTS = """
    import argparse
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", required=True)
    print(parser.parse_args().lr)
"""
KILLS_ITSELF = "import os, signal\nprint('hi', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
IN_ANOTHER_PROCESS = """
    import subprocess, sys
    print(subprocess.run([sys.executable, "-c", "print(7)"], capture_output=True, text=True).stdout)
"""
slow = pytest.mark.full  # each costs the import of torch


# What a script does, the outcome, the exit code, its own output, and what the report says of it.
@pytest.mark.parametrize(
    ("source", "outcome", "code", "out", "err"),
    [
        pytest.param(
            "print('hi')\nraise RuntimeError('boom')",
            *("script_error", 3, "hi\n", "RuntimeError: boom"),
            id="raises",
        ),
        pytest.param("def broken(:", "script_error", 3, "", "SyntaxError", id="syntax"),
        pytest.param(
            "import sys\nprint('early')\nsys.exit(0)",
            *("clean", 0, "early\n", "no training step"),
            id="exits_early",
        ),
        pytest.param(KILLS_ITSELF, "script_error", 3, "hi\n", "SIGKILL", id="killed"),
        pytest.param(
            "import sys\nsys.exit('out of luck')",
            *("script_error", 3, "", "out of luck"),
            id="exits_with_words",
            marks=slow,
        ),
        pytest.param(
            NEEDS_ARGUMENTS,
            *("script_error", 3, "", "the following arguments are required: --lr"),
            id="needs_arguments",
            marks=slow,
        ),
        pytest.param("print('no loop')", "clean", 0, "no loop\n", "nothing was", id="no_training"),
        pytest.param(
            TRAINS,
            *("clean", 0, "".join(f"step {step}\n" for step in range(5)), "5 steps"),
            id="never_goes_bad",
            marks=slow,
        ),
        pytest.param(
            IN_ANOTHER_PROCESS,
            *("clean", 0, "7\n\n", "in processes the script starts is not watched"),
            id="subprocess",
            marks=slow,
        ),
        pytest.param(
            "import os\nos._exit(0)",
            *("script_error", 3, "", "ended with exit code 0 before it could be judged"),
            id="leaves_at_once",
            marks=slow,
        ),
    ],
)
def test_scripts_that_do_not_train(
    tmp_path: Path, source: str, outcome: str, code: int, out: str, err: str
) -> None:
    """The outcome is clear and the script's own words are whole; nothing of ours is in them."""
    done = run(tmp_path, source)
    assert (document(tmp_path)["outcome"], done.returncode) == (outcome, code)
    assert done.stdout == out
    assert err in done.stderr
    assert "harness/diagnosis" not in done.stderr


def test_arguments_reach_the_script(tmp_path: Path) -> None:
    """Options after the script's name are the script's, even those that the command has too."""
    done = run(tmp_path, "import sys\nprint(sys.argv)", arguments=("--json", "x", "--lr=3"))
    assert done.stdout == "['train.py', '--json', 'x', '--lr=3']\n"


def test_who_ends_the_command_ends_the_script(tmp_path: Path) -> None:
    """SIGTERM, as from a batch system: the script ends, too, and the answer says how."""
    process = started(tmp_path, "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(100)")
    assert process.stdout is not None
    script = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "killed by SIGTERM" in err
    assert document(tmp_path)["outcome"] == "script_error"
    assert not Path(f"/proc/{script}").exists()


def test_no_script_is_bad_input() -> None:
    """Exit code 4 and one sentence."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", "diagnose", "--", "nowhere.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert done.stderr.startswith("stability: no script at nowhere.py")


RANKS = """
    import torch, torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(8):
        z = model(torch.randn(8, 4))
        if rank == 1 and step == 5:
            z = z * 0
        loss = torch.sqrt(z.pow(2).sum())  # HERE
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    dist.barrier()
    dist.destroy_process_group()
"""


@pytest.mark.full
def test_each_rank_is_a_script_of_its_own(tmp_path: Path) -> None:
    """Two processes over gloo: the rank at fault names its line, the other points to it."""
    (tmp_path / "train.py").write_text(textwrap.dedent(RANKS))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"),
            *("--master_port", "0", "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"),
            *("-m", "harness", "diagnose", "--json", "found.json", "--", "train.py"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert "rank 1 of 2: train.py:13: aten.sqrt gives infinity in backward" in done.stderr, (
        done.stderr
    )
    assert "c10d.allreduce_ gives NaN in backward at step 5" in done.stderr, done.stderr
    assert "It began on another rank" in " ".join(done.stderr.split())
    (guilty,) = json.loads((tmp_path / "found.rank1.json").read_text())["findings"]
    assert guilty["location"] == "train.py:13"
