"""What the self-tests share: the command in this process, and two small real runs."""

import os
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

# The toy catalog on either side of where its fragile path breaks, in the cheapest format and in the
# one whose truth is certified.
TOY = (
    *("--catalog", "suites.selftest.toy", "--dtype", "fp16", "--dtype", "fp64"),
    *("--magnitude", "1:1e4:1"),
)


def run_pytest(*arguments: str | Path) -> Done:
    """`pytest suites/stability` on the toy catalog, in a process of its own."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "suites/stability", "-q", "-p", "no:cacheprovider"),
            *TOY,
            *map(str, arguments),
        ],
        cwd=ROOT,
        # What somebody set for the outer pytest is not meant for the inner one.
        env={key: os.environ[key] for key in os.environ if not key.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy catalog, swept by plain pytest."""
    out = tmp_path_factory.mktemp("runs") / "toy"
    done = run_pytest("--out", out)
    assert done.code == 0, done.out
    return out


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
