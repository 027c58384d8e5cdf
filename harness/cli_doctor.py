"""The command that looks at the installation: `stability doctor`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.cli_options import Exit


def doctor(
    results: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="where runs will be written")
    ] = Path("results"),
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document")] = False,
) -> None:
    """Check the installation end to end; exit code 1 for a problem, with what to do."""
    from harness.doctor import Finding, Level, examine
    from harness.safe_text import printable

    found: list[Finding] = []
    for each in examine(results):
        found.append(each)
        if not as_json:
            advice = f" -> {each.advice}" if each.advice else ""
            print(printable(f"{each.level:<8}{each.check}: {each.told}{advice}"), flush=True)
    problems = sum(each.level is Level.problem for each in found)
    if as_json:
        plain = {"schema": 1, "problems": problems, "findings": [asdict(each) for each in found]}
        print(json.dumps(plain, indent=1))
    elif not problems:
        print("no problem found")
    if problems:
        raise typer.Exit(Exit.BROKEN)
