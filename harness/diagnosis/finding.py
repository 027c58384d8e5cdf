"""What a diagnosis says: findings, their evidence, and their JSON."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class TensorRange:
    """The numbers of one tensor, in brief. `min`, `max`: of its finite entries, if any."""

    shape: tuple[int, ...]
    dtype: str  # "fp16" ...
    min: float | None
    max: float | None
    absmin_nonzero: float | None
    zeros: int
    nonfinite: int


@dataclass(frozen=True, slots=True)
class Fix:
    """A repair. `verified` is None where it was not tried; the evidence then says why."""

    advice: str
    verified: bool | None
    evidence: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect; the fields are those of the JSON document."""

    kind: str  # "nonfinite" or "silent"
    step: int  # optimiser steps completed before
    phase: str  # "data", "forward", "backward", "optimizer"
    op: str  # "aten.log"; in backward, the forward operation whose gradient it is
    module: str | None
    location: str | None  # "train.py:12"
    value: str | None  # "inf", "nan", "zero"
    cause: str
    explanation: str
    inputs: tuple[TensorRange, ...] = ()
    history: dict[str, list[Any]] = field(default_factory=dict)
    repeatable: str | None = None  # "input", "state", "random"
    finite_in_fp64: bool | None = None
    reproduction: str | None = None
    fixes: tuple[Fix, ...] = ()
    source: str | None = None  # the text of the line at `location`
    notes: tuple[str, ...] = ()  # why a field is None, and what else is worth knowing


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What came of watching a training."""

    outcome: str  # "nonfinite", "silent", "clean", "script_error"
    findings: tuple[Finding, ...] = ()
    steps: int = 0  # optimiser steps seen
    notes: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """The JSON document of `stability diagnose --json`, without NaN or Infinity."""
        return {
            "schema": SCHEMA,
            "outcome": self.outcome,
            "steps": self.steps,
            "notes": list(self.notes),
            "findings": [_finite(asdict(finding)) for finding in self.findings],
        }


def outcome_of(findings: tuple[Finding, ...]) -> str:
    """A non-finite finding decides the outcome, else a silent one."""
    kinds = {finding.kind for finding in findings}
    return "nonfinite" if "nonfinite" in kinds else "silent" if kinds else "clean"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value


def from_plain(document: dict[str, Any]) -> Diagnosis:
    """The diagnosis that a document of `to_plain` holds."""
    findings = []
    for each in document["findings"]:
        ranges = [
            TensorRange(**{**one, "shape": tuple(one["shape"])}) for one in each.pop("inputs")
        ]
        fixes = [Fix(**one) for one in each.pop("fixes")]
        notes = tuple(each.pop("notes"))
        findings.append(Finding(**each, inputs=tuple(ranges), fixes=tuple(fixes), notes=notes))
    return Diagnosis(
        document["outcome"], tuple(findings), document["steps"], tuple(document["notes"])
    )
