"""The command that makes one run of several: `stability merge`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli_options import Exit


def merge(
    run_directories: Annotated[list[Path], typer.Argument(metavar="RUN...")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="new run directory")],
    partial: Annotated[
        bool,
        typer.Option(
            "--partial", help="though shards are missing, not complete or damaged; exit code 3"
        ),
    ] = False,
) -> None:
    """Merge the shards of one run, or runs along one axis, into a complete run."""
    from harness.merge import merge_runs, told
    from harness.safe_text import printable

    merged = merge_runs(run_directories, out, partial=partial)
    for line in told(merged):
        print(printable(line), file=sys.stdout if merged.complete else sys.stderr)
    if not merged.complete:
        raise typer.Exit(Exit.INCOMPLETE)
