"""Whether a path's answers are right, asked before its timed rounds and again after them."""

import random

import torch
from torch import Tensor

from harness import poison
from harness.case import Pass
from harness.execute import Output
from harness.judge import judge
from harness.judgement import Judgement
from harness.timing.speed_case import SpeedGroup
from harness.timing.subject import Subject
from harness.timing.tiled import unwritten_anywhere
from harness.verdict import Verdict


def checked(
    subject: Subject, group: SpeedGroup, *, number: int, chooser: random.Random
) -> Judgement:
    """Call the path on poisoned memory and judge it; of several passes the worst counts.

    Some rows are held against their truth, chosen anew in each call; every element is looked at for
    poison that nobody overwrote, and every bit of the inputs for a change.

    Raises:
        Exception: whatever the path raises.
    """
    inputs = subject.inputs
    # Another path may have changed them, which is not this one's fault.
    if inputs.changed(number):
        inputs.restore(number)
    with poison.poisoned(0):
        subject.arrange(number)
        subject.call()
    places = inputs.places(number, chooser)
    found = []
    for pass_, value in subject.results().items():
        expected = inputs.drawn.expected[pass_]
        tail = tuple(expected.high.shape[1:])
        wrong = _wrong_result(value, (inputs.shape[0], *tail))
        if wrong or not isinstance(value, Tensor):
            found.append(Judgement(Verdict.ERROR, True, reason=wrong))
            continue
        rows = value.detach().index_select(0, torch.tensor(places, device=value.device)).cpu()
        # One element is enough for the verdict, wherever it lies: it is told of the first row.
        unwritten = torch.zeros_like(rows, dtype=torch.bool)
        unwritten[0] = unwritten_anywhere(value)
        named: Pass = "forward" if pass_ == "forward" else "backward"
        output = Output(rows, unwritten=unwritten)
        found += judge(
            group.operation, subject.path, group.fmt, named, output, expected, rows=len(places)
        )
    changed = inputs.changed(number)
    subject.release()
    worst = min(found, key=lambda each: each.verdict.precedence)
    if changed:
        subject.needs_copies = True
    if changed and Verdict.MUTATED_INPUT.precedence < worst.verdict.precedence:
        return Judgement(Verdict.MUTATED_INPUT, worst.representable, worst.returned)
    return worst


def worse(first: Judgement, second: Judgement) -> Judgement:
    """The one whose verdict takes precedence; the first of equals."""
    return min(first, second, key=lambda each: each.verdict.precedence)


def _wrong_result(value: object, shape: tuple[int, ...]) -> str:
    if not isinstance(value, Tensor):
        return f"returned {type(value).__name__}, not a tensor"
    if tuple(value.shape) != shape:
        return f"returned shape {tuple(value.shape)}, expected {shape}"
    if value.dtype not in poison.PATTERNS:
        return f"returned dtype {value.dtype}, which is none of fp16, bf16, fp32 and fp64"
    return ""
