"""Station five: one measured case as one line of JSON, and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.case import Case, Pass
from harness.compact import Sharing
from harness.judgement import Judgement
from harness.record_fields import check_fields, shown
from harness.verdict import Verdict, verdict_named

if TYPE_CHECKING:
    from harness.operation import Claim, Path


@dataclass(frozen=True, slots=True)
class Record:
    """A case and what came of it. `data` holds the axes and measurements that a suite adds."""

    id: str
    suite: str
    operation: str
    path: str
    dtype: str
    verdict: Verdict
    data: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        """A field of the suite's own: `magnitude`, `pass`, `max_ulp` ...; KeyError if absent."""
        return self.data[key]

    def get(self, key: str, default: Any = None) -> Any:
        """As `dict.get`, for the suite's own fields."""
        return self.data.get(key, default)

    def to_dict(self) -> dict[str, Any]:
        """Plain data in the order in which a line is written; absent values are left out."""
        head = {
            "id": self.id,
            "suite": self.suite,
            "operation": self.operation,
            "path": self.path,
            "dtype": self.dtype,
            "verdict": self.verdict.word,
        }
        return head | {key: value for key, value in self.data.items() if value is not None}

    def to_json(self) -> str:
        """One line. Raises ValueError if a number is NaN or infinite: a verdict says that."""
        return json.dumps(self.to_dict(), allow_nan=False, ensure_ascii=True)


_HEAD = ("id", "suite", "operation", "path", "dtype", "verdict")


def record_from_dict(raw: object, sharing: Sharing | None = None) -> Record:
    """Read a record from parsed JSON; with `sharing`, in little memory beside many others.

    Raises:
        ValueError: if it is no object, lacks a field that every record has, has one of the wrong
            type, names a verdict that does not exist, or lacks what its suite needs.
    """
    if not isinstance(raw, dict):
        raise ValueError(f"a record is a JSON object, not {type(raw).__name__}")
    for key in _HEAD:
        if not isinstance(raw.get(key), str):
            raise ValueError(f"a record needs the text field {key!r}")
    try:
        verdict = verdict_named(raw["verdict"])
    except KeyError:
        raise ValueError(f"unknown verdict {shown(raw['verdict'])}") from None
    check_fields(raw)
    suite, operation, path, dtype = raw["suite"], raw["operation"], raw["path"], raw["dtype"]
    if sharing is None:
        rest = {key: value for key, value in raw.items() if key not in _HEAD}
        return Record(raw["id"], suite, operation, path, dtype, verdict, rest)
    same = sharing.text
    names = same(suite), same(operation), same(path), same(dtype)
    return Record(raw["id"], *names, verdict, sharing.fields(raw, without=_HEAD))


def stability_record(
    case: Case, judgement: Judgement, path: "Path", *, seconds: float, refined: bool
) -> Record:
    """The record of a case of the stability suite.

    `seconds` is the time of the whole item, shared by all its cases; `refined` marks a magnitude
    that the bisection of a frontier visited, as against one of the grid.
    """
    broken = broken_claims(path, judgement.verdict)
    return Record(
        case.id,
        "stability",
        case.operation,
        case.path,
        case.dtype,
        judgement.verdict,
        {
            "regime": case.regime,
            "magnitude": case.magnitude,
            "shape": list(case.shape),
            "pass": case.pass_,
            "options": dict(case.options) or None,
            "returned": judgement.returned or None,
            "max_ulp": judgement.max_ulp,
            "bad": judgement.bad,
            "elements": judgement.elements,
            "first_bad": list(judgement.first_bad) if judgement.first_bad is not None else None,
            "representable": judgement.representable,
            "claimed": bool(path.claims),
            "broken": [claim.name for claim in broken] or None,
            "overwrites_input": True if judgement.overwrote_clone else None,
            "reason": judgement.reason or None,
            "refined": True if refined else None,
            "seconds": round(seconds, 6),
        },
    )


def broken_claims(path: "Path", verdict: Verdict) -> "list[Claim]":
    """The claims of a path that this verdict breaks; none for a path that claims nothing."""
    return [claim for claim in path.claims if verdict in claim.broken_by]


def judgement_of(record: Record) -> Judgement:
    """What a table or a frontier needs of a stability record, as it was judged."""
    return _JUDGED[bool(record.get("representable", True))][record.verdict]


# One for each that there can be: a million records are judged alike.
_JUDGED = {
    fair: {verdict: Judgement(verdict, fair) for verdict in Verdict} for fair in (False, True)
}


def pass_of(record: Record) -> Pass:
    """Which pass a stability record measured."""
    return "backward" if record["pass"] == "backward" else "forward"
