"""Training runs: final loss and first bad step against the learning rate, and what rate is safe.

A curve is all rates and seeds of a training with everything else equal.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from harness.record import Record
from harness.report.charts import INKS, MARKERS, inline_svg, named
from harness.report.runs import Shown, in_order
from harness.report.words import kind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CHARTS = 24
MOST_PATHS = len(MARKERS)  # of a chart: more have no marker of their own
MOST_ADVICE = 600
# A rate too small to learn anything in the steps given ends about where it began: not unstable.
_NOISE = 0.05
# What makes a chart, beside workload, operation and precision: curves of the same group differ in
# the path of the cost alone.
_GROUP = ("optimizer", "schedule", "normalization", "initialization", "clip")


@dataclass(frozen=True, slots=True)
class Point:
    """A learning rate: the median over its seeds."""

    rate: float
    loss: float | None  # None if a seed did not end with a finite loss
    first_bad: float | None  # median of the seeds that went bad
    bad: int  # seeds that did
    seeds: int


@dataclass(frozen=True, slots=True)
class Curve:
    """A path of the cost along the learning rates, and the advice that follows from it."""

    letter: str
    group: tuple[str, ...]
    path: str
    points: tuple[Point, ...]  # by rate
    untrained: float | None  # loss before the first step
    highest_stable: float | None  # every seed of it and of all lower rates is
    first_unstable: float | None
    best: float | None  # rate of the lowest final loss
    best_loss: float | None
    first_bad_step: float | None  # at first_unstable
    verdict: str  # there, the worst
    kind: str  # class of its cell

    @property
    def where(self) -> str:
        """The axes of its group, as far as they say something."""
        return " · ".join(name for name in self.group if name)


@dataclass(frozen=True, slots=True)
class Chart:
    """The curves of one group, drawn."""

    title: str
    operation: str
    figure: Markup
    left_out: int


@dataclass(frozen=True, slots=True)
class Training:
    """Everything the section shows."""

    curves: tuple[Curve, ...]
    charts: tuple[Chart, ...]
    charts_left_out: int
    curves_left_out: int


def training(runs: Sequence[Shown]) -> Training | None:
    """None where no run has training records."""
    curves = [curve for shown in runs for curve in _curves(shown)]
    if not curves:
        return None
    groups: dict[tuple[str, ...], list[Curve]] = {}
    for curve in curves:
        groups.setdefault(curve.group, []).append(curve)
    charts = [
        _chart(alike, several=len(runs) > 1, prefix=f"t{place}")
        for place, alike in enumerate(list(groups.values())[:MOST_CHARTS])
    ]
    return Training(
        tuple(curves[:MOST_ADVICE]),
        tuple(charts),
        len(groups) - len(charts),
        max(0, len(curves) - MOST_ADVICE),
    )


def _curves(shown: Shown) -> Iterable[Curve]:
    groups: dict[tuple[tuple[str, ...], str], list[Record]] = {}
    for record in shown.of_suite("training"):
        rate = record.get("learning_rate")
        if isinstance(rate, (int, float)) and rate > 0 and not record.verdict.is_fault:
            group = _group(record)
            groups.setdefault((group, record.path), []).append(record)
    for (group, path), records in groups.items():
        yield _curve(shown.letter, group, path, records)


def _group(record: Record) -> tuple[str, ...]:
    precision = record.get("precision") or record.dtype
    head = (str(record.get("workload") or ""), record.operation, str(precision))
    steps = f"{record['steps']} steps" if record.get("steps") else ""
    return (*head, *(str(record.get(axis) or "") for axis in _GROUP), steps)


def _curve(letter: str, group: tuple[str, ...], path: str, records: list[Record]) -> Curve:
    by_rate: dict[float, list[Record]] = {}
    for record in records:
        by_rate.setdefault(float(record["learning_rate"]), []).append(record)
    points = tuple(_point(rate, by_rate[rate]) for rate in sorted(by_rate))
    before = [each for r in records if (each := _number(r, "initial_loss")) is not None]
    unstable = next((p for p in points if not all(map(_stable, by_rate[p.rate]))), None)
    stable = [p.rate for p in points if unstable is None or p.rate < unstable.rate]
    losses = [(p.loss, p.rate) for p in points if p.loss is not None and not p.bad]
    best = min(losses, default=(None, None))
    there = by_rate[unstable.rate] if unstable else []
    worst = min((r.verdict for r in there), key=lambda v: v.precedence, default=None)
    # Finite to the end and yet worse than untrained: no verdict of a case says that.
    word = "" if worst is None else (worst.word if not worst.is_accurate else "diverged")
    return Curve(
        letter,
        group,
        path,
        points,
        median(before) if before else None,
        stable[-1] if stable else None,
        unstable.rate if unstable else None,
        best[1],
        best[0],
        unstable.first_bad if unstable else None,
        word,
        "k" if worst is None else (kind(worst) if not worst.is_accurate else "a"),
    )


def _point(rate: float, records: list[Record]) -> Point:
    losses = [_number(record, "final_loss") for record in records]
    bad = [each for r in records if (each := _number(r, "first_bad_step")) is not None]
    finite = [loss for loss in losses if loss is not None]
    whole = len(finite) == len(records)
    return Point(
        rate,
        median(finite) if whole else None,
        median(bad) if bad else None,
        len(bad),
        len(records),
    )


def _stable(record: Record) -> bool:
    """It stayed finite, did not diverge, and ended no higher than it began."""
    final, before = _number(record, "final_loss"), _number(record, "initial_loss")
    if not record.verdict.is_accurate or record.get("diverged") is True or final is None:
        return False
    if _number(record, "first_bad_step") is not None:
        return False
    return before is None or final <= before * (1 + _NOISE)


def _number(record: Record, name: str) -> float | None:
    value = record.get(name)
    return float(value) if isinstance(value, (int, float)) and value == value else None


def _chart(curves: list[Curve], *, several: bool, prefix: str) -> Chart:
    # A path keeps its colour and marker in all runs; the line says which run.
    paths = in_order(curve.path for curve in curves)[:MOST_PATHS]
    letters = sorted({curve.letter for curve in curves})
    drawn = [
        Drawn(
            f"{named(curve.path, 12)}{f' {curve.letter}' if several else ''}",
            curve,
            paths.index(curve.path),
            letters.index(curve.letter),
        )
        for curve in curves
        if curve.path in paths
    ]
    title = curves[0].where
    figure = inline_svg(
        lambda figure: _draw(figure, drawn),
        width=11.2,
        height=2.9,
        label=f"{title}: final loss and first bad step against the learning rate; the table"
        " of advice has the numbers",
        prefix=prefix,
    )
    return Chart(title, curves[0].group[1], figure, len(curves) - len(drawn))


@dataclass(frozen=True, slots=True)
class Drawn:
    """A curve with its name and style: a colour and marker a path, a line a run."""

    name: str
    curve: Curve
    path: int
    run: int

    @property
    def style(self) -> dict[str, Any]:
        return {
            "color": INKS[f"s{self.path}"],
            "marker": MARKERS[self.path],
            "linestyle": _LINES[self.run % len(_LINES)],
            "markersize": 3.8,
            "linewidth": 1.3,
        }


_LINES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))  # of the runs A, B, C, D
_TITLE: dict[str, Any] = {"loc": "left", "fontsize": 8.5, "color": INKS["faint"]}


def _draw(figure: "Figure", curves: Sequence[Drawn]) -> None:
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.05, right=0.985, bottom=0.17, top=0.8, wspace=0.18)
    before = [each.curve.untrained for each in curves if each.curve.untrained is not None]
    points = [point for each in curves for point in each.curve.points]
    losses = [point.loss for point in points if point.loss is not None]
    # What does not learn ends anywhere: all of it is drawn at the loss of the untrained model.
    cap = median(before) if before else max(losses, default=1.0)
    for each in curves:
        _loss(left, each, cap)
        bad = [(p.rate, p.first_bad) for p in each.curve.points if p.first_bad is not None]
        if bad:
            # A logarithmic axis has no place for step 0.
            right.plot([b[0] for b in bad], [max(b[1], 0.5) for b in bad], **each.style)
    left.axhline(cap, color=INKS["faint"], linewidth=0.9, linestyle=(0, (4, 3)))
    if losses and min(losses) > 0 and cap / min(losses) > 20:
        left.set_yscale("log")
    if right.has_data():
        right.set_yscale("log")
    else:
        right.set_yticks([])
        right.text(0.5, 0.5, "none went bad", transform=right.transAxes, ha="center")
    left.set_title("final loss (dashed: untrained; × did not learn)", **_TITLE)
    right.set_title("first bad step", **_TITLE)
    ends = min(p.rate for p in points) / 1.3, max(p.rate for p in points) * 1.3
    for axes in (left, right):
        _frame(axes, ends)
    _legend(figure, curves)


def _frame(axes: "Axes", ends: tuple[float, float]) -> None:
    """A grid, and plain numbers where a logarithmic axis would write powers."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log")
    axes.set_xlim(ends)
    axes.set_xlabel("learning rate")
    axes.grid(color=INKS["grid"], linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


def _loss(axes: "Axes", drawn: Drawn, cap: float) -> None:
    points = drawn.curve.points
    capped = [cap if p.loss is None else min(p.loss, cap) for p in points]
    axes.plot([p.rate for p in points], capped, **drawn.style)
    lost = [p.rate for p in points if p.loss is None or p.loss >= cap]
    axes.plot(lost, [cap] * len(lost), "x", color=INKS["bad"], markersize=6, zorder=5)


def _legend(figure: "Figure", curves: Sequence[Drawn]) -> None:
    """Drawn by hand: a legend's own labels would read a `$` in a name as a formula."""
    axes = figure.add_axes((0.05, 0.9, 0.935, 0.1))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    columns = max(len(curves), 6)
    for place, each in enumerate(curves):
        left = place / columns
        axes.plot([left, left + 0.2 / columns], [0.5, 0.5], **(each.style | {"markevery": [1]}))
        axes.text(left + 0.27 / columns, 0.5, each.name, va="center", parse_math=False)
