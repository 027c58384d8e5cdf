"""`stability run`: pytest in a process of its own, so that what kills it leaves the answer."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.environment import choose_device, device_name
from harness.errors import InputError, unknown
from harness.recorder import ARGV
from harness.request import Request
from harness.store import prepare_directory

ROOT = Path(__file__).resolve().parents[1]  # where suites/ lies beside harness/
_MOST_JOBS = 8  # each is a Python with torch in it, some 600 MB


def run_suites(
    suites: list[str],
    request: Request,
    *,
    out: Path | None,
    device: str | None,
    resume: bool,
    jobs: int | None,  # processes; None: one a core in the interpreter, one on a GPU
) -> tuple[int, Path]:
    """Run the suites; return pytest's exit code (negative: the signal that ended it) and the run.

    Raises:
        InputError: for a suite that does not exist, --resume without a directory, or a run
            directory that is taken or cannot be written.
    """
    known = sorted(each.parent.name for each in (ROOT / "suites").glob("*/__init__.py"))
    known = [each for each in known if any((ROOT / "suites" / each).glob("test_*.py"))]
    for suite in suites:
        if suite not in known:
            raise unknown("suite", suite, known)
    if resume and out is None:
        raise InputError("--resume needs --out DIR, the run to complete")
    settled = choose_device(device)
    parallel = _parallel(settled, jobs)
    directory = out or _new_directory(device_name(settled))
    prepare_directory(directory, resume=resume)  # now, rather than in the child
    command = [
        *(sys.executable, "-m", "pytest"),
        *(str(ROOT / "suites" / suite) for suite in suites),
        # The plugin by name, for an installed package whose conftest is not on the way; pytest's
        # own cache and header would only litter the user's folder and screen.
        *("-p", "harness.plugin", "-p", "no:cacheprovider", f"--rootdir={ROOT}"),
        *("-q", "--no-header", "--harness-progress", f"--out={directory.resolve()}"),
        *(["--resume"] if resume else []),
        *parallel,
        f"--device={settled}",
        *request.arguments(),
    ]
    environment = os.environ | {
        ARGV: json.dumps(["stability", *sys.argv[1:]]),
        "PYTHONPATH": os.pathsep.join(
            [str(ROOT), str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    if settled == "cpu":
        environment["TRITON_INTERPRET"] = "1"
        # The tensors are small and the processes as many as the cores: threads would only collide.
        environment.setdefault("OMP_NUM_THREADS", "1")
    child = subprocess.Popen(command, env=environment)
    try:
        code = child.wait()
    except KeyboardInterrupt:  # the child got it too, and closes its files
        code = child.wait()
        code = code if code < 0 else int(pytest.ExitCode.INTERRUPTED)
    if code < 0 or code == pytest.ExitCode.INTERRUPTED:
        why = f"ended by signal {-code}" if code < 0 else "interrupted"
        print(
            f"stability: the run was {why}; what it recorded is kept, go on with"
            f" stability run --resume --out {directory}",
            file=sys.stderr,
        )
    return code, directory


def _parallel(device: str, jobs: int | None) -> list[str]:
    """pytest-xdist's options: a process a core for the interpreter, never two on one GPU."""
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs must be at least 1, not {jobs}")
    if device != "cpu":
        if jobs is not None and jobs > 1:
            raise InputError("--jobs is for the interpreter; on a GPU cases run one after another")
        return ["-p", "no:xdist"]
    count = jobs if jobs is not None else min(len(os.sched_getaffinity(0)), _MOST_JOBS)
    # Stealing leaves neighbours together, and neighbours share the truth of their inputs.
    return ["-n", str(count), "--dist", "worksteal"] if count > 1 else ["-p", "no:xdist"]


def _new_directory(device: str) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return Path("results") / f"{stamp}-{device}"
