"""Whole scripts in the styles people write: `suites/selftest/diagnosis_scripts/`.

Their first line says what is expected, a comment `HERE` where, and `--repaired` runs the twin.
"""

import contextlib
import io
import os
import re
import sys
from pathlib import Path

from suites.selftest.diagnosis_programs.program import Program

FOLDER = Path(__file__).parents[1] / "diagnosis_scripts"
_EXPECTED = re.compile(r"# expect: (?P<ops>[^|]+) \| (?P<causes>[^\n]+)\n")


def script(path: Path) -> Program:
    """A script as a program."""
    source = path.read_text()
    expected = _EXPECTED.match(source)
    if expected is None:
        raise ValueError(f"{path.name}: its first line does not say what is expected")
    lines = tuple(
        number for number, line in enumerate(source.splitlines(), 1) if line.endswith("# HERE")
    )

    def run(broken: bool) -> None:
        # Kernels are interpreted, compiled models run as written: what the command does.
        os.environ.setdefault("TRITON_INTERPRET", "1")
        before, switch = sys.argv, os.environ.get("TORCHDYNAMO_DISABLE")
        sys.argv = [str(path), *([] if broken else ["--repaired"])]
        os.environ["TORCHDYNAMO_DISABLE"] = "1"
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(source, str(path), "exec"), {"__name__": "__main__"})
        finally:
            sys.argv = before
            if switch is None:
                del os.environ["TORCHDYNAMO_DISABLE"]

    kind = "silent" if "silent" in expected["causes"] else "nonfinite"
    causes = tuple(each for each in expected["causes"].split() if each != "silent")
    return Program(path.stem, run, tuple(expected["ops"].split()), causes, kind, lines)


SCRIPTS = tuple(script(path) for path in sorted(FOLDER.glob("*.py")))
