"""`stability run`: pytest in processes of their own, supervised."""

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.environment import choose_device, device_name
from harness.errors import InputError, unknown
from harness.recorder import ARGV, SUITES
from harness.request import Request
from harness.store import prepare_directory
from harness.supervise.supervisor import supervise, worse

ROOT = Path(__file__).resolve().parents[1]  # where suites/ lies beside harness/
# Timed suites: one process, alone on the machine, after the others.
_ALONE = ("speed",)
# The slowest launch takes some seconds, on a slow machine under the interpreter perhaps a minute.
TIMEOUT_S = 300.0
# pytest-xdist replaces a worker that died; by default four times each, and then no more.
_RESTARTS = "--max-worker-restart=1000000"
_MOST_JOBS = 8  # each is a Python with torch in it, some 600 MB


def run_suites(
    suites: list[str],
    request: Request,
    *,
    out: Path | None,
    device: str | None,
    resume: bool,
    jobs: int | None,  # processes; None: one a core in the interpreter, one on a GPU
    budget_s: float | None = None,  # the speed suite starts nothing after it; default: no limit
    deadline_s: float | None = None,  # from now, after which the run is interrupted
    timeout_s: float | None = TIMEOUT_S,  # a case without a sign of life is ended; None: never
) -> tuple[int, Path]:
    """Run the suites; return pytest's exit code (negative: the signal that ended it) and the run.

    The speed suite comes last and by itself, in one process, into the same run directory.

    Raises:
        InputError: for a suite that does not exist, --resume without a directory, or a run
            directory that is taken or cannot be written.
    """
    known = known_suites()
    for suite in suites:
        if suite not in known:
            raise unknown("suite", suite, known)
    if resume and out is None:
        raise InputError("--resume needs --out DIR, the run to complete")
    settled = choose_device(device)
    parallel = _parallel(settled, jobs)
    directory = out or _new_directory(device_name(settled))
    prepare_directory(directory, resume=resume)  # now, rather than in the child
    together = [suite for suite in suites if suite not in _ALONE]
    turns = [(together, parallel)] if together else []
    turns += [([suite], ["-p", "no:xdist"]) for suite in suites if suite in _ALONE]
    until = None if deadline_s is None else time.monotonic() + deadline_s
    code: int = pytest.ExitCode.OK
    for names, processes in turns:

        def command(begun: bool, names: list[str] = names, how: list[str] = processes) -> list[str]:
            return [
                *(sys.executable, "-m", "pytest"),
                *(str(ROOT / "suites" / name) for name in names),
                # The plugin by name, for an installed package whose conftest is not on the way;
                # pytest's own cache and header would only litter the user's folder and screen.
                *("-p", "harness.plugin", "-p", "no:cacheprovider", f"--rootdir={ROOT}"),
                *("-q", "--no-header", "--harness-progress", f"--out={directory.resolve()}"),
                # Its table would stand above the one that is printed at the end.
                "--benchmark-quiet",
                *(["--resume"] if resume or begun else []),
                *([f"--budget={budget_s}"] if budget_s is not None else []),
                *how,
                f"--device={settled}",
                *request.arguments(),
            ]

        ended = supervise(
            command,
            _environment(settled, suites),
            directory,
            begun=(directory / "run.json").exists(),
            timeout_s=timeout_s,
            until=until,
        )
        code = worse(code, ended.code)
        if ended.interrupted:
            why = f"ended by signal {-ended.code}" if ended.code < 0 else "interrupted"
            print(
                f"stability: the run was {why}; what it recorded is kept, go on with"
                f" stability run --resume --out {directory}",
                file=sys.stderr,
            )
            break
    return code, directory


def known_suites() -> list[str]:
    """The suites of this checkout: folders beside each other that hold tests."""
    found = sorted(each.parent.name for each in (ROOT / "suites").glob("*/__init__.py"))
    return [each for each in found if any((ROOT / "suites" / each).glob("test_*.py"))]


def _environment(device: str, suites: list[str]) -> dict[str, str]:
    environment = os.environ | {
        ARGV: json.dumps(["stability", *sys.argv[1:]]),
        **({SUITES: " ".join(suites)} if len(suites) > 1 else {}),
        "PYTHONPATH": os.pathsep.join(
            [str(ROOT), str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    if device == "cpu":
        environment["TRITON_INTERPRET"] = "1"
        # The tensors are small and the processes as many as the cores: threads would only collide.
        environment.setdefault("OMP_NUM_THREADS", "1")
    return environment


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
    return ["-n", str(count), "--dist", "worksteal", _RESTARTS] if count > 1 else ["-p", "no:xdist"]


def _new_directory(device: str) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return Path("results") / f"{stamp}-{device}"
