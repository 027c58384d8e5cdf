"""How a broken claim is told: the case, its numbers, what the verdict means, one command."""

from collections.abc import Sequence

from harness.case import decimal
from harness.record import Record

_SHOWN = 5  # cases told in full; the rest are counted


def broken_claims_text(
    records: Sequence[Record],
    *,
    seed: int,
    catalog: str | None = None,  # the module's name, where it is not the default one
) -> str:
    """Several sentences for people: what broke, at which input, and how to see it again."""
    told = [_one(record, seed, catalog) for record in records[:_SHOWN]]
    if len(records) > _SHOWN:
        told.append(f"... and {len(records) - _SHOWN} more cases of this item")
    return "\n".join(["claims broken:", *told])


def reproduction(record: Record, *, seed: int, catalog: str | None = None) -> str:
    """The command line that runs just this case."""
    return (
        f"stability run --operation {record.operation} --path {record.path}"
        f" --dtype {record.dtype} --regime {record['regime']} --pass {record['pass']}"
        f" --magnitude {decimal(record['magnitude'])} --seed {seed}"
        + (f" --catalog {catalog}" if catalog is not None else "")
    )


def _one(record: Record, seed: int, catalog: str | None) -> str:
    verdict = record.verdict
    size = "x".join(str(extent) for extent in record["shape"])
    lines = [
        f"{record.id}: {verdict.word} in {record.get('bad', 0)} of {record.get('elements', 0)}"
        f" elements of input shape {size}",
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
    lines.append(f"  reproduce: {reproduction(record, seed=seed, catalog=catalog)}")
    return "\n".join(lines)
