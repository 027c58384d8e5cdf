"""The command that looks at anyone's training: `stability diagnose`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli_options import Exit
from harness.errors import InputError


def diagnose(
    command: Annotated[list[str], typer.Argument(metavar="-- SCRIPT.py [ARGS]...")],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="write the findings as JSON")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="write a reproduction of the first finding")
    ] = None,
    grace: Annotated[
        float, typer.Option(help="seconds the script may run on after a finding", min=0)
    ] = 10.0,
) -> None:
    """Run a training script once, and find where and why it first goes non-finite.

    The script's output stays on standard output, the report goes to standard error. Exit codes: 0
    clean, 1 a finding, 3 the script failed by itself, 4 bad input.
    """
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise InputError(f"cannot write {json_file}: its directory does not exist")
    from harness.diagnosis.render import report
    from harness.diagnosis.script import diagnose_script, rank

    number = rank()
    if number is not None:
        # Each rank is a script of its own, and writes files of its own.
        suffix = f".rank{number.split()[0]}"
        json_file = json_file and json_file.with_name(json_file.stem + suffix + json_file.suffix)
        save = save and save / suffix[1:]
    diagnosis = diagnose_script(command[0], command[1:], save=save, grace=grace)
    print(report(diagnosis, rank=number), file=sys.stderr, end="", flush=True)
    if json_file is not None:
        text = json.dumps(diagnosis.to_plain(), indent=1, allow_nan=False) + "\n"
        try:
            json_file.write_text(text)
        except OSError as error:
            raise InputError(f"cannot write {json_file}: {error.strerror or error}") from None
    own_failure = any("the diagnosis itself failed" in note for note in diagnosis.notes)
    if diagnosis.outcome == "script_error" or (own_failure and not diagnosis.findings):
        raise typer.Exit(Exit.INCOMPLETE)
    raise typer.Exit(Exit.BROKEN if diagnosis.findings else Exit.OK)
