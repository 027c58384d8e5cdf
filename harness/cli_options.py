"""What the commands of `stability` share: exit codes, and options that mean the same everywhere."""

from enum import IntEnum
from typing import Annotated

import typer


class Exit(IntEnum):
    """Exit codes of `stability`."""

    OK = 0
    BROKEN = 1  # a claim broken, a regression, or a diagnosis found
    UNCLEAR = 2
    INCOMPLETE = 3
    USAGE = 4  # usage or bad input


Names = Annotated[list[str] | None, typer.Option(metavar="NAME", help="repeats; takes globs")]
Magnitude = Annotated[
    str | None, typer.Option(metavar="A:B[:PER_DECADE]", help="instead of the default grid")
]
Quick = Annotated[bool, typer.Option("--quick", help="fewer magnitudes, frontiers not bisected")]
Full = Annotated[
    bool, typer.Option("--full", help="every size of the speed suite, all of training")
]
Rate = Annotated[
    str | None,
    typer.Option(
        "--lr", metavar="A:B[:PER_DECADE]", help="learning rates, instead of each slice's grid"
    ),
]
Seed = Annotated[int, typer.Option(help="seed of all draws")]
Device = Annotated[str | None, typer.Option(help="cuda or cpu; default: cuda if there is one")]
CatalogName = Annotated[str | None, typer.Option(metavar="MODULE", help="module with OPERATIONS")]
Shard = Annotated[str | None, typer.Option(metavar="I/N", help="every N-th item, from the I-th")]
PassNames = Annotated[
    list[str] | None,
    typer.Option("--pass", metavar="NAME", help="forward, backward; for speed both, too"),
]
