"""The rows of a speed table: one a path of a timed item, with its quotients to the others."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from harness.case import decimal
from harness.record import Record
from harness.verdict import Verdict

NAIVE = "naive"


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """One path of one item. Times are seconds; a number that a record lacks is None."""

    id: str
    operation: str
    path: str
    dtype: str
    regime: str  # with its magnitude, as in peak@9984
    shape: str  # rows x columns, and what else the size has: 8192x4096 classes=32000
    pass_: str
    timer: str  # "cuda" or "cpu"
    verdict: Verdict
    reason: str
    claimed: bool
    median: float | None = None
    low: float | None = None
    high: float | None = None
    rate: float | None = None  # GB/s of the least bytes
    share_of_copy: float | None = None
    peak_bytes: int | None = None
    price: float | None = None  # time over the naive path's, the median of paired samples
    ratios: tuple[tuple[str, float], ...] = ()  # to each other path, likewise
    sm_mhz: float | None = None  # median of the rounds
    throttled: tuple[str, ...] = ()  # reasons seen in any round
    repeated_rounds: int = 0
    waits_for_host: bool = False

    @property
    def item(self) -> tuple[str, ...]:
        """What the paths measured in the same rounds have in common."""
        return self.operation, self.dtype, self.regime, self.shape, self.pass_, self.timer

    def over(self, other: str) -> float | None:
        """This path's time over another's of the same item; 1 for itself, None if not measured."""
        if self.median is None:
            return None
        return 1.0 if other == self.path else dict(self.ratios).get(other)


def speed_rows(records: Iterable[Record]) -> list[SpeedRow]:
    """The rows of a run, in the order of its records, which is that of the catalog."""
    return [_row(record) for record in records if record.suite == "speed"]


def items(rows: Iterable[SpeedRow]) -> list[list[SpeedRow]]:
    """Rows of one item together, items in the order of their first row."""
    found: dict[tuple[str, ...], list[SpeedRow]] = {}
    for row in rows:
        found.setdefault(row.item, []).append(row)
    return list(found.values())


def reference_of(item: Iterable[SpeedRow]) -> str:
    """The path that others are held against: the first measured one that makes claims, if any."""
    measured = [row for row in item if row.median is not None]
    return next((row.path for row in measured if row.claimed), "")


def against_normal(rows: Iterable[SpeedRow]) -> list[tuple[SpeedRow, float]]:
    """Rows of other regimes and magnitudes, each with its time over that on normal@1."""
    listed = list(rows)
    plain = {
        (row.path, row.operation, row.dtype, row.shape, row.pass_, row.timer): row.median
        for row in listed
        if row.regime == "normal@1" and row.median
    }
    found = []
    for row in listed:
        usual = plain.get((row.path, row.operation, row.dtype, row.shape, row.pass_, row.timer))
        if row.regime != "normal@1" and row.median is not None and usual:
            found.append((row, row.median / usual))
    return found


def _row(record: Record) -> SpeedRow:
    options = _mapping(record.get("options"))
    extents = record.get("shape")
    shape = "x".join(str(each) for each in extents) if isinstance(extents, list) else ""
    # A norm's eps is its regime's, and the same in all rows.
    more = [f"{key}={options[key]}" for key in sorted(options) if key == "classes"]
    ratios = _mapping(record.get("ratios"))
    rounds = _mapping(record.get("rounds"))
    clocks = [clock for each in _list(rounds.get("sm_mhz")) if (clock := _number(each))]
    reasons = {
        reason
        for each in _list(rounds.get("throttle"))
        for reason in str(each).split("+")
        if reason not in ("", "idle")
    }
    peak, repeated = record.get("peak_bytes"), record.get("repeated_rounds")
    magnitude = _number(record.get("magnitude"))
    return SpeedRow(
        record.id,
        record.operation,
        record.path,
        record.dtype,
        f"{record.get('regime')}@{decimal(magnitude or 0.0)}",
        " ".join([shape, *more]),
        str(record.get("pass", "")),
        str(record.get("timer", "")),
        record.verdict,
        str(record.get("reason") or ""),
        record.get("claimed") is True,
        _number(record.get("median_seconds")),
        _number(record.get("low_seconds")),
        _number(record.get("high_seconds")),
        _number(record.get("gigabytes_per_second")),
        _number(record.get("share_of_copy")),
        peak if isinstance(peak, int) else None,
        _number(record.get("price_of_safety")),
        tuple((name, ratio) for name, each in ratios.items() if (ratio := _number(each))),
        median(clocks) if clocks else None,
        tuple(sorted(reasons)),
        repeated if isinstance(repeated, int) else 0,
        record.get("waits_for_host") is True,
    )


def _number(value: object) -> float | None:
    """A finite number of a file that anybody may have written; else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
