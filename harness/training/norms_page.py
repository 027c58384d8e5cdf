"""The page's section on FastNorm: its claims, in Markdown tables."""

from collections.abc import Mapping, Sequence

from harness.training.curves import Curve
from harness.training.norms import accuracies, drifts, growth, norm_times
from harness.training.setting import Setting
from harness.training.trials import Interval


def factor_words(found: Interval | None) -> str:
    """An estimate with its interval; nothing where there is none."""
    return "" if found is None else f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"


def fastnorm_lines(curves: Mapping[tuple[Setting, int], Curve]) -> list[str]:
    """Its claims, from runs that differ in the normalisation alone."""
    lines = [
        "## FastNorm's claims",
        "",
        "Beside weight normalisation and none. Accuracy on the test set of the runs that ended"
        " well, mean ± standard deviation over seeds, how many in brackets where not all did."
        " **stable**: the highest rate at which and below which every run ended well, and the"
        " median of the seeds' own. **rate**: the seeds' highest stable rates over those without"
        " normalisation, with its 95% interval (Student's t). **spread**: the standard deviation"
        " over seeds relative to no"
        " normalisation, over the rates at which all runs of both ended well, with its 95%"
        " interval (F distribution).",
        "",
        "| training | steps, seeds | normalisation | stable | rate | spread | accuracy by rate |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in accuracies(curves):
        told = "; ".join(_by_rate(each.seeds, *one) for one in each.by_rate)
        lines.append(
            f"| {each.name} | {each.steps}, {each.seeds} | {each.normalization} |"
            f" {_rate(each.stable)}, {_rate(_middle(each.stable_by_seed))} |"
            f" {factor_words(each.rate)} | {factor_words(each.spread)} | {told} |"
        )
    periods, rows = drifts(curves)
    if rows:
        heads = [f"every {each} steps" if each.isdigit() else each for each in periods]
        lines += [
            "",
            "Largest relative drift of an inferred norm over a whole run, by dtype of the weight"
            " and refresh period. Halves are inferred here on request; by default their norms are"
            " computed.",
            "",
            f"| refreshed | {' | '.join(heads)} |",
            f"|{'---|' * (1 + len(heads))}",
        ]
        for name, values in rows:
            told = " | ".join("" if each is None else f"{each:.1e}" for each in values)
            lines.append(f"| {name} | {told} |")
    return [*lines, *_norm_times(curves), ""]


def _norm_times(curves: Mapping[tuple[Setting, int], Curve]) -> list[str]:
    times = norm_times(curves)
    exponents = growth(times)
    if exponents is None:
        return []
    return [
        "",
        "The norm's own time in a square layer, the least over a run, on a CPU without the"
        " interpreter: how it grows, not how fast a GPU is. The products around it cost the same"
        f" in both. Between the two widest layers the time grows as n^{exponents[0]:.1f} for exact"
        f" norms and as n^{exponents[1]:.1f} for inferred ones.",
        "",
        "| width | exact norms, ms | inferring them, ms |",
        "|---|---|---|",
        *(f"| {width} | {exact * 1e3:.3f} | {fast * 1e3:.3f} |" for width, exact, fast in times),
    ]


def _rate(rate: float | None) -> str:
    return "none" if rate is None else f"{rate:g}"


def _middle(rates: Sequence[float | None]) -> float | None:
    """The median of the seeds' highest stable rates, the lower one of two; None counts as 0."""
    return sorted((each or 0.0) for each in rates)[(len(rates) - 1) // 2] or None


def _by_rate(
    seeds: int, rate: float, mean: float | None, deviation: float | None, well: int
) -> str:
    ended = f" ({well} of {seeds})" if well < seeds else ""
    if mean is None or deviation is None:
        return f"{rate:g}: -{ended}"
    return f"{rate:g}: {mean:.3f} ± {deviation:.3f}{ended}"
