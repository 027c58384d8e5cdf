"""Backward passes that are not recorded: where the recorded forward pass can make them again.

Most of a step's operations are backward ones, and a tape that holds gradients keeps torch from
handing them on without a copy. Once a step has been seen to repeat, forward from the tape and
backward by autograd, with the gradients that the script got, later backward passes run unrecorded;
the one that goes bad is made again with the tape on.
"""

from typing import TYPE_CHECKING, Any

import torch

from harness.diagnosis.flow import key_of
from harness.diagnosis.replay import Replay, Unavailable
from harness.diagnosis.tape import Entry, Tape, tensors_in

if TYPE_CHECKING:
    from harness.diagnosis.session import Session

# The first step at which it is tried: weights have moved, and lazy parts of the script are there.
_TRIED_AT = 2
# Largest difference of a gradient from the recorded one, relative to the largest entry.
_ALIKE = {torch.float32: 1e-4, torch.float64: 1e-8}


class Light:
    """Whether backward passes are recorded, and how to get them back."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self.on = False
        self.gradients: dict[int, torch.Tensor | None] = {}  # of `again`, by id of the parameter
        self._tried_at: int | None = None  # step
        self._alike: list[bool] = []  # of each optimiser's step that was tried

    def consider(self, optimizer: Any) -> None:
        """Before an optimiser moves: does its step repeat?"""
        session = self._session
        if session.strict or session.step < _TRIED_AT or self.on:
            return
        if self._tried_at is None:
            self._tried_at = session.step
        if session.step == self._tried_at:
            self._alike.append(self._repeats(optimizer))
        elif session.step == self._tried_at + 1:
            self.on = all(self._alike)

    def _repeats(self, optimizer: Any) -> bool:
        session = self._session
        if session.tape.dropped:
            return False
        try:
            replay = Replay(session.tape.entries, session.step_roots, session.random_state)
            _, gradients = replay.gradients()
        except Unavailable:
            return False
        found = dict(zip(map(id, replay.parameters), gradients, strict=True))
        mine = [each for group in optimizer.param_groups for each in group["params"]]
        return all(each.grad is None or _alike(each.grad, found.get(id(each))) for each in mine)

    def again(self) -> bool:
        """Make the step under way again with the tape on, in place of what was recorded of it."""
        session = self._session
        try:
            replay = Replay(session.tape.entries, session.step_roots, session.random_state)
            errors: list[Exception] = []
            tape = Tape(lambda: None, errors.append)
            run, gradients, made = replay.recorded(tape)
        except Unavailable:
            return False
        entries = _placed(tape.entries, session.tape.entries, made)
        for before, now in run.copies:
            origins = session.flow.marks.of(before)
            if origins is not None:
                session.flow.marks.put(now, origins)
            if key_of(before) in session.known.inputs:
                session.known.inputs.add(key_of(now))
        session.tape.entries, session.step_roots = entries, run.roots
        session.tape.judged = len(entries)
        session.flow.follow(entries, 0, session.step, session.known)
        self.gradients = gradients
        return True


def _alike(ours: torch.Tensor, theirs: torch.Tensor | None) -> bool:
    """Whether two gradients agree, up to a factor: scales and clipping may lie between."""
    if theirs is None or ours.layout is not torch.strided:
        return False
    a, b = ours.detach().double(), theirs.double()
    top_a, top_b = float(a.abs().max()), float(b.abs().max())
    if not top_a or not top_b:
        return top_a == top_b
    return float((a / top_a - b / top_b).abs().max()) <= _ALIKE.get(ours.dtype, 2e-2)


def _placed(entries: list[Entry], recorded: list[Entry], made: dict[int, int]) -> list[Entry]:
    """The new entries with the lines and modules of those that they repeat."""
    placed = []
    for entry in entries:
        at = next((made[id(each)] for each in tensors_in(entry.out) if id(each) in made), None)
        if at is not None and entry.node is None:
            entry = entry._replace(where=recorded[at].where, module=recorded[at].module)
        placed.append(entry)
    return placed
