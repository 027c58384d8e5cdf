"""Optimisers: looked at before they move, followed closely where they may break, or run again."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from harness.diagnosis.accuse import accuse, is_torchs, report, root_of
from harness.diagnosis.flow import Flow, Known, Origin
from harness.diagnosis.measure import measure
from harness.diagnosis.numbers import is_finite, range_of
from harness.diagnosis.optimizer_replay import Before, step_of, twin_of, weights_of
from harness.diagnosis.replay import Replay, Unavailable
from harness.diagnosis.tape import Tape

if TYPE_CHECKING:
    from harness.diagnosis.session import Session

# Bytes of weights, and of a batch, that are kept to compare with.
_REMEMBERED = 64 << 20
# Entries of a tape after which it is let go although not all optimisers have moved.
_LONG = 20000


class Moving:
    """The optimisers' steps of a watched training."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self.off = False  # the tape is off for one step
        self._again = False  # a step is run a second time, on copies
        self.start: Before | None = None  # of the step under way, where it is followed closely
        self.leftover = False  # gradients were there before a step's backward pass
        self._rates: dict[int, float] = {}  # optimiser -> its last rate
        self.other_batch: list[torch.Tensor] = []  # data of an earlier step
        self.first_weights: dict[int, torch.Tensor] = {}

    # -- events ------------------------------------------------------------------------------------

    def before(self, optimizer: Any) -> None:
        """Its gradients are there, and it has changed nothing."""
        session = self._session
        if self._again:
            return
        session.optimizers.setdefault(id(optimizer), optimizer)
        self.start = None
        measure(session, optimizer)
        with session.quiet():
            session.silent.before_step(session, optimizer)
            self._remember()
        norm = session.history.rows[-1].get("gradient_norm", 0.0)
        if norm - norm != 0:
            with session.quiet():
                bad = suspects(session, optimizer)
            if bad:
                accuse(session, bad, hidden=True)
                return
        with session.quiet():
            session.light.consider(optimizer)
        if not self._is_watched(optimizer, norm):
            if not session.light.on:
                session.look()
            self.off = True
            session.tape.off()
        elif Before.size(optimizer) < _REMEMBERED:
            with session.quiet():
                self.start = Before(optimizer)
        session.tape.optimizer += 1

    def backward_begins(self) -> None:
        """The first backward pass of a step: nothing should be there from the step before."""
        if self._session.step in (1, 2, 3) and not self._session.step_roots:
            with self._session.quiet():
                given = [each.grad for each in self._session.parameters()[:1]]
                self.leftover = any(each is not None and bool(each.any()) for each in given)

    def closure_entered(self, optimizer: Any) -> None:
        """The optimiser asks for the loss and its gradients: what follows is no step of its own."""
        session = self._session
        if self._again or not session.tape.optimizer:
            return
        session.tape.optimizer -= 1
        self._on()
        with session.quiet():
            session.look()
            bad = _marked_weights(session, optimizer)
        if bad:
            accuse(session, bad)
        else:
            session.forget()

    def after(self, optimizer: Any) -> None:
        """It has moved."""
        session = self._session
        if self._again:
            return
        session.tape.optimizer = max(session.tape.optimizer - 1, 0)
        unwatched = self._on()
        with session.quiet():
            session.look()
            session.silent.after_step(session, optimizer)
            if unwatched:
                bad = _bad_weights(optimizer)
            else:
                bad = _marked_weights(session, optimizer)
        if bad and unwatched:
            self.accuse(optimizer)
        elif bad:
            accuse(session, bad)
        elif not session.scaling.active:
            self.stepped(optimizer)

    def stepped(self, optimizer: Any) -> None:
        """A step is complete, or was skipped."""
        session = self._session
        session.attempts[id(optimizer)] = session.attempts.get(id(optimizer), 0) + 1
        with session.quiet():
            session.silent.step_ended(session)
        # Several optimisers may share a forward pass: the tape goes when all have moved.
        if session.over or session.tape.backward:
            return
        if len(set(session.attempts.values())) == 1 or len(session.tape.entries) > _LONG:
            session.forget()

    @contextlib.contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Steps of copies, which are no events."""
        self._again = True
        try:
            yield
        finally:
            self._again = False

    # -- the step itself ---------------------------------------------------------------------------

    def _on(self) -> bool:
        """The tape is on again; whether it was off."""
        was_off, self.off = self.off, False
        if was_off:
            self._session.tape.on()
        return was_off

    def _is_watched(self, optimizer: Any, norm: float) -> bool:
        """Optimisers run most of a step's operations, and torch's own seldom break: watched closely
        at first, now and then, and when the numbers are such that they may."""
        session = self._session
        rate = max(float(group["lr"]) for group in optimizer.param_groups if "lr" in group)
        before = self._rates.get(id(optimizer), rate)
        self._rates[id(optimizer)] = rate
        if session.step < 3 or session.step % 32 == 0 or not 1e-12 < norm < 1e12:
            return True
        if not rate <= 4 * before:
            return True
        if not is_torchs(optimizer):
            return True
        return any(each.dtype in (torch.float16, torch.bfloat16) for each in weights_of(optimizer))

    def accuse(self, optimizer: Any) -> None:
        """An unwatched step made weights that are not finite from finite gradients.

        It is run again on copies, its weights and state without what is not finite, with the tape
        on: what broke does so again, unless it was the lost numbers that made it.
        """
        session = self._session
        root = None
        with contextlib.suppress(Exception), session.quiet():
            # Foreign code runs here (the optimiser's); if it refuses, its name is what is left.
            root = self._redo(optimizer)
        if root is None:
            session.flow.order += 1
            given = [each.grad for each in weights_of(optimizer)[:2] if each.grad is not None]
            name = f"torch.optim.{type(optimizer).__name__}"
            root = Origin(
                order=session.flow.order,
                step=session.step,
                kind="birth",
                entry=None,
                name=name,
                phase="optimizer",
                value="nan",
                inputs=tuple(map(range_of, given)),
                parents=frozenset(),
                position=0,
            )
        report(session, root)

    def _redo(self, optimizer: Any) -> Origin | None:
        session = self._session
        twin = twin_of(optimizer, None)
        errors: list[Exception] = []
        tape = Tape(lambda: None, errors.append)
        tape.optimizer = 1
        flow = Flow()
        flow.order = session.flow.order
        with self.rehearsal(), tape:
            step_of(twin)
        flow.follow(tape.entries, 0, session.step, Known())
        found = [flow.marks.of(each) or frozenset() for each in weights_of(twin)]
        root = root_of(set().union(*found))
        if root is not None:
            session.tape.entries = tape.entries
            session.flow.order = flow.order
        return root

    def _remember(self) -> None:
        """Now and then, keep a batch; once, the weights: to compare with when a step fails."""
        session = self._session
        if not self.first_weights and session.step == 0:
            parameters = session.parameters()
            if sum(each.nbytes for each in parameters) < _REMEMBERED:
                self.first_weights = {id(each): each.detach().clone() for each in parameters}
        sampled = session.step < 3 or session.step % 16 == 0
        if sampled and not session.tape.dropped and session.step_roots:
            with contextlib.suppress(Unavailable):
                data = Replay(session.tape.entries, session.step_roots, session.random_state).data
                if sum(each.nbytes for each in data) < _REMEMBERED:
                    self.other_batch = [each.detach().clone() for each in data]


def bad_gradients(optimizer: Any) -> list[torch.Tensor]:
    """Those of its gradients that are not finite."""
    found = [each.grad for each in weights_of(optimizer) if each.grad is not None]
    return [each for each in found if not is_finite(each)]


def suspects(session: "Session", optimizer: Any) -> list[torch.Tensor]:
    """Its bad gradients, marked with where they come from: as recorded, or made again."""
    session.look()
    bad = bad_gradients(optimizer)
    if not bad or not session.light.on or not session.light.again():
        return bad
    gradients = [session.light.gradients.get(id(each)) for each in weights_of(optimizer)]
    again = [each for each in gradients if each is not None and not is_finite(each)]
    return again or bad


def _marked_weights(session: "Session", optimizer: Any) -> list[torch.Tensor]:
    if not session.flow.marks.held:
        return []
    marks = session.flow.marks
    return [each for each in weights_of(optimizer) if marks.of(each) and not is_finite(each)]


def _bad_weights(optimizer: Any) -> list[torch.Tensor]:
    parameters = [each.detach() for each in weights_of(optimizer)]
    sums = torch.stack([each.sum().double() for each in parameters]).tolist()
    return [
        each
        for each, total in zip(parameters, sums, strict=True)
        if total - total != 0 and not is_finite(each)
    ]
