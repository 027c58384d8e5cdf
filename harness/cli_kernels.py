"""The commands that look at kernels and not at runs: `stability inspect`, `stability tune`."""

import sys
from typing import Annotated, Any

import typer

from harness.cli_options import CatalogName, Exit, Names


def inspect_kernels(
    operations: Annotated[list[str] | None, typer.Argument(metavar="[OPERATION]...")] = None,
    path: Names = None,
    dtype: Names = None,
    columns: Annotated[
        list[int] | None, typer.Option(metavar="N", help="row width; repeats; default: 4096, 32000")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET",
            help="cuda:90, hip:gfx942, ...; repeats; default: cuda:80 cuda:90 cuda:100 hip:gfx942",
        ),
    ] = None,
    traffic: Annotated[bool, typer.Option(help="count bytes moved, in the interpreter")] = True,
    catalog: CatalogName = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document")] = False,
) -> None:
    """Compile kernels without a GPU: registers, spills, load widths, bytes moved."""
    from harness import inspection
    from harness.launches import target_named
    from harness.render_inspection import lines

    targets = tuple(target or inspection.DEFAULT_TARGETS)
    for each in targets:
        target_named(each)  # a target that does not exist fails before anything starts
    asked: dict[str, Any] = {
        "operations": tuple(operations or ()),
        "paths": tuple(path or ()),
        "dtypes": tuple(dtype or ()),
        "columns": tuple(columns or inspection.DEFAULT_COLUMNS),
    }
    cases = inspection.chosen_cases(**asked, catalog=catalog)
    found = inspection.inspect(
        cases,
        targets=targets,
        with_traffic=traffic,
        catalog=catalog,
        tell=lambda told: print(f"stability: {told}", file=sys.stderr),
    )
    if as_json:
        print(inspection.to_json(found, {**asked, "targets": targets, "catalog": catalog}))
    else:
        for line in lines(found):
            print(line)
    if found.problems:
        raise typer.Exit(Exit.INCOMPLETE)
    if inspection.broken_claims(found, catalog):
        raise typer.Exit(Exit.BROKEN)


def tune_shapes(
    operations: Annotated[list[str] | None, typer.Argument(metavar="[OPERATION]...")] = None,
    path: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="repeats; default: triton")
    ] = None,
    dtype: Names = None,
    columns: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="row width; repeats; default: 1024, 4096, 16384, 131072"),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="rows; fewer beyond 2**26 elements")] = 4096,
    catalog: CatalogName = None,
) -> None:
    """Measure launch shapes on this machine's GPU and write the table that kernels look in."""
    from harness import inspection, tuning

    tuning.require_gpu()  # before the catalog imports triton
    cases = inspection.chosen_cases(
        tuple(operations or ()),
        paths=tuple(path or ("triton",)),
        dtypes=tuple(dtype or ()),
        columns=tuple(columns or (1024, 4096, 16_384, 131_072)),
        rows=rows,
        catalog=catalog,
    )
    done, where = tuning.tune(cases, catalog=catalog, tell=print)
    print(f"{len(done)} choices written to {where}; remove the file for the built-in table")
