"""`stability diagnose` on a script in a directory of its own, for the tests of the command."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from suites.selftest.conftest import ROOT


def started(
    tmp_path: Path, source: str, *options: str, arguments: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """The command, running; the JSON lies beside the script's directory."""
    place = tmp_path / "user"
    place.mkdir()
    (place / "helper.py").write_text("x = 1\n")
    (place / "train.py").write_text(textwrap.dedent(source))
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "harness", "diagnose", "--json", str(tmp_path / "found.json")),
            *(*options, "--", "train.py", *arguments),
        ],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(
    tmp_path: Path, source: str, *options: str, arguments: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """The command, ended; the script's directory must be as it was."""
    process = started(tmp_path, source, *options, arguments=arguments)
    out, err = process.communicate(timeout=170)
    left = sorted(each.name for each in (tmp_path / "user").iterdir())
    assert left == ["helper.py", "train.py"], left
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def document(tmp_path: Path) -> dict:
    """What --json wrote."""
    return json.loads((tmp_path / "found.json").read_text())
