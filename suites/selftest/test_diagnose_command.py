"""`stability diagnose` on scripts that behave and scripts that do not."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from suites.selftest.conftest import ROOT

GOES_BAD = """
    import sys, torch
    import helper
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=5.0)
    x = torch.randn(16, 4) * 30
    y = torch.arange(16) % 3
    for step in range(40):
        p = torch.softmax(layer(x), 1)
        loss = -torch.log(p[torch.arange(16), y]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(step, flush=True)
    print("done", sys.argv[1:])
"""


def run(
    tmp_path: Path, source: str, *options: str, arguments: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Diagnose a script in a directory of its own; the JSON lies beside that directory."""
    place = tmp_path / "user"
    place.mkdir()
    (place / "helper.py").write_text("x = 1\n")
    (place / "train.py").write_text(textwrap.dedent(source))
    return subprocess.run(
        [
            *(sys.executable, "-m", "harness", "diagnose", "--json", str(tmp_path / "found.json")),
            *(*options, "--", "train.py", *arguments),
        ],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def document(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "found.json").read_text())


def test_an_unchanged_script_is_run_once_and_its_nan_named(tmp_path: Path) -> None:
    """Exit code 1; output whole, once; the line; a reproduction that works; nothing left over."""
    done = run(tmp_path, GOES_BAD, "--save", str(tmp_path / "again"), arguments=("--lr", "3"))
    assert done.returncode == 1, done.stderr
    assert done.stdout.split("\n")[:40] == [str(step) for step in range(40)]
    assert done.stdout.endswith("done ['--lr', '3']\n")
    (finding,) = document(tmp_path)["findings"]
    assert (finding["op"], finding["cause"]) == ("aten.log", "log_of_zero")
    assert finding["location"] == "train.py:11"
    assert finding["fixes"][0]["verified"] is True
    assert "log_of_zero" in done.stderr
    again = subprocess.run(
        [sys.executable, finding["reproduction"]], capture_output=True, check=False
    )
    assert again.returncode == 0
    assert sorted(each.name for each in (tmp_path / "user").iterdir()) == ["helper.py", "train.py"]


# What scripts do besides training well: outcome, exit code, what stands on their own output.
@pytest.mark.parametrize(
    ("source", "outcome", "code", "out", "err"),
    [
        (
            "print('hi')\nraise RuntimeError('boom')",
            "script_error",
            3,
            "hi\n",
            "RuntimeError: boom",
        ),
        ("import sys\nprint('early')\nsys.exit(0)", "clean", 0, "early\n", "no training step"),
        ("import sys\nsys.exit('out of luck')", "script_error", 3, "", "out of luck"),
        ("def broken(:", "script_error", 3, "", "SyntaxError"),
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
            "script_error",
            3,
            "",
            "SIGKILL",
        ),
    ],
    ids=["raises", "exits", "exits_with_words", "syntax", "killed"],
)
def test_scripts_that_do_not_train(
    tmp_path: Path, source: str, outcome: str, code: int, out: str, err: str
) -> None:
    """The outcome is clear and the script's own words are whole."""
    done = run(tmp_path, source)
    assert (document(tmp_path)["outcome"], done.returncode) == (outcome, code)
    assert done.stdout == out
    assert err in done.stderr
    assert "harness/diagnosis" not in done.stderr


def test_workers_and_subprocesses_run_as_always(tmp_path: Path) -> None:
    """A DataLoader with a worker process and a subprocess; a sound training is clean."""
    source = """
        import subprocess, sys, torch

        if __name__ == "__main__":
            print(subprocess.run([sys.executable, "-c", "print(7)"], capture_output=True).stdout)
            data = torch.utils.data.TensorDataset(torch.arange(32.0)[:, None] / 32)
            layer = torch.nn.Linear(1, 1)
            optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
            for (x,) in torch.utils.data.DataLoader(data, batch_size=8, num_workers=1):
                optimizer.zero_grad()
                (layer(x) - x).pow(2).mean().backward()
                optimizer.step()
    """
    done = run(tmp_path, source)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{b'7' + os.linesep.encode()}\n"
    assert document(tmp_path)["steps"] == 4


def test_a_loss_that_the_script_refuses_is_still_named(tmp_path: Path) -> None:
    """A script that raises on its own NaN check is diagnosed, not blamed."""
    source = """
        import torch
        layer = torch.nn.Linear(4, 1)
        loss = torch.log(layer(torch.ones(8, 4)) - 100).mean()
        if not torch.isfinite(loss):
            raise FloatingPointError("loss")
    """
    done = run(tmp_path, source)
    assert done.returncode == 1
    assert document(tmp_path)["findings"][0]["op"] == "aten.log"
    assert "FloatingPointError: loss" in done.stderr


def test_no_script_is_bad_input(tmp_path: Path) -> None:
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
