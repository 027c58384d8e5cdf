"""What trainings found: slopes, sensitivity, a naive cost beside a stable one, advice, norms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from harness.report.charts import INKS, inline_svg
from harness.report.runs import Shown
from harness.training.agreement import Agreement, agreements, longest, summary, thinned
from harness.training.curves import curves_of
from harness.training.norms import Accuracy, accuracies, drifts, growth, norm_times
from harness.training.table import Row, training_rows
from harness.training.trials import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 400
MOST_PAIRS = 6


@dataclass(frozen=True, slots=True)
class Pair:
    """A naive and a stable cost from one seed, drawn, and in numbers."""

    title: str
    figure: Markup
    path: str
    steps: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """A trial of a piece of advice, in words."""

    advice: str
    quote: str
    control: str
    change: str
    verdict: str
    counts: str
    share: str
    delay: str
    loss: str


@dataclass(frozen=True, slots=True)
class Findings:
    """Of one run."""

    letter: str
    rows: tuple[Row, ...]
    rows_left_out: int
    unmeasured: tuple[str, ...]  # curves that could not be had, and why
    agreement: str  # one paragraph, empty without pairs
    pairs: tuple[Pair, ...]
    advice: tuple[Tried, ...]
    norms: tuple[Accuracy, ...]
    periods: tuple[str, ...]
    drifts: tuple[tuple[str, list[float | None]], ...]
    times: tuple[tuple[int, float, float], ...]
    growth: tuple[float, float] | None


def findings(runs: Sequence[Shown]) -> list[Findings]:
    """Those of every run that has training records."""
    return [_of(shown) for shown in runs if any(True for _ in shown.of_suite("training"))]


def _of(shown: Shown) -> Findings:
    records = list(shown.of_suite("training"))
    curves = curves_of(records)
    every = training_rows(records)
    rows = [row for row in every if row.curve.runs]
    pairs = agreements(curves)
    periods, drifted = drifts(curves)
    times = norm_times(curves)
    return Findings(
        shown.letter,
        tuple(rows[:MOST_ROWS]),
        max(0, len(rows) - MOST_ROWS),
        tuple(f"{row.name}: {row.curve.unsupported}" for row in every if not row.curve.runs),
        summary(pairs) if pairs else "",
        tuple(
            _pair(pair, f"p{shown.letter}{place}")
            for place, pair in enumerate(longest(pairs)[:MOST_PAIRS])
        ),
        tuple(_tried(shown)),
        tuple(accuracies(curves)),
        tuple(periods),
        tuple(drifted),
        tuple(times),
        growth(times),
    )


def _pair(pair: Agreement, prefix: str) -> Pair:
    title = f"{pair.name}: naive breaks at step {pair.broke_at}, {pair.stable_path} goes on"
    figure = inline_svg(
        lambda figure: _draw(figure, pair),
        width=11.2,
        height=2.4,
        label=f"{title}: loss of both and their relative difference against the step",
        prefix=prefix,
    )
    steps = tuple(
        (
            str(each.step),
            "not finite" if each.naive is None else f"{each.naive:.6g}",
            f"{each.stable:.6g}",
            "" if each.difference is None else f"{each.difference:.1e}",
        )
        for each in thinned(pair)
    )
    return Pair(title, figure, pair.stable_path, steps)


def _draw(figure: "Figure", pair: Agreement) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.05, right=0.985, bottom=0.2, top=0.88, wspace=0.18)
    both = [each for each in pair.steps if each.difference is not None]
    stable = INKS["s1"]
    left.plot([e.step for e in pair.steps], [e.stable for e in pair.steps], color=stable, lw=2.4)
    left.plot([e.step for e in both], [e.naive for e in both], color=INKS["s0"], lw=0.9)
    # What is equal has no logarithm: it is drawn at one roundoff of the recorded digits.
    apart = [max(each.difference or 0.0, 1e-8) for each in both]
    right.plot([e.step for e in both], apart, color=INKS["s0"], lw=1.0)
    right.set_yscale("log")
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
    right.yaxis.set_minor_formatter(NullFormatter())
    for axes, title in (
        (left, f"batch loss: thin naive, thick {pair.stable_path}; × the break"),
        (right, "relative difference until the break"),
    ):
        _frame(axes, title)
    last = both[-1]
    left.plot([last.step], [last.naive], "x", color=INKS["bad"], markersize=7, zorder=5)


def _frame(axes: "Axes", title: str) -> None:
    axes.set_title(title, loc="left", fontsize=8.5, color=INKS["faint"], parse_math=False)
    axes.set_xlabel("step")
    axes.grid(color=INKS["grid"], linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)


def _tried(shown: Shown) -> list[Tried]:
    """Nothing for a run that tried no advice, or a stranger's whose trials are not known here."""
    if not any("advice" in (r.get("slices") or ()) for r in shown.of_suite("training")):
        return []
    from harness.errors import InputError
    from harness.training.advice_page import change_words, name_words
    from harness.training.declare import load_declared
    from harness.training.trials import judge_trial

    try:
        advice = load_declared().advice
    except InputError:
        return []
    curves = curves_of(shown.of_suite("training"))
    found = []
    for each in advice:
        for trial in each.trials:
            result = judge_trial(trial, curves)
            counts = f"{result.control_well} → {result.treatment_well} of {result.pairs}"
            found.append(
                Tried(
                    each.name,
                    each.quote,
                    f"{name_words(trial.control)}, {trial.steps} steps",
                    change_words(trial),
                    result.verdict,
                    counts if result.share else "",
                    _interval(result.share, "+.2f"),
                    _interval(result.delay, ".3g"),
                    _interval(result.loss, ".3g"),
                )
            )
    return found


def _interval(found: Interval | None, form: str) -> str:
    return (
        "" if found is None else f"{found.value:{form}} [{found.low:{form}}, {found.high:{form}}]"
    )
