"""The command `stability`: a thin face over the harness, with the contract's exit codes."""

import json
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from harness.cli_kernels import inspect_kernels, tune_shapes
from harness.cli_options import (
    CatalogName,
    Device,
    Exit,
    Magnitude,
    Names,
    PassNames,
    Quick,
    Seed,
    Shard,
)
from harness.errors import InputError

if TYPE_CHECKING:
    from harness.plan import Item
    from harness.request import Request

app = typer.Typer(
    name="stability",
    help="Where do mixed-precision kernels produce NaN, and by how much are they off?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


# The parent of typer's BadParameter: click's UsageError, wherever this typer has it (newer ones
# bring a click of their own, under a private name).
_UsageError: type[Any] = typer.BadParameter.__mro__[1]


# pytest's codes: ok, tests failed, interrupted, internal error, usage error, no tests collected.
_FROM_PYTEST = {
    0: Exit.OK,
    1: Exit.BROKEN,
    2: Exit.INCOMPLETE,
    3: Exit.INCOMPLETE,
    4: Exit.USAGE,
    5: Exit.USAGE,
}


class TableFormat(StrEnum):
    """Forms of the table."""

    text = "text"
    markdown = "markdown"
    csv = "csv"
    json = "json"


class CompareFormat(StrEnum):
    """Forms of the comparison."""

    text = "text"
    markdown = "markdown"
    json = "json"


@app.command()
def run(
    suites: Annotated[list[str] | None, typer.Argument(metavar="[SUITE]...")] = None,
    operation: Names = None,
    path: Names = None,
    dtype: Names = None,
    regime: Names = None,
    pass_: PassNames = None,
    magnitude: Magnitude = None,
    quick: Quick = False,
    seed: Annotated[int | None, typer.Option(help="seed of all draws; default: 0")] = None,
    device: Device = None,
    catalog: CatalogName = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="new run directory")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="complete the run in --out")] = False,
    shard: Shard = None,
    jobs: Annotated[
        int | None, typer.Option(help="processes in the interpreter; default: one a core, to 8")
    ] = None,
) -> None:
    """Run suites (default: stability), print the table, write a run directory."""
    from harness.request import Request, resumed
    from harness.run import run_suites

    request = Request(
        operation=tuple(operation or ()),
        path=tuple(path or ()),
        dtype=tuple(dtype or ()),
        regime=tuple(regime or ()),
        pass_=tuple(pass_ or ()),
        magnitude=magnitude,
        quick=quick,
        seed=seed,
        catalog=catalog,
        shard=shard,
    )
    if resume and out is not None and (out / "run.json").exists():
        request = resumed(request, out)
    _plan(request, device)  # fail before anything starts
    code, directory = run_suites(
        suites or ["stability"], request, out=out, device=device, resume=resume, jobs=jobs
    )
    if (directory / "run.json").exists():
        _print_table(directory, TableFormat.text, by_regime=False)
        print(f"\nrun: {_shown(directory)}")
    raise typer.Exit(_FROM_PYTEST.get(code, Exit.INCOMPLETE))


@app.command("list")
def list_cases(
    operation: Names = None,
    path: Names = None,
    dtype: Names = None,
    regime: Names = None,
    pass_: PassNames = None,
    magnitude: Magnitude = None,
    quick: Quick = False,
    device: Device = None,
    catalog: CatalogName = None,
    shard: Shard = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document")] = False,
) -> None:
    """Show what would run: one case id a line. Refining frontiers adds to these."""
    from harness.request import Request

    request = Request(
        operation=tuple(operation or ()),
        path=tuple(path or ()),
        dtype=tuple(dtype or ()),
        regime=tuple(regime or ()),
        pass_=tuple(pass_ or ()),
        magnitude=magnitude,
        quick=quick,
        catalog=catalog,
        shard=shard,
    )
    items = _plan(request, device)
    ids = [case.id for item in items for case in item.cases()]
    if as_json:
        print(json.dumps({"schema": 1, "items": len(items), "cases": ids}, indent=1))
        return
    for each in ids:
        print(each)
    print(f"{len(items)} items, {len(ids)} cases", file=sys.stderr)


@app.command()
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
        _print_table(run_directory, form, by_regime=by_regime)
        return
    from rich.console import Console

    from harness.render_text import print_cases
    from harness.store import load

    print_cases(Console(), load(run_directory))


