"""The report of a diagnosis for people, on standard error."""

import textwrap
from typing import Any

from harness.diagnosis.finding import Diagnosis, Finding, TensorRange

# What a terminal shows without folding lines.
_WIDTH = 80


def report(
    diagnosis: Diagnosis,
    rank: str | None = None,  # "1 of 4" among the processes of torchrun
) -> str:
    """The whole report; ends with a newline."""
    lines: list[str]
    if not diagnosis.findings:
        lines = [f"stability: {_plain_outcome(diagnosis)}"]
    else:
        lines = []
        for number, finding in enumerate(diagnosis.findings):
            lines += [*([""] if number else []), *of_finding(finding)]
    if rank is not None:
        lines[0] = lines[0].replace("stability: ", f"stability: rank {rank}: ", 1)
    lines += [f"  note: {note}" for note in diagnosis.notes]
    return "\n".join(lines) + "\n"


def _plain_outcome(diagnosis: Diagnosis) -> str:
    if diagnosis.outcome == "script_error":
        return "the script failed by itself; nothing that is not finite was found before"
    if not diagnosis.steps:
        return "clean, but nothing was judged"
    return f"clean: {diagnosis.steps} steps, every loss, gradient and weight finite"


def of_finding(finding: Finding) -> list[str]:
    """One finding, as lines."""
    places = [finding.phase]
    if finding.module:
        places.append(f"module {finding.module}")
    lines = _wrapped("stability: ", _head(finding), "  ")
    if finding.source:
        lines.append(("  line     " + finding.source)[:_WIDTH])
    lines += ["  where    " + ", ".join(places)]
    lines += _wrapped("  why      ", finding.explanation)
    for number, fix in enumerate(finding.fixes):
        mark = {True: "verified", False: "failed", None: "not tried"}[fix.verified]
        lines += _wrapped(
            "  fixes    " if not number else "           ",
            f"[{mark}] {fix.advice} ({fix.evidence})",
        )
    if finding.reproduction:
        lines.append(f"  again    python {finding.reproduction}")
    for number, each in enumerate(finding.inputs[:4]):
        lines += _wrapped("  inputs   " if not number else "           ", _range(each))
    lines += _history(finding.history)
    if finding.repeatable is not None:
        lines += _wrapped("  repeats  ", _REPEATS[finding.repeatable])
    if finding.finite_in_fp64 is not None:
        lines.append("  in fp64  " + ("finite" if finding.finite_in_fp64 else "not finite either"))
    for note in finding.notes:
        lines += _wrapped("  note     ", note)
    return lines


def _head(finding: Finding) -> str:
    """The line to look at, what it does, when, and the name of the cause."""
    what = {"nan": "NaN", "inf": "infinity", "zero": "zeros"}.get(finding.value or "")
    did = f"{finding.op} gives {what}" if what and finding.op != "optimizer.step" else finding.op
    during = {"backward": " in backward", "optimizer": " in the optimiser"}.get(finding.phase, "")
    place = f"{finding.location}: " if finding.location else ""
    return f"{place}{did}{during} at step {finding.step}: {finding.cause}"


_REPEATS = {
    "input": "with this batch: another batch on the same weights is finite",
    "state": "with these weights: on others this batch is finite, or other batches fail too",
    "random": "not always: the same step with other random numbers is finite",
}


def _range(each: TensorRange) -> str:
    shape = " x ".join(map(str, each.shape)) or "scalar"
    text = f"{shape} {each.dtype}"
    if each.min is not None and each.max is not None:
        text += f", {each.min:.5g} to {each.max:.5g}"
    if each.absmin_nonzero is not None:
        text += f", smallest nonzero {each.absmin_nonzero:.3g}"
    if each.zeros:
        text += f", {each.zeros} zeros"
    if each.nonfinite:
        text += f", {each.nonfinite} not finite"
    return text


def _history(history: dict[str, list[Any]]) -> list[str]:
    lines: list[str] = []
    count = min(5, len(history.get("step", ())))
    for name in history:
        if count < 1 or (name in ("rate",) and len(set(history[name])) == 1):
            continue
        shown = history[name][-count:]
        cells = ["-" if each is None else f"{each:.4g}" for each in shown]
        title = "  history  " if not lines else "           "
        lines.append(f"{title}{name:<14}" + " ".join(f"{cell:>10}" for cell in cells))
    return lines


def _wrapped(title: str, text: str, indent: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=title,
        subsequent_indent=" " * len(title) if indent is None else indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
