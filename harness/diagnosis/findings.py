"""Makes a finding from an origin: cause, words, numbers, history."""

import math
from typing import Any

import torch

from harness.diagnosis import words
from harness.diagnosis.cause import Evidence, Verdict, judge, numbers_of
from harness.diagnosis.finding import Finding, Fix, TensorRange
from harness.diagnosis.flow import Origin
from harness.diagnosis.frames import location, module_path, source

_DTYPES = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp64": torch.float64,
}
# Causes of something that forward made and left out again, so that only backward fell over it.
_HIDEABLE = (
    "overflow",
    "initialization",
    "divergence",
    "log_of_zero",
    "division_by_zero",
    "domain_error",
    "empty_reduction",
)


def make(
    evidence: Evidence,
    *,
    roots: list[Any],  # outermost modules
    base: str | None,  # directory of the script
    cause: str | None = None,  # where something beyond the operation decides it
    detail: str | None = None,
    hidden: bool = False,  # the loss is finite, the gradients are not
) -> tuple[Finding, Verdict]:
    """The finding of a birth, and the verdict that later stations work on."""
    origin = evidence.origin
    verdict = judge(evidence)
    word = cause or verdict.cause
    left_out = hidden and origin.kind == "birth" and origin.phase == "forward"
    if left_out and word in _HIDEABLE and evidence.chain.hides(origin.position):
        word = "masked_branch_gradient"
    shown = None
    if verdict.position is not None and verdict.position < len(evidence.chain.entries):
        shown = evidence.chain.entries[verdict.position]
    unseen = origin.entry is None and origin.kind in ("raw", "rank")
    shown = None if unseen else shown or origin.entry
    phase = "backward" if word == "masked_branch_gradient" else origin.phase
    if word in ("bad_data", "bad_target") and origin.kind in ("data", "target"):
        phase = "data"
    elif phase == "data":
        phase = "forward"
    finding = Finding(
        kind="nonfinite",
        step=origin.step,
        phase=phase,
        op=verdict.op,
        module=module_path(shown.module, roots) if shown else None,
        location=location(shown.where, base) if shown else None,
        source=source(shown.where) if shown else None,
        value=origin.value,
        cause=word,
        explanation=explain(
            _wording(word, evidence), verdict.op, origin.inputs, detail or _detail(word, evidence)
        ),
        inputs=origin.inputs,
        history=evidence.history.columns(),
        notes=_notes(evidence),
    )
    return finding, verdict


def explain(word: str, op: str, inputs: tuple[TensorRange, ...], detail: str) -> str:
    """The three sentences, with the numbers at hand."""
    dtype = inputs[0].dtype if inputs and inputs[0].dtype in _DTYPES else "fp32"
    info = torch.finfo(_DTYPES[dtype])
    return words.EXPLANATIONS[word].format(
        op=op, dtype=dtype, limit=f"{info.max:.5g}", eps=f"{info.tiny:.2g}", detail=detail
    )


def advice(word: str) -> tuple[Fix, ...]:
    """What can only be said, not tried."""
    if word in words.ADVICE:
        return (Fix(words.ADVICE[word], None, "advice: cannot be tried on a single step"),)
    return ()


def with_advice(tried: tuple[Fix, ...], word: str) -> tuple[Fix, ...]:
    """What was tried; and advice, unless a repair held and leaves nothing to look for."""
    if any(fix.verified for fix in tried) and word not in ("bad_data", "bad_target"):
        return tried
    return tried + advice(word)


def spell(ranges: tuple[TensorRange, ...]) -> str:
    """The inputs' numbers in a few words."""
    said = []
    for each in ranges[:3]:
        text = f"{'x'.join(map(str, each.shape)) or 'scalar'} {each.dtype}"
        if each.min is not None and each.max is not None:
            text += f" from {each.min:.4g} to {each.max:.4g}"
        if each.zeros:
            text += f", {each.zeros} zero"
        if each.nonfinite:
            text += f", {each.nonfinite} not finite"
        said.append(text)
    return "; ".join(said) or "no floating-point inputs"


def _wording(word: str, evidence: Evidence) -> str:
    """The key of the explanation: a cause may need other words for one kind of operation."""
    origin = evidence.origin
    numbers = numbers_of(origin.entry) if origin.entry is not None else []
    if (
        word == "divergence"
        and origin.phase == "optimizer"
        and not all(map(math.isfinite, numbers))
    ):
        return "divergence/rate"
    if word == "unknown" and evidence.from_other_rank:
        return "unknown/rank"
    if word == "bad_target" and "ctc_loss" in origin.name:
        return "bad_target/ctc"
    return word


def _detail(word: str, evidence: Evidence) -> str:
    history = evidence.history
    if word == "divergence":
        grown = [
            f"{name.replace('_', ' ')} {history.growth(name):.3g} times its first value"
            + (f" ({rate:.3g}x a step at the end)" if (rate := history.rate(name)) else "")
            for name in ("loss", "gradient_norm", "weight_norm", "output")
            if history.growth(name) > 3
        ]
        return ", ".join(grown) or spell(evidence.origin.inputs)
    return spell(evidence.origin.inputs)


def _notes(evidence: Evidence) -> tuple[str, ...]:
    origin: Origin = evidence.origin
    entry = origin.entry
    notes = []
    if entry is not None and entry.node is not None:
        notes.append(f"in backward: {entry.node.name()}, {origin.name}")
    rows = [row.get("loss") for row in evidence.history.rows]
    finite = [each for each in rows if each is not None and math.isfinite(each)]
    if len(finite) >= 3:
        factor = evidence.history.growth("loss")
        notes.append(
            f"the loss had grown {factor:.3g} times" if factor > 10 else "sudden: the loss was calm"
        )
    return tuple(notes)
