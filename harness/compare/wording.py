"""What the text and Markdown forms of a comparison share: counts and cells in words."""

from collections.abc import Iterable

from harness.case import decimal
from harness.compare.comparison import Comparison
from harness.compare.frontiers import Move
from harness.compare.speed import Answer, Speed, SpeedRow
from harness.compare.stability import Change
from harness.compare.training import Curve


def headline(comparison: Comparison) -> str:
    """The verdict of the whole in a few words."""
    stability, speed, training = comparison.stability, comparison.speed, comparison.training
    worse = stability.failures + speed.count(Answer.SLOWER) + training.failures
    unclear = speed.count(Answer.UNCLEAR)
    said = counted(worse, "regression") if worse else "no regression"
    if unclear:
        said += f", {counted(unclear, 'unclear timing')}"
    return said + ("; not all was measured" if comparison.unfinished else "")


def counts(comparison: Comparison) -> list[tuple[str, str]]:
    """(station, what happened there), for those that have anything to say."""
    stability, speed, training = comparison.stability, comparison.speed, comparison.training
    moved = [move.inwards for move in stability.moves]
    lines = [
        (
            "verdicts",
            f"{len(stability.regressions)} worse, {len(stability.improvements)} better, "
            f"{len(stability.changes)} otherwise, {stability.same} the same",
        ),
        ("frontiers", f"{sum(moved)} moved inwards, {len(moved) - sum(moved)} outwards"),
    ]
    if stability.withdrawn:
        lines.append(("claims", f"{len(stability.withdrawn)} lost"))
    if speed.rows:
        told = (f"{speed.count(answer)} {answer.value}" for answer in Answer)
        lines.append(("speed", ", ".join(told)))
    if training.curves:
        lines.append(
            ("training", f"{training.failures} of {counted(len(training.curves), 'curve')} worse")
        )
    listed = f"{len(comparison.missing)} missing, {len(comparison.added)} new"
    lines.append(("cases", f"{listed}, {len(comparison.renamed)} names renamed"))
    return lines


def counted(number: int, noun: str) -> str:
    """`1 regression`, `2 regressions`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def change_words(change: Change) -> str:
    """ok -> nan, and what was promised."""
    said = f"{change.base.word} -> {change.new.word}"
    if change.broken:
        return f"{said} (broken claim: {', '.join(change.broken)})"
    return f"{said} (claimed)" if change.claimed else said


def move_words(move: Move) -> str:
    """finite to 11.09 -> 10.4, towards large magnitudes or small ones."""
    word = "to" if move.side == "high" else "down to"
    ends = (_end(move.base_until, move.base_from), _end(move.new_until, move.new_from))
    said = f"{move.property} {word} {ends[0]} -> {ends[1]}"
    return f"{said} (claimed)" if move.claimed else said


def _end(until: float | None, beyond: float | None) -> str:
    if beyond is None:
        return "the end"
    return "nothing" if until is None else decimal(until)


def percent(share: float | None) -> str:
    """+5.2%, or a dash."""
    return "-" if share is None else f"{100 * share:+.1f}%"


def row_cells(row: SpeedRow) -> tuple[str, str, str]:
    """The change, its interval, and the medians of both runs."""
    interval = "-" if row.low is None else f"{percent(row.low)} to {percent(row.high)}"
    return (
        percent(row.change),
        interval,
        f"{seconds(row.base_seconds)} -> {seconds(row.new_seconds)}",
    )


def seconds(value: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def common_factor(speed: Speed) -> str:
    """What was known about the two runs as wholes."""
    if not speed.controls:
        return (
            "no common factor of the two runs could be told from unchanged code; two runs of the "
            f"same code are taken to scatter by {100 * speed.scatter:.1g}%"
        )
    return (
        f"the new run as a whole: {percent(speed.common)} by {speed.controls} timings of paths "
        f"that claim nothing, which scatter by {100 * speed.scatter:.1g}%; taken off every row"
    )


def curve_words(curve: Curve) -> str:
    """Highest stable rate, then the first bad step where there is one."""
    said = f"stable to {_rate(curve.base_rate)} -> {_rate(curve.new_rate)}"
    steps = [
        f"at {decimal(each.rate)} first bad step {each.base_step:.3g} -> {each.new_step:.3g}"
        for each in curve.rates
        if each.base_step != each.new_step
    ]
    return "; ".join([said, *steps])


def _rate(rate: float | None) -> str:
    return "no rate" if rate is None else decimal(rate)


def grouped(ids: Iterable[str]) -> list[tuple[str, int]]:
    """(operation/path/dtype, how many cases): the JSON form has each id."""
    groups: dict[str, int] = {}
    for each in ids:
        where = "/".join(each.split("/")[:3])
        groups[where] = groups.get(where, 0) + 1
    return list(groups.items())
