"""Adds what a second run of the step can tell: replay, repetition, fixes, a reproduction."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from harness.diagnosis.cause import Evidence, Verdict
from harness.diagnosis.finding import Finding
from harness.diagnosis.findings import advice, with_advice
from harness.diagnosis.fixes import try_fixes
from harness.diagnosis.optimizer_replay import try_steps
from harness.diagnosis.repeat import repeatable
from harness.diagnosis.replay import Replay, Unavailable
from harness.diagnosis.reproduce import save_reproduction
from harness.diagnosis.trial import try_rates

if TYPE_CHECKING:
    from harness.diagnosis.session import Session


def deepen(
    session: "Session",
    finding: Finding,
    verdict: Verdict,
    evidence: Evidence,
    *,
    save: str | None = None,  # directory for a reproduction
) -> Finding:
    """The finding with everything that could be tried."""
    notes = list(finding.notes)
    if session.moving.leftover and finding.cause == "divergence":
        notes.append("gradients of earlier steps were still there when backward began (zero_grad)")
    if save is not None:
        path, note = save_reproduction(Path(save), finding, verdict, evidence)
        finding = replace(finding, reproduction=path)
        notes += [note] if note else []
    if finding.phase == "optimizer" and session.optimizer is not None:
        with session.moving.rehearsal():
            in_fp64, fixes = try_steps(session.optimizer, session.moving.start)
        if session.moving.start is None:
            notes.append(
                "the optimiser's step was run again from the weights and state it left, 0 where "
                "they are not finite"
            )
        notes.append("repeatable: an optimiser's step is run again with the same gradients only")
        return replace(
            finding,
            finite_in_fp64=in_fp64,
            fixes=with_advice(fixes, finding.cause),
            notes=tuple(notes),
        )
    try:
        replay = _replay(session, finding, evidence)
    except Unavailable as reason:
        notes.append(f"the step was not run again (repeatable, finite_in_fp64, fixes): {reason}")
        return replace(finding, fixes=advice(finding.cause), notes=tuple(notes))
    repeats, reason_none = repeatable(
        replay, session.moving.other_batch, session.moving.first_weights
    )
    if reason_none:
        notes.append(reason_none)
    in_fp64 = None
    try:
        in_fp64 = replay.run(dtype=torch.float64).finite
    except Unavailable as reason:
        notes.append(f"fp64: {reason}")
    with torch.enable_grad():
        # Behind a loss scale that collapsed stands the operation's own cause.
        collapsed = finding.cause == "loss_scale_collapse"
        word = verdict.cause if collapsed else finding.cause
        fixes = try_fixes(word, verdict, evidence.chain, replay)
        if word == "divergence" and session.optimizer is not None:
            with session.moving.rehearsal():
                fixes += try_rates(
                    replay,
                    session.optimizer,
                    session.moving.first_weights,
                    finding.step,
                    session.moving.leftover,
                )
    return replace(
        finding,
        repeatable=repeats,
        finite_in_fp64=in_fp64,
        fixes=with_advice(fixes, finding.cause),
        notes=tuple(notes),
    )


def _replay(session: "Session", finding: Finding, evidence: Evidence) -> Replay:
    if session.tape.dropped:
        raise Unavailable("its tensors were too many to be kept")
    if evidence.origin.step != session.step:
        raise Unavailable("it was born in an earlier step")
    if evidence.origin.kind == "raw":
        raise Unavailable("part of it was computed by code that torch does not see")
    replay = Replay(session.tape.entries, session.step_roots, session.random_state)
    result = replay.run()
    if result.finite:
        raise Unavailable(f"run again, it is finite ({result.spell()})")
    return replay
