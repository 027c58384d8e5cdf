"""From tensors that went bad to the finding: whose fault it is, and what is known about it."""

from typing import TYPE_CHECKING, Any

import torch

from harness.diagnosis import findings as making
from harness.diagnosis.cause import Evidence, several_ranks
from harness.diagnosis.chain import Chain
from harness.diagnosis.flow import Origin, all_of
from harness.diagnosis.frames import called_from
from harness.diagnosis.measure import measure
from harness.diagnosis.numbers import is_finite, range_of
from harness.diagnosis.tape import Entry, inputs_of, outputs_of

if TYPE_CHECKING:
    from harness.diagnosis.session import Session


def accuse(session: "Session", bad: list[torch.Tensor], **more: Any) -> None:
    """Something that matters is not finite: name its root."""
    origins: set[Origin] = set()
    for each in bad:
        origins |= session.flow.marks.of(each) or frozenset()
    root = root_of(origins)
    if root is None:
        root = _unseen(session)
    if not session.history.rows or session.history.rows[-1]["step"] != session.step:
        measure(session, next(iter(session.optimizers.values()), None))
    report(session, root, **more)


def root_of(origins: set[Origin]) -> Origin | None:
    """The first of the origins and of those they come from that nobody intended."""
    everything = all_of(origins)
    poisoned = [each for each in origins if each.kind == "buffer"]
    if poisoned:
        return min(poisoned, key=lambda each: each.order)
    guilty = [each for each in everything if not each.intended]
    if guilty:
        return min(guilty, key=lambda each: each.order)
    literal = [each for each in everything if each.value == "nan" or each.entry is not None]
    if literal:
        first = min(literal, key=lambda each: each.order)
        # Taken for a mask, and it spoilt the loss: so it was none.
        first.kind = "birth" if first.name.startswith(("aten.log", "aten.add")) else "data"
        if first.entry is not None:
            first.inputs = tuple(map(range_of, inputs_of(first.entry)))
        return first
    return None


def _unseen(session: "Session") -> Origin:
    """Written by code that torch does not see: a library's own kernel, or the other ranks."""
    among_ranks = session.step_roots and several_ranks()
    return Origin(
        order=session.flow.order,
        step=session.step,
        kind="rank" if among_ranks else "raw",
        entry=None,
        name="c10d.allreduce_" if among_ranks else "unknown",
        phase="backward" if among_ranks else "forward",
        value="nan",
        inputs=(),
        parents=frozenset(),
        position=0,
    )


def report(
    session: "Session",
    root: Origin,
    *,
    cause: str | None = None,  # where more than the operation decides it
    detail: str | None = None,
    hidden: bool = False,  # the loss is finite, the gradients are not
) -> None:
    """Make the finding of a root, deepen it, hand it on, and stop watching."""
    if session.over:
        return
    session.over = True
    chain = Chain(session.tape.entries)
    evidence = Evidence(
        origin=root,
        chain=chain,
        history=session.history,
        model_inputs=session.model_inputs,
        eps=_smallest_eps(session.optimizers),
        foreign_optimizer=not all(map(is_torchs, session.optimizers.values())),
        in_clipping=root.entry is not None
        and root.phase == "forward"
        and called_from("clip_grad_norm_"),
    )
    if not session.step_roots:
        session.step_roots = list(session.awaiting)
    with session.quiet():
        finding, verdict = making.make(
            evidence,
            roots=session.roots,
            base=session.base,
            cause=cause,
            detail=detail,
            hidden=hidden,
        )
        if session.deepen is not None:
            finding = session.deepen(session, finding, verdict, evidence)
    session.findings.append(finding)
    session.forget()
    session.stop()
    if session.tell is not None:
        session.tell(finding)


def _smallest_eps(optimizers: dict[int, Any]) -> float | None:
    groups = [group for each in optimizers.values() for group in each.param_groups]
    found = [group["eps"] for group in groups if isinstance(group.get("eps"), (int, float))]
    return min(found, default=None)


def is_torchs(optimizer: Any) -> bool:
    """Whether the optimiser is one that torch brings."""
    return type(optimizer).__module__.startswith("torch.optim")


def bad_outputs(session: "Session", entry: Entry) -> list[torch.Tensor]:
    """What an operation made that is marked, and still not finite."""
    return [
        each for each in outputs_of(entry) if session.flow.marks.of(each) and not is_finite(each)
    ]
