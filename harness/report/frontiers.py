"""Frontiers drawn: how far each path is finite, and how far accurate, within its dtype's limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING

from markupsafe import Markup

from harness.report.charts import INKS, inline_svg, named
from harness.report.runs import Shown, in_order
from harness.report.words import limits, short
from harness.search import Frontier
from harness.table import Row
from harness.unmeasured import dtype_order
from harness.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 40  # of a panel; more are too low to be read
_Dashes = str | tuple[int, tuple[int, int]]
_BARS = {"forward": 0.17, "backward": -0.17}  # offset of a pass's bar from the middle of its row


@dataclass(frozen=True, slots=True)
class Panel:
    """An operation in one dtype."""

    operation: str
    dtype: str
    chart: Markup
    left_out: int  # paths beyond MOST_ROWS


def panels(runs: Sequence[Shown]) -> list[Panel]:
    """One for each operation and dtype that has limits, in the order of the tables."""
    groups: dict[tuple[str, str], dict[tuple[str, str], list[Row]]] = {}
    for shown in runs:
        for row in shown.folded:
            if set(row.counts) != {Verdict.UNSUPPORTED} and limits(row.dtype) is not None:
                group = groups.setdefault((row.operation, row.dtype), {})
                group.setdefault((row.path, shown.letter), []).append(row)
    operations = in_order(operation for operation, _ in groups)
    every = sorted(groups, key=lambda key: (operations.index(key[0]), dtype_order(key[1])))
    return [
        _panel(
            operation, dtype, groups[operation, dtype], several=len(runs) > 1, prefix=f"f{place}"
        )
        for place, (operation, dtype) in enumerate(every)
    ]


def _panel(
    operation: str,
    dtype: str,
    rows: dict[tuple[str, str], list[Row]],  # by path and run
    *,
    several: bool,
    prefix: str,
) -> Panel:
    paths = in_order(path for path, _ in rows)
    # The same path of each run below the other, as in the heat maps.
    keys = sorted(rows, key=lambda key: (paths.index(key[0]), key[1]))
    told = [
        (f"{named(path, 12)} {letter}" if several else named(path, 14), rows[path, letter])
        for path, letter in keys[:MOST_ROWS]
    ]
    chart = inline_svg(
        lambda figure: _draw(figure, dtype, told),
        width=2.62,
        height=0.6 + 0.19 * len(told),
        label=f"{operation} in {dtype}: the range of magnitudes over which each path is finite and"
        " accurate; the heat map's columns have the numbers",
        prefix=prefix,
    )
    return Panel(operation, dtype, chart, len(rows) - len(told))


def _draw(figure: "Figure", dtype: str, rows: Sequence[tuple[str, list[Row]]]) -> None:
    ends = limits(dtype)
    assert ends is not None  # chosen so
    smallest, normal, largest = ends
    size_in = figure.get_size_inches()
    lead, foot, head = 1.0 / size_in[0], 0.26 / size_in[1], 0.24 / size_in[1]
    axes = figure.add_axes((lead, foot, 0.985 - lead, 1 - foot - head))
    low, high = log10(smallest), log10(largest)
    # Powers of ten on a linear axis: a log axis of matplotlib has no room below 1e-308.
    axes.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
    axes.set_ylim(len(rows) - 0.45, -0.55)
    lines: tuple[tuple[float, _Dashes], ...]
    lines = ((smallest, "-"), (normal, (0, (2, 2))), (1.0, (0, (1, 2))), (largest, "-"))
    for value, dashes in lines:
        axes.axvline(log10(value), color=INKS["grid"], linewidth=0.7, linestyle=dashes)
    axes.set_xticks([])
    for value, side in ((smallest, "left"), (1.0, "center"), (largest, "right")):
        axes.text(
            *(log10(value), -0.03, short(value)),
            transform=axes.get_xaxis_transform(),
            ha=side,
            va="top",
            color=INKS["faint"],
            fontsize=7.5,
        )
    axes.text(
        *(log10(normal), 1.02, f"normal from {short(normal)}"),
        transform=axes.get_xaxis_transform(),
        color=INKS["faint"],
        fontsize=7.5,
    )
    axes.set_yticks([])
    for place, (name, versions) in enumerate(rows):
        axes.text(
            *(-0.03, place, name),
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="center",
            parse_math=False,
        )
        for row in versions:
            _bar(axes, place - _BARS[row.pass_], row, (low, high))
    axes.spines[["left", "bottom"]].set_visible(False)


def _bar(axes: "Axes", height: float, row: Row, ends: tuple[float, float]) -> None:
    """Thin where the path is finite, thick where it is accurate, a cross where it is neither."""
    ink = INKS["s0"] if row.pass_ == "forward" else INKS["s1"]
    finite = _range(row.low, row.high, ends, "finite")
    accurate = _range(row.low, row.high, ends, "accurate")
    if finite:
        axes.plot(finite, [height] * 2, color=ink, linewidth=1.1, solid_capstyle="butt")
    if accurate:
        axes.plot(accurate, [height] * 2, color=ink, linewidth=4.6, solid_capstyle="butt")
    for frontier in (row.low, row.high):
        if frontier.nonfinite_from is not None:
            at = [log10(frontier.nonfinite_from)]
            axes.plot(at, [height], marker="x", color=INKS["bad"], markersize=4, linewidth=0)


def _range(
    low: Frontier, high: Frontier, ends: tuple[float, float], word: str
) -> tuple[float, float] | None:
    """From and to as powers of ten; None where it does not hold at magnitude 1.

    Where a layout begins beyond 1 and fails at once, no float is known to hold: up to there, then.
    """
    found = []
    for frontier, end in zip((low, high), ends, strict=True):
        finite = word == "finite"
        until = frontier.finite_until if finite else frontier.accurate_until
        beyond = frontier.nonfinite_from if finite else frontier.inaccurate_from
        if beyond == 1.0:
            return None
        last = end if beyond is None else log10(beyond if until is None else until)
        found.append(last)
    return found[0], found[1]
