"""results/ADVICE.md: what came of each piece of advice, written from a run and nothing else."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.store import Run
from harness.training.agreement import agreements, summary
from harness.training.curves import Curve, curves_of
from harness.training.declare import Advice, Trial
from harness.training.norms import accuracies, drifts, growth, norm_times
from harness.training.render import first_bad_words
from harness.training.setting import Setting
from harness.training.table import training_rows
from harness.training.trials import (
    DELAYS,
    HARMS,
    HELPS,
    NOTHING,
    UNCLEAR,
    UNMEASURED,
    Interval,
    Result,
    judge_trial,
)

_AXES = (
    *("workload", "path", "precision", "normalization"),
    *("initialization", "optimizer", "schedule", "clip"),
)
_ORDER = (HELPS, DELAYS, NOTHING, HARMS, UNCLEAR, UNMEASURED)


def advice_markdown(run: Run, advice: Sequence[Advice], folder: Path) -> str:
    """The page; `folder` is where it will lie, for the link to the run."""
    curves = curves_of(run.records)
    judged = [(each, [(t, judge_trial(t, curves)) for t in each.trials]) for each in advice]
    environment = run.environment
    versions = environment.get("versions") or {}
    device = environment.get("device") or {}
    where = Path(os.path.relpath(run.directory, folder)).as_posix()
    command = _command(environment.get("asked"))
    lines = [
        "# The advice, measured",
        "",
        "What people say to *my cost falls nicely and then is NaN*, each piece as an experiment:"
        " paired runs of a control that is in trouble and of a treatment that follows the advice"
        " and changes nothing else.",
        "",
        f"Written by `stability advice` from [{run.directory.name}]({where}): {device.get('name')},"
        f" torch {versions.get('torch')}, `{command}`. Not edited by hand.",
        "",
        "| advice | verdicts | in short |",
        "|---|---|---|",
        *(f"| {each.name} | {_counted(found)} | {_short(found)} |" for each, found in judged),
        "",
        "**ends well**: finite at every step, and at the end no worse than untrained by one"
        " evaluator in fp64. **share**: the treatment's share of runs that end well minus the"
        " control's, with its 95% interval over seeds (Student's t; no width where all seeds"
        " agree). **later by**: factor on the first bad step where both break. **loss**: factor on"
        " the final loss where both end well. *helps* and *harms*: the share's interval is clear"
        " of 0 and the change at least 0.1, or else the factor on the loss is clear of 1 and at"
        " least 1.25. *only delays*: both break, the treatment later by at least 1.25, clear of 1."
        " *unclear*: a change of 0.1 or more that the interval does not tell from 0.",
        "",
    ]
    for each, found in judged:
        lines += _section(each, found)
    lines += _fastnorm(curves)
    lines += _clocks(run, curves)
    return "\n".join(lines) + "\n"


def _command(asked: object) -> str:
    """The command line that asks for this run, wherever it was written to."""
    full = isinstance(asked, dict) and asked.get("full")
    return "stability run training" + " --full" * bool(full)


def _section(advice: Advice, found: list[tuple[Trial, Result]]) -> list[str]:
    lines = [f"## {advice.name[0].upper()}{advice.name[1:]}", "", f"> {advice.quote}", ""]
    lines += [
        "| control | treatment | rates | verdict | ends well | share | later by | loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(trial, result) for trial, result in found]
    return [*lines, ""]


def _line(trial: Trial, result: Result) -> str:
    rates = ", ".join(f"{rate:g}" for rate in trial.rates)
    head = f"| {name_words(trial.control)}, {trial.steps} steps | {change_words(trial)} | {rates} |"
    if result.share is None:
        told = f" ({result.reason})" if result.reason else ""
        return f"{head} {UNMEASURED}{told} | | | | |"
    counts = f"{result.control_well} → {result.treatment_well} of {result.pairs}"
    return (
        f"{head} **{result.verdict}** | {counts} | {_signed(result.share)} |"
        f" {_times(result.delay)} | {_times(result.loss)} |"
    )


def name_words(setting: Setting) -> str:
    """A setting, without what every one has."""
    extra = [
        f"{name} {value}"
        for name, value in setting.options.items()
        if (name, value) != ("optimizer", "sgd")
    ]
    return " ".join([setting.workload, setting.path, setting.precision, *extra])


def change_words(trial: Trial) -> str:
    """What the treatment changes, in words."""
    changed = [
        f"{axis} {getattr(trial.treatment, axis)}"
        for axis in _AXES
        if getattr(trial.treatment, axis) != getattr(trial.control, axis)
    ]
    if trial.rate_factor != 1.0:
        changed.append(f"rate × {trial.rate_factor:g}")
    if trial.steps_factor != 1:
        changed.append(f"steps × {trial.steps_factor}")
    return ", ".join(changed)


def _signed(found: Interval) -> str:
    return f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _times(found: Interval | None) -> str:
    return "" if found is None else f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"


def _counted(found: list[tuple[Trial, Result]]) -> str:
    words = [result.verdict for _, result in found]
    return ", ".join(f"{word} {words.count(word)}" for word in _ORDER if word in words)


def _short(found: list[tuple[Trial, Result]]) -> str:
    """Runs that ended well over all trials that were measured."""
    measured = [result for _, result in found if result.share is not None]
    if not measured:
        return ""
    before = sum(result.control_well for result in measured)
    after = sum(result.treatment_well for result in measured)
    return f"ends well: {before} → {after} of {sum(result.pairs for result in measured)}"


def _fastnorm(curves: Mapping[tuple[Setting, int], Curve]) -> list[str]:
    """Its claims, from runs that differ in the normalisation alone."""
    lines = [
        "## FastNorm's claims",
        "",
        "Beside weight normalisation and none. Accuracy on the test set of the runs that ended"
        " well, mean ± standard deviation over seeds, how many in brackets where not all did."
        " **stable**: the highest rate at which and below which every run ended well, and the"
        " median of the seeds' own. **spread**: the standard deviation over seeds relative to no"
        " normalisation, over the rates at which all runs of both ended well, with its 95%"
        " interval (F distribution).",
        "",
        "| training | steps, seeds | normalisation | stable | spread | accuracy by rate |",
        "|---|---|---|---|---|---|",
    ]
    for each in accuracies(curves):
        told = "; ".join(_by_rate(each.seeds, *one) for one in each.by_rate)
        lines.append(
            f"| {each.name} | {each.steps}, {each.seeds} | {each.normalization} |"
            f" {_rate(each.stable)}, {_rate(_middle(each.stable_by_seed))} |"
            f" {_times(each.spread)} | {told} |"
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


def _clocks(run: Run, curves: Mapping[tuple[Setting, int], Curve]) -> list[str]:
    lines = [
        "## Where the rate only sets the clock",
        "",
        "First bad step against learning rate, on logarithmic axes. A slope of -1: the same way,"
        " sooner or later. A cliff: rates at which nothing breaks although the line says so.",
        "",
        "| training | steps | rate: first bad step | slope [95%] |",
        "|---|---|---|---|",
    ]
    for row in training_rows(run.records):
        if row.clock is not None:
            steps = ", ".join(f"{rate:g}: {step:g}" for rate, step in row.first_bad)
            lines.append(f"| {row.name} | {row.curve.steps} | {steps} | {first_bad_words(row)} |")
    pairs = agreements(curves)
    if pairs:
        lines += ["", summary(pairs)]
    return lines
