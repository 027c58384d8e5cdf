"""The commands `stability run` and `stability list`: what is asked for, and that it can be had."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from harness.cli_options import (
    CatalogName,
    Device,
    Exit,
    Full,
    Magnitude,
    Names,
    PassNames,
    Quick,
    Rate,
    Shard,
)
from harness.cli_table import TableFormat, print_run
from harness.errors import InputError, unknown

if TYPE_CHECKING:
    from harness.request import Request

# pytest's codes: ok, tests failed, interrupted, internal error, usage error, no tests collected.
_FROM_PYTEST = {
    0: Exit.OK,
    1: Exit.BROKEN,
    2: Exit.INCOMPLETE,
    3: Exit.INCOMPLETE,
    4: Exit.USAGE,
    5: Exit.USAGE,
}


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
    full: Full = False,
    workload: Names = None,
    precision: Names = None,
    lr: Rate = None,
    budget: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="after these the speed suite starts nothing more"),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="a case without a sign of life is ended; 0: never"),
    ] = 300.0,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="several suites as one job: gpu")
    ] = None,
) -> None:
    """Run suites (default: stability), print the table, write a run directory."""
    from harness.request import Request, resumed, suites_of
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
        full=full,
        workload=tuple(workload or ()),
        precision=tuple(precision or ()),
        lr=lr,
    )
    if profile is not None:
        if suites or resume or jobs is not None or budget is not None or request != Request():
            raise InputError(
                "--profile says itself what runs; it goes with --out and --device alone"
            )
        _run_profile(profile, out, device)
    if resume and out is not None and (out / "run.json").exists():
        request = resumed(request, out)
        suites = suites or suites_of(out)
    suites = suites or ["stability"]
    _plan(suites, request, device)  # fail before anything starts
    code, directory = run_suites(
        suites,
        request,
        out=out,
        device=device,
        resume=resume,
        jobs=jobs,
        budget_s=budget,
        timeout_s=timeout or None,
    )
    if (directory / "run.json").exists():
        print_run(directory, TableFormat.text, by_regime=False)
        print(f"\nrun: {_shown(directory)}")
    raise typer.Exit(_FROM_PYTEST.get(code, Exit.INCOMPLETE))


_LISTED = ("stability", "speed", "training")


def list_cases(
    suite: Annotated[str, typer.Argument(metavar="[SUITE]")] = "stability",
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
    full: Full = False,
    workload: Names = None,
    precision: Names = None,
    lr: Rate = None,
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
        full=full,
        workload=tuple(workload or ()),
        precision=tuple(precision or ()),
        lr=lr,
    )
    if suite not in _LISTED:
        raise unknown("suite to list", suite, _LISTED)
    items, ids = _plan([suite], request, device)
    if as_json:
        print(json.dumps({"schema": 1, "items": items, "cases": ids}, indent=1))
        return
    for each in ids:
        print(each)
    print(f"{items} items, {len(ids)} cases", file=sys.stderr)


def _plan(suites: list[str], request: "Request", device: str | None) -> tuple[int, list[str]]:
    """How many items would run, and the ids of their cases; InputError where there are none."""
    from harness.catalog import load_catalog
    from harness.environment import choose_device
    from harness.plan import plan
    from harness.timing.speed_plan import declared_workloads, speed_plan

    filters = request.filters()
    settled = choose_device(device)  # before the catalog imports triton
    catalog = load_catalog(request.catalog)
    count, ids = 0, list[str]()
    if "speed" in suites:
        declared = declared_workloads(request.catalog)
        timed = speed_plan(catalog, declared, filters, device=settled)
        count += len({case.group.id for case in timed})
        ids += [case.id for case in timed]
    if "training" in suites:
        from harness.training.declare import load_declared
        from harness.training.plan import training_plan

        curves = training_plan(load_declared(), filters, seed=request.seed or 0)
        count += len(curves)
        ids += [each for curve in curves for each in curve.ids()]
    if set(suites) - {"speed", "training"}:
        items = plan(catalog, filters)
        count += len(items)
        ids += [case.id for item in items for case in item.cases()]
    return count, ids


def _run_profile(name: str, out: Path | None, device: str | None) -> NoReturn:
    from harness.profiles import run_profile

    codes, directories = run_profile(name, out=out, device=device)
    for directory in directories:
        if (directory / "run.json").exists():
            print(f"\n{_shown(directory)}")
            print_run(directory, TableFormat.text, by_regime=False)
    raise typer.Exit(max(_FROM_PYTEST.get(code, Exit.INCOMPLETE) for code in codes))


def _shown(directory: Path) -> str:
    try:
        return str(directory.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(directory)
