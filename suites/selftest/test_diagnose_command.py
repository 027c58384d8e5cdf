"""`stability diagnose` on scripts that behave and scripts that do not."""

import os
import subprocess
import sys
from pathlib import Path

from suites.selftest.diagnosed import document, run

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
