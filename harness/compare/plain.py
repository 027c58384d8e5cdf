"""The comparison as data: one JSON document, complete, without NaN or infinity."""

from dataclasses import asdict
from typing import Any

from harness.compare.comparison import Comparison
from harness.compare.gate import DEFAULT_KINDS, exit_code, failures
from harness.compare.speed import Answer
from harness.compare.stability import Change

SCHEMA = 1


def to_plain(comparison: Comparison, kinds: frozenset[str] = DEFAULT_KINDS) -> dict[str, Any]:
    """Everything that was found; `exit_code` is the command's, failing on `kinds`."""
    stability, speed, training = comparison.stability, comparison.speed, comparison.training
    return {
        "schema": SCHEMA,
        "base": str(comparison.base),
        "new": str(comparison.new),
        "exit_code": int(exit_code(comparison, kinds)),
        "fail_on": sorted(kinds),
        "failures": failures(comparison),
        "unfinished": list(comparison.unfinished),
        "environment": [asdict(each) for each in comparison.environment],
        "stability": {
            "same": stability.same,
            "regressions": [_plain(each) for each in stability.regressions],
            "improvements": [_plain(each) for each in stability.improvements],
            "changes": [_plain(each) for each in stability.changes],
            "withdrawn": [asdict(each) for each in stability.withdrawn],
            "frontiers": [asdict(each) for each in stability.moves],
        },
        "speed": {
            "least_change": speed.least_change,
            "common": speed.common,
            "scatter": speed.scatter,
            "controls": speed.controls,
            "counts": {answer.value: speed.count(answer) for answer in Answer},
            "rows": [asdict(row) | {"answer": row.answer.value} for row in speed.rows],
        },
        "training": {
            "curves": [
                asdict(curve) | {"regression": curve.regression} for curve in training.curves
            ]
        },
        "missing": list(comparison.missing),
        "added": list(comparison.added),
        "renamed": [asdict(each) for each in comparison.renamed],
    }


def _plain(change: Change) -> dict[str, Any]:
    return asdict(change) | {"base": change.base.word, "new": change.new.word}
