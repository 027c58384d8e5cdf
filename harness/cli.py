"""The command `stability`: a thin face over the harness, with the contract's exit codes."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from harness.cli_compare import baseline_commands, compare
from harness.cli_diagnose import diagnose
from harness.cli_doctor import doctor
from harness.cli_kernels import inspect_kernels, tune_shapes
from harness.cli_merge import merge
from harness.cli_options import CatalogName, Exit, Seed
from harness.cli_report import report_runs
from harness.cli_run import list_cases, run
from harness.cli_table import table
from harness.errors import InputError

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


# In the order in which `stability --help` lists them.
app.command()(run)
app.command("list")(list_cases)
app.command()(table)


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

    text = atlas_markdown(load(run_directory), Path.cwd() if str(out) == "-" else out.parent)
    _write_page(text, out, check=check, command=f"stability atlas {run_directory}")


@app.command()
def advice(
    run_directory: Annotated[
        Path, typer.Argument(metavar="[RUN]", help="default: the committed one")
    ] = Path("results/baselines/training-cpu"),
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="- for standard output")
    ] = Path("results/ADVICE.md"),
    check: Annotated[
        bool, typer.Option("--check", help="write nothing; exit 1 if FILE would change")
    ] = False,
) -> None:
    """Write what came of each piece of advice, from a run of the training suite."""
    from harness.store import load
    from harness.training.advice_page import advice_markdown
    from harness.training.declare import load_declared

    loaded, declared = load(run_directory), load_declared()
    folder = Path.cwd() if str(out) == "-" else out.parent
    text = advice_markdown(loaded, declared.advice, folder)
    _write_page(text, out, check=check, command=f"stability advice {run_directory}")


def _write_page(text: str, out: Path, *, check: bool, command: str) -> None:
    """Write a generated page, or with `check` exit with 1 if it is not what the file holds."""
    if str(out) == "-":
        print(text, end="")
        return
    try:
        # As bytes, so that other line endings count as a change.
        same = out.exists() and out.read_bytes() == text.encode()
        if not check and not same:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(text.encode())
    except OSError as error:
        raise InputError(f"cannot read or write {out}: {error.strerror or error}") from None
    if check and not same:
        print(f"stability: {out} is out of date: {command}", file=sys.stderr)
        raise typer.Exit(Exit.BROKEN)


app.command("compare")(compare)
app.add_typer(baseline_commands, name="baseline")
app.command("inspect")(inspect_kernels)
app.command("tune")(tune_shapes)
app.command("report")(report_runs)
app.command("diagnose")(diagnose)
app.command()(merge)
app.command()(doctor)


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
    from harness.safe_text import printable  # a sentence may quote what a file says

    print(f"stability: {printable(' '.join(sentence.split()))}", file=sys.stderr)
    sys.exit(Exit.USAGE)
