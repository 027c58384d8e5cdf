"""What the fuzz tests share: how many examples, a stored run, a command line in this process."""

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from harness import cli

FEW, MANY = 40, 2_000


def fuzz(few: int = FEW, many: int = MANY) -> Callable[[Any], Any]:
    """Run a property on few examples in the sample of the tests, and on many in the full ones."""

    def decorate(check: Any) -> Any:
        slow = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]

        @pytest.mark.parametrize(
            "examples", [few, pytest.param(many, marks=pytest.mark.full)], ids=["few", "many"]
        )
        def run(examples: int) -> None:
            settings(max_examples=examples, suppress_health_check=slow)(check)()

        run.__name__, run.__doc__ = check.__name__, check.__doc__
        return run

    return decorate


@contextlib.contextmanager
def stored(head: dict[str, Any], records: list[dict[str, Any]]) -> Iterator[Path]:
    """A run directory as somebody else may have written it."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        directory.mkdir()
        (directory / "run.json").write_text(json.dumps(head))
        lines = "".join(json.dumps(each) + "\n" for each in records)
        (directory / "records.jsonl").write_text(lines)
        yield directory


def called(*words: str | Path) -> tuple[int, str, str]:
    """`stability WORDS` in this process: exit code, output and errors; it ends by SystemExit."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["stability", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = before
    raise AssertionError("the command came back")


def quiet(text: str) -> bool:
    """Whether a terminal only shows it."""
    return all(each.isprintable() or each == "\n" for each in text)
