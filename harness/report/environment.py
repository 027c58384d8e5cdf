"""What the runs were measured on, side by side; a field in which they differ is marked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.report.runs import Shown

# Told elsewhere on the page (catalog, packages), or long without telling anything.
_LEFT_OUT = frozenset({"schema", "catalog", "packages", "complete"})
_ALWAYS_DIFFERS = frozenset({"started", "ended", "argv"})  # of two runs; not worth a mark
_LONGEST = 300  # characters of a value
_ABSENT = "–"


@dataclass(frozen=True, slots=True)
class Field:
    """A line of the table: a name, and the value of each run."""

    name: str
    values: tuple[str, ...]
    differs: bool


def fields(runs: Sequence[Shown]) -> list[Field]:
    """The lines, in the order of run.json."""
    flat = [dict(_flattened("", shown.run.environment)) for shown in runs]
    names = list(dict.fromkeys(name for each in flat for name in each))
    found = []
    for name in names:
        values = tuple(each.get(name, _ABSENT) for each in flat)
        differs = len(set(values)) > 1 and name.partition(".")[0] not in _ALWAYS_DIFFERS
        found.append(Field(name, values, differs))
    return found


def _flattened(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if prefix or key not in _LEFT_OUT:
                yield from _flattened(f"{prefix}.{key}" if prefix else str(key), inner)
    elif isinstance(value, list):
        if value:
            yield prefix, _cut(" ".join(map(str, value)))
    elif value is not None:
        yield prefix, _cut(("yes" if value else "no") if isinstance(value, bool) else str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
