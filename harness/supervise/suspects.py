"""Items in whose midst a process died: run again in parts, to find the part that did it."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from harness.plan import Item
from harness.supervise.journal import JOURNAL

FILE = "suspects.json"  # in the journal's folder


def remember(directory: Path, found: dict[str, list[float]]) -> None:
    """Add items, with the magnitudes that they were seen to launch, to the folder's suspects."""
    path = directory / FILE
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(recall(directory) | found, allow_nan=False), encoding="utf-8")
    draft.replace(path)


def recall(directory: Path) -> dict[str, list[float]]:
    """The folder's suspects."""
    if not (directory / FILE).exists():
        return {}
    found: dict[str, list[float]] = json.loads((directory / FILE).read_text(encoding="utf-8"))
    return found


def suspects_here() -> dict[str, list[float]]:
    """Those that the supervisor of this process names; none where there is no supervisor."""
    folder = os.environ.get(JOURNAL)
    return recall(Path(folder)) if folder else {}


def divided(items: Iterable[Item], suspects: dict[str, list[float]]) -> list[Item]:
    """The items, each suspect in its place as one item a magnitude and pass.

    Magnitudes of a frontier's bisection, which no plan knows, follow those of the grid.
    """
    return [
        part
        for item in items
        for part in (_parts(item, suspects[item.id]) if item.id in suspects else (item,))
    ]


def _parts(item: Item, launched: Iterable[float]) -> Iterator[Item]:
    visited = sorted(set(launched) - set(item.magnitudes))
    for magnitudes, refined in ((item.magnitudes, False), (visited, True)):
        for magnitude in magnitudes:
            for pass_ in item.passes:
                yield replace(
                    item, magnitudes=(magnitude,), passes=(pass_,), alone=True, refined=refined
                )
