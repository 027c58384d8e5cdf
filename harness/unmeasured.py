"""What a run could not measure: cases that a path does not take, each with the reason it gave."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.formats import FORMATS
from harness.record import Record
from harness.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """Cases that a path does not take, with the reason it gave."""

    operation: str
    path: str
    reason: str
    scope: str  # "everything", or which dtypes, regimes, pass
    cases: int


def is_measured(record: Record) -> bool:
    """Whether a case says something of its path: not what Triton's interpreter itself cannot run,
    which a GPU may.
    """
    by_interpreter = str(record.get("reason", "")).startswith("InterpreterError")
    return record.verdict is not Verdict.UNSUPPORTED and not by_interpreter


def unmeasured(by_path: dict[tuple[str, str], list[Record]]) -> Iterator[Unmeasured]:
    """One for each path and reason, of (operation, path) -> all of its records, in that order."""
    for (operation, path), mine in by_path.items():
        reasons: dict[str, list[Record]] = {}
        for record in mine:
            if not is_measured(record):
                reasons.setdefault(str(record.get("reason", "no reason")), []).append(record)
        for reason, refused in reasons.items():
            yield Unmeasured(operation, path, reason, _scope(refused, mine), len(refused))


def _scope(refused: Sequence[Record], every: Sequence[Record]) -> str:
    """What a path refuses: each axis of which it does not refuse all is named."""
    told = []
    for axis in ("dtype", "regime", "pass"):
        some = dict.fromkeys(_axis(record, axis) for record in refused)
        if set(some) != {_axis(record, axis) for record in every}:
            named = sorted(some, key=dtype_order) if axis == "dtype" else list(some)
            told.append(f"{axis} {', '.join(named)}")
    return "; ".join(told) or "everything"


def _axis(record: Record, axis: str) -> str:
    return record.dtype if axis == "dtype" else str(record[axis])


def dtype_order(dtype: str) -> tuple[int, str]:
    """Sorts dtypes from narrow to wide; unknown names last."""
    names = list(FORMATS)
    return (names.index(dtype) if dtype in names else len(names), dtype)