@app.command()
def frontier(
    operation: str,
    path: str,
    dtype: str,
    regime: str = "normal",
    pass_: Annotated[str, typer.Option("--pass")] = "forward",
    side: str = "high",
    seed: Seed = 0,
    catalog: CatalogName = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document")] = False,
) -> None:
    """Find where a path stops being finite, and accurate, as adjacent floats."""
    from harness import api

    found = api.frontier(
        operation,
        path,
        dtype,
        regime,
        pass_=pass_,  # type: ignore[arg-type]  # checked there, with the valid choices
        side=side,  # type: ignore[arg-type]
        seed=seed,
        catalog=catalog,
    )
    asked = {
        "operation": operation,
        "path": path,
        "dtype": dtype,
        "regime": regime,
        "pass": pass_,
        "side": side,
        "seed": seed,
    }
    fields = {
        "finite_until": found.finite_until,
        "nonfinite_from": found.nonfinite_from,
        "accurate_until": found.accurate_until,
        "inaccurate_from": found.inaccurate_from,
    }
    if as_json:
        print(json.dumps({"schema": 1, **asked, **fields, "verdict": found.verdict.word}, indent=1))
        return
    from harness.case import decimal

    end = "largest float" if side == "high" else "smallest subnormal"
    print(f"{operation} {path} {dtype}, regime {regime}, {pass_}, {side} side, seed {seed}")
    for name, value in fields.items():
        absent = f"no failure up to the {end}" if name.endswith("from") else "fails at magnitude 1"
        print(f"  {name:<16} {decimal(value) if value is not None else f'- ({absent})'}")
    print(f"  {'verdict':<16} {found.verdict.word}: {found.verdict.meaning}")


@app.command()
def compare(
    base: Annotated[Path, typer.Argument(metavar="BASE")],
    new: Annotated[Path, typer.Argument(metavar="NEW")],
    form: Annotated[CompareFormat, typer.Option("--format")] = CompareFormat.text,
    any_device: Annotated[
        bool, typer.Option("--any-device", help="even from different devices or seeds")
    ] = False,
) -> None:
    """Compare two runs case by case; a verdict that got worse is a regression."""
    from harness import compare as comparing
    from harness.store import load

    newer = load(new)
    comparison = comparing.compare_runs(load(base), newer, any_device=any_device)
    if form is CompareFormat.json:
        print(json.dumps(comparing.to_plain(comparison), indent=1, allow_nan=False))
    else:
        print(comparing.to_text(comparison, markdown=form is CompareFormat.markdown), end="")
    if comparison.regressions:
        raise typer.Exit(Exit.BROKEN)
    if not newer.complete:
        print(f"stability: {new} is not complete; no regression so far", file=sys.stderr)
        raise typer.Exit(Exit.INCOMPLETE)


@app.command()
def atlas(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="- for standard output")
    ] = Path("results/ATLAS.md"),
    check: Annotated[
        bool, typer.Option("--check", help="write nothing; exit 1 if FILE would change")
    ] = False,
) -> None:
    """Write the atlas of a run: where every implementation breaks, with a command for each row."""
    from harness.render_atlas import atlas_markdown
    from harness.store import load

    if str(out) == "-":
        print(atlas_markdown(load(run_directory), Path.cwd()), end="")
        return
    text = atlas_markdown(load(run_directory), out.parent)
    try:
        # As bytes, so that other line endings count as a change.
        same = out.exists() and out.read_bytes() == text.encode()
        if not check and not same:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(text.encode())
    except OSError as error:
        raise InputError(f"cannot read or write {out}: {error.strerror or error}") from None
    if check and not same:
        print(f"stability: {out} is out of date: stability atlas {run_directory}", file=sys.stderr)
        raise typer.Exit(Exit.BROKEN)


app.command("inspect")(inspect_kernels)
app.command("tune")(tune_shapes)


def _plan(request: "Request", device: str | None) -> list["Item"]:
    from harness.catalog import load_catalog
    from harness.environment import choose_device
    from harness.plan import plan

    filters = request.filters()
    choose_device(device)  # before the catalog imports triton
    return plan(load_catalog(request.catalog), filters)


def _print_table(directory: Path, form: TableFormat, *, by_regime: bool) -> None:
    from rich.console import Console

    from harness.render import rows_for, to_csv, to_json, to_markdown
    from harness.render_text import print_table
    from harness.store import load

    loaded = load(directory)
    rows = rows_for(loaded, form.value, by_regime=by_regime)
    if form is TableFormat.text:
        print_table(Console(), loaded, rows)
        return
    if form is TableFormat.markdown:
        print(to_markdown(loaded, rows), end="")
    else:
        print(to_csv(rows) if form is TableFormat.csv else to_json(loaded, rows), end="")
    for problem in loaded.problems:
        print(f"stability: {problem}", file=sys.stderr)


def _shown(directory: Path) -> str:
    try:
        return str(directory.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(directory)


def main() -> NoReturn:
    """Run the command line; usage errors and bad input become one sentence and exit code 4."""
    command: Callable[..., Any] = typer.main.get_command(app)
    try:
        code = command(standalone_mode=False)
        sys.stdout.flush()
    except InputError as error:
        _fail(str(error))
    except _UsageError as error:
        if not error.format_message():
            sys.exit(Exit.USAGE)  # no command given: the help was printed, and says it all
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        _fail(error.format_message() + hint)
    except typer.Abort:
        sys.exit(Exit.INCOMPLETE)
    except BrokenPipeError:
        # The reader (`| head`) went away; that is its right. Keep Python from flushing into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.OK)
    except KeyboardInterrupt:
        sys.exit(Exit.INCOMPLETE)
    sys.exit(code if isinstance(code, int) else Exit.OK)


def _fail(sentence: str) -> NoReturn:
    print(f"stability: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(Exit.USAGE)
