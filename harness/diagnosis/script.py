"""Runs somebody's script under watch in a process of its own, and says what came of it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import FrameType

import harness
from harness.diagnosis.answer import Answer
from harness.diagnosis.finding import Diagnosis
from harness.errors import InputError


def diagnose_script(
    script: str,
    arguments: list[str],
    *,
    save: Path | None = None,  # directory for a reproduction
    grace: float = 10.0,  # seconds the script may run on after a finding
) -> Diagnosis:
    """Run a script once and diagnose it.

    Its standard input, output and error are its own. Raises InputError where there is no such
    script.
    """
    path = Path(script)
    if not path.is_file():
        raise InputError(f"no script at {script}: give the path of a Python file after --")
    if save is not None:
        try:
            save.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {save}: {error.strerror or error}") from None
    with tempfile.TemporaryDirectory(prefix="stability-diagnose-") as scratch:
        answer = Answer(Path(scratch) / "answer.json")
        task = Path(scratch) / "task.json"
        task.write_text(
            json.dumps(
                {
                    "checkout": str(Path(harness.__file__).resolve().parents[1]),
                    "answer": str(answer.path),
                    "save": None if save is None else str(save.resolve()),
                    "grace": grace,
                }
            )
        )
        child = Path(__file__).with_name("child.py")
        # -B: no __pycache__ beside the modules that the script imports. Compiled functions run
        # as they are written: inside one fused kernel there would be no operation to name.
        command = [sys.executable, "-B", str(child), str(task), script, *arguments]
        status = _run(command, {**os.environ, "TORCHDYNAMO_DISABLE": "1"})
        found = answer.read()
    if found is None:
        return Diagnosis("script_error", notes=(_ending(status),))
    diagnosis, written = found
    if written is None:
        # It found something and did not come back: its end is told, its finding stands.
        diagnosis = replace(diagnosis, notes=(*diagnosis.notes, _ending(status)))
    return diagnosis


def _run(command: list[str], environment: dict[str, str]) -> int:
    with subprocess.Popen(command, env=environment) as process:

        def hand_on(number: int, frame: FrameType | None) -> None:
            process.send_signal(number)

        # Who ends this process (a batch system, torchrun) means the script: it is told, and its
        # answer is waited for. The terminal tells both of an interrupt.
        before = {each: signal.signal(each, hand_on) for each in (signal.SIGTERM, signal.SIGHUP)}
        before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return process.wait()
        finally:
            for number, each in before.items():
                signal.signal(number, each)


def rank() -> str | None:
    """ "1 of 4" in one of several processes that torchrun started."""
    number, count = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    return f"{number} of {count}" if number and count and count != "1" else None


def _ending(status: int) -> str:
    if status < 0:
        return f"the script was killed by {signal.Signals(-status).name}"
    return f"the script ended with exit code {status} before it could be judged"
