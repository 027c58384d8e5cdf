"""A timed case as a record: samples as they were taken, and what follows from them."""

from typing import Any

from harness.record import Record, broken_claims
from harness.timing.card import rounds_fields
from harness.timing.measure import GroupResult
from harness.timing.quotients import quotient, summarize
from harness.timing.speed_case import SpeedCase
from harness.verdict import Verdict

NAIVE = "naive"  # the path whose time is the price's denominator
# Not the path's doing: it was not asked, or the device is too small for it.
_EXCUSED = frozenset({Verdict.UNSUPPORTED, Verdict.OUT_OF_MEMORY})


def speed_record(case: SpeedCase, result: GroupResult) -> Record:
    """The record of one path of a measured group."""
    group, measured = case.group, result.paths[case.path.name]
    verdict = measured.judgement.verdict
    broken = [] if verdict in _EXCUSED else broken_claims(case.path, verdict)
    data: dict[str, Any] = {
        "regime": group.regime.name,
        "magnitude": group.magnitude,
        "shape": list(group.shape),
        "pass": group.pass_,
        "options": group.options,
        "claimed": bool(case.path.claims),
        "broken": [claim.name for claim in broken] or None,
        "timer": group.device,
        "threads": result.threads,
        "reason": measured.judgement.reason or None,
        "max_ulp": measured.judgement.max_ulp,
    }
    if measured.samples:
        data |= _speed(case.path.name, result)
    data["seconds"] = round(result.seconds, 6)
    return Record(
        case.id, "speed", group.operation.name, case.path.name, group.fmt.name, verdict, data
    )


def _speed(path: str, result: GroupResult) -> dict[str, Any]:
    measured = result.paths[path]
    summary = summarize(measured.samples)
    copy = result.copy_bytes / summarize(result.copy_samples).median / 1e9
    rate = result.bytes_least / summary.median / 1e9
    ratios = {
        other: quotient(measured.samples, found.samples)
        for other, found in result.paths.items()
        if other != path and found.samples
    }
    return {
        "samples": list(measured.samples),
        "median_seconds": summary.median,
        "low_seconds": summary.low,
        "high_seconds": summary.high,
        "bytes_least": result.bytes_least,
        "gigabytes_per_second": rate,
        "copy_gigabytes_per_second": copy,
        "share_of_copy": rate / copy,
        "peak_bytes": measured.peak_bytes,
        "waits_for_host": True if measured.waits_for_host else None,
        "rounds": rounds_fields(result.states),
        "repeated_rounds": result.repeated,
        "ratios": ratios or None,
        "price_of_safety": ratios.get(NAIVE),
    }
