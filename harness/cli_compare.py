"""The commands that hold runs against each other: `stability compare`, `stability baseline`."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.cli_options import Exit
from harness.errors import InputError

BASELINES = Path("results/baselines")

Baselines = Annotated[
    Path, typer.Option("--in", metavar="DIR", help="where baselines are, a folder a device")
]


class CompareFormat(StrEnum):
    """Forms of the comparison."""

    text = "text"
    markdown = "markdown"
    json = "json"


def compare(
    base: Annotated[Path, typer.Argument(metavar="BASE")],
    new: Annotated[Path, typer.Argument(metavar="NEW")],
    form: Annotated[CompareFormat, typer.Option("--format")] = CompareFormat.text,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="stability, speed, training, missing, unclear, any, none; repeats, takes commas;"
            " default: stability,speed,training",
        ),
    ] = None,
    least_change: Annotated[
        float | None,
        typer.Option(metavar="PERCENT", help="smallest change of speed that counts; default: 3"),
    ] = None,
    any_device: Annotated[
        bool, typer.Option("--any-device", help="even from different devices or seeds")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="default: standard output")
    ] = None,
) -> None:
    """Compare two runs: verdicts, frontiers, speed, training; exit code 1 for a regression."""
    from harness import compare as comparing
    from harness.compare.speed import LEAST_CHANGE
    from harness.reading import not_collecting
    from harness.safe_text import printable
    from harness.store import load

    kinds = comparing.kinds_named(fail_on or ())
    share = LEAST_CHANGE if least_change is None else least_change / 100
    with not_collecting():
        comparison = comparing.compare_runs(
            load(base), load(new), any_device=any_device, least_change=share
        )
    if form is CompareFormat.json:
        plain = comparing.to_plain(comparison, kinds)
        _write(json.dumps(plain, indent=1, allow_nan=False) + "\n", out)
    elif form is CompareFormat.markdown:
        _write(comparing.to_markdown(comparison, kinds), out)
    else:
        _write(comparing.to_text(comparison), out)
    code = comparing.exit_code(comparison, kinds)
    if code is Exit.INCOMPLETE:
        for each in comparison.unfinished:
            print(f"stability: {printable(each)}; no regression so far", file=sys.stderr)
    if code:
        raise typer.Exit(code)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        print(text, end="")
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from None


def set_baseline(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN")],
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="folder's name; default: the run's device")
    ] = None,
    within: Baselines = BASELINES,
    force: Annotated[
        bool, typer.Option("--force", help="though it is incomplete, damaged or uncommitted")
    ] = False,
) -> None:
    """Make a run the baseline of its device: a compressed copy in DIR/<device>."""
    from harness import baseline

    done = baseline.set_baseline(run_directory, within, device=device, force=force)
    if done.lost:
        print(
            f"stability: the old baseline had {done.lost} cases on the grid that this one lacks",
            file=sys.stderr,
        )
    print(f"{done.directory}: {done.cases} cases")


def baseline_path(
    run_directory: Annotated[Path | None, typer.Argument(metavar="[RUN]")] = None,
    within: Baselines = BASELINES,
) -> None:
    """Print where the baseline of a run's device belongs, or of the device that is here."""
    from harness import baseline

    print(baseline.baseline_path(run_directory, within))


def list_baselines(within: Baselines = BASELINES) -> None:
    """Print each device's baseline: cases, commit, when, versions."""
    from harness import baseline

    for line in baseline.listed(within):
        print(line)


baseline_commands = typer.Typer(
    help="The run that others of its device are compared with.", no_args_is_help=True
)
baseline_commands.command("set")(set_baseline)
baseline_commands.command("path")(baseline_path)
baseline_commands.command("list")(list_baselines)
