"""Machinery of the stability harness: cases, truth, verdicts, frontiers, records.

Promises: inputs are rounded once and truth is computed from what was rounded; non-finite values are
compared exactly before any tolerance; a recorded case is never lost or rewritten. Knows no kernel:
a catalog (default `suites.catalog`) introduces them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import assert_stable, frontier
    from harness.diagnosis.watch import watch
    from harness.errors import InputError
    from harness.operation import Claim, Expected, Operation, Path, Regime
    from harness.search import Frontier
    from harness.store import Run, load
    from harness.verdict import Verdict

__all__ = [
    "Claim",
    "Expected",
    "Frontier",
    "InputError",
    "Operation",
    "Path",
    "Regime",
    "Run",
    "Verdict",
    "assert_stable",
    "frontier",
    "load",
    "watch",
]

_HOMES = {
    "assert_stable": "harness.api",
    "frontier": "harness.api",
    "InputError": "harness.errors",
    "Frontier": "harness.search",
    "Claim": "harness.operation",
    "Expected": "harness.operation",
    "Operation": "harness.operation",
    "Path": "harness.operation",
    "Regime": "harness.operation",
    "Run": "harness.store",
    "load": "harness.store",
    "Verdict": "harness.verdict",
    "watch": "harness.diagnosis.watch",
}


def __getattr__(name: str) -> Any:
    # Names are fetched when used: `import harness` must not import torch, so that the plugin can
    # still decide about Triton's interpreter and the command line answers at once.
    if name not in _HOMES:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
