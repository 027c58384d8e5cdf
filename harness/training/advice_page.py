"""results/ADVICE.md: what came of each piece of advice, written from a run and nothing else."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.store import Run
from harness.training.agreement import Agreement, agreements, longest, summary, thinned
from harness.training.curves import Curve, curves_of
from harness.training.declare import Advice, Trial
from harness.training.norms_page import factor_words, fastnorm_lines
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
_PAIRS = 3  # shown step by step
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
    lines += fastnorm_lines(curves)
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
        f" {factor_words(result.delay)} | {factor_words(result.loss)} |"
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
    return [*lines, *_bangs(agreements(curves))]


def _bangs(pairs: list[Agreement]) -> list[str]:
    """The pairs that went furthest together, step by step."""
    if not pairs:
        return []
    lines = ["", "## Identical until the bang", "", summary(pairs)]
    for pair in longest(pairs)[:_PAIRS]:
        lines += [
            "",
            f"{pair.name}: the naive cost broke at step {pair.broke_at}.",
            "",
            f"| step | naive | {pair.stable_path} | relative difference |",
            "|---|---|---|---|",
        ]
        for each in thinned(pair):
            naive = "not finite" if each.naive is None else f"{each.naive:.6g}"
            apart = "" if each.difference is None else f"{each.difference:.1e}"
            lines.append(f"| {each.step} | {naive} | {each.stable:.6g} | {apart} |")
    return lines
