"""What the self-tests share: the command in this process, and one small real run."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from harness import cli

ROOT = Path(__file__).resolve().parents[2]

# The same examples in every run, so that a failure is found again; no deadline, since machines that
# run tests are shared and a pause is no defect.
settings.register_profile("selftest", derandomize=True, deadline=None)
settings.load_profile("selftest")


@dataclass(frozen=True)
class Done:
    """A command line that has ended."""

    code: int
    out: str
    err: str


Stability = Callable[..., Done]


@pytest.fixture
def stability(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Stability:
    """`stability ARGUMENTS...` in this process; what children print is captured, too."""

    def call(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["stability", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return call


# Two operations, a path that breaks and one that holds, both passes: every part of a table has
# something to show. fp16 and five decades keep it at a second.
SMALL = (
    *("--operation", "cross_entropy", "--operation", "normalize", "--dtype", "fp16"),
    *("--path", "naive", "--path", "torch", "--regime", "peak", "--regime", "constant"),
    *("--magnitude", "1e-2:1e4:1"),
)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small run, made as a user makes it: by `python -m harness run`."""
    out = tmp_path_factory.mktemp("runs") / "small"
    done = subprocess.run(
        [sys.executable, "-m", "harness", "run", *SMALL, "--jobs", "1", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return out
