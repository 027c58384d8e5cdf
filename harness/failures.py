"""How a broken claim is told: the case, its numbers, what the verdict means, one command."""

import shlex
from collections.abc import Callable, Sequence

from harness.case import decimal
from harness.record import Record

_SHOWN = 5  # cases told in full; the rest are counted


def broken_claims_text(
    records: Sequence[Record],
    reproduce: Callable[[Record], str],  # what to type to see one case again
) -> str:
    """Several sentences for people: what broke, at which input, and how to see it again."""
    told = [_one(record, reproduce(record)) for record in records[:_SHOWN]]
    if len(records) > _SHOWN:
        told.append(f"... and {len(records) - _SHOWN} more cases")
    return "\n".join(["claims broken:", *told])


def reproduction(record: Record, *, seed: object = 0, catalog: object = None) -> str:
    """The command line that runs just this case; names, which may come from a file, are quoted."""
    words = ["stability", "run", *([] if record.suite == "stability" else [record.suite])]
    words += ["--operation", record.operation, "--path", record.path]
    if record.suite == "training":
        words += ["--workload", str(record["workload"]), "--lr", decimal(record["learning_rate"])]
        precision = record.get("precision")
        words += ["--precision", str(precision)] if precision is not None else []
    else:
        words += ["--dtype", record.dtype]
        for name in ("regime", "pass", "magnitude"):
            value = record.get(name)  # a suite that this version does not know may have others
            if value is not None:
                words += [f"--{name}", decimal(value) if name == "magnitude" else str(value)]
    words += ["--seed", str(seed)]
    if catalog is not None:
        words += ["--catalog", str(catalog)]
    return shlex.join(words)


def _one(record: Record, command: str) -> str:
    verdict = record.verdict
    size = "x".join(str(extent) for extent in record["shape"])
    wrong, elements = record.get("bad", 0), record.get("elements", 0)
    share = f" in {wrong} of {elements} elements" if wrong else ""
    lines = [
        f"{record.id}: {verdict.word}{share}, input shape {size}",
        f"  {verdict.meaning} {verdict.next_step}",
    ]
    if record.get("max_ulp"):
        lines.append(f"  largest finite error: {record['max_ulp']:.3g} ulp of {record['returned']}")
    if record.get("first_bad") is not None:
        lines.append(f"  first bad element: {record['first_bad']}")
    if record.get("reason"):
        lines.append(f"  reason: {record['reason']}")
    broken = record.get("broken") or []
    lines += [f"  broken claim: {claim}" for claim in broken]
    lines.append(f"  reproduce: {command}")
    return "\n".join(lines)
