"""The command that shows runs as one page: `stability report`."""

from pathlib import Path
from typing import Annotated

import typer


def report_runs(
    run_directories: Annotated[list[Path], typer.Argument(metavar="RUN...")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="the page to write")] = (
        Path("report.html")
    ),
    inspection: Annotated[
        Path | None,
        typer.Option(
            "--inspect",
            metavar="FILE",
            help="output of `stability inspect --json`: shown where no speed was measured",
        ),
    ] = None,
) -> None:
    """Write runs as one HTML page that loads nothing; several runs stand side by side."""
    from harness.errors import InputError
    from harness.reading import not_collecting
    from harness.report import build_page, write_whole
    from harness.report.static import read_inspection
    from harness.store import load

    if out.is_dir():  # before the work, not after it
        raise InputError(f"{out} is a directory; name a file in it: -o {out / 'report.html'}")
    static = None if inspection is None else read_inspection(inspection)
    with not_collecting():
        page = build_page([load(directory) for directory in run_directories], inspection=static)
    write_whole(out, page)
    print(f"report: {out} ({len(page.encode()) / 1e6:.2f} MB)")
