"""The command `stability table`: a recorded run, of whatever suites, in four forms."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.errors import InputError


class TableFormat(StrEnum):
    """Forms of the table."""

    text = "text"
    markdown = "markdown"
    csv = "csv"
    json = "json"


def table(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN")],
    form: Annotated[TableFormat, typer.Option("--format")] = TableFormat.text,
    by_regime: Annotated[
        bool, typer.Option("--by-regime", help="one block a regime, as csv and json always have")
    ] = False,
    cases: Annotated[
        bool, typer.Option("--cases", help="instead, every case that is not right, one by one")
    ] = False,
) -> None:
    """Print a run as a table."""
    if cases and form is not TableFormat.text:
        raise InputError("--cases is text alone; for programs there is the run's records.jsonl")
    if not cases:
        print_run(run_directory, form, by_regime=by_regime)
        return
    from harness.render_text import print_cases
    from harness.store import load
    from harness.terminal import PlainConsole

    print_cases(PlainConsole(), load(run_directory))


def print_run(directory: Path, form: TableFormat, *, by_regime: bool) -> None:
    """Print what a run recorded; of each suite its table."""
    from harness import render, render_speed, render_speed_data
    from harness.render_text import print_table
    from harness.safe_text import in_code, printable, without_formulas
    from harness.store import load
    from harness.terminal import PlainConsole
    from harness.training import render as render_training
    from harness.training import render_data as training_data

    loaded = load(directory)
    timed, trained = render_speed.has_speed(loaded), render_training.has_training(loaded)
    swept = not (timed or trained) or any(each.suite == "stability" for each in loaded.records)
    rows = render.rows_for(loaded, form.value, by_regime=by_regime) if swept else []
    if form is TableFormat.text:
        if swept:
            print_table(PlainConsole(), loaded, rows)
        if timed:
            print("\n" if swept else "", end="")
            render_speed.print_speed(PlainConsole(), loaded)
        if trained:
            print("\n" if swept or timed else "", end="")
            render_training.print_training(PlainConsole(), loaded)
        return
    if form is TableFormat.markdown:
        print(render.to_markdown(loaded, rows) if swept else "", end="")
        print(render_speed_data.speed_markdown(loaded) if timed else "", end="")
        print(training_data.training_markdown(in_code(loaded)) if trained else "", end="")
    elif form is TableFormat.csv:
        if swept + timed + trained > 1:
            raise InputError(
                f"{directory} holds several suites, whose columns differ: --format json has all"
            )
        if trained:
            text = training_data.training_csv(loaded)
        else:
            text = render_speed_data.speed_csv(loaded) if timed else render.to_csv(rows)
        print(without_formulas(text), end="")
    else:
        more: dict[str, Any] = {"speed": render_speed_data.speed_json(loaded)} if timed else {}
        more |= {"training": training_data.training_json(loaded)} if trained else {}
        print(render.to_json(loaded, rows, **more), end="")
    for problem in loaded.problems:
        print(f"stability: {printable(problem)}", file=sys.stderr)
