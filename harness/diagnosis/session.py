"""One watched training: hears where steps begin and end, follows the tape, reports the root."""

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from harness.diagnosis.accuse import accuse, bad_outputs
from harness.diagnosis.cause import Evidence, Verdict
from harness.diagnosis.finding import Diagnosis, Finding, outcome_of
from harness.diagnosis.flow import Flow, Known, key_of
from harness.diagnosis.functions import wrap_functions
from harness.diagnosis.history import History
from harness.diagnosis.launches import wrap_launches
from harness.diagnosis.light import Light
from harness.diagnosis.measure import marked_gradients, measure
from harness.diagnosis.moving import Moving
from harness.diagnosis.numbers import is_finite
from harness.diagnosis.optimizer_replay import weights_of
from harness.diagnosis.scaling import Scaling
from harness.diagnosis.silent import Silent
from harness.diagnosis.steps import Wrapped, listen
from harness.diagnosis.tape import Tape

OWN_FAILURE = "the diagnosis itself failed"

Deepen = Callable[["Session", Finding, Verdict, Evidence], Finding]


class Session:
    """Watches everything between `start` and `stop`; the tape is on all the time."""

    def __init__(
        self,
        *,
        base: str | None = None,  # directory that locations are relative to
        deepen: Deepen | None = None,  # adds replay and fixes to a finding
        report: Callable[[Finding], None] | None = None,  # called once, with the root
    ) -> None:
        self.base = base
        self.history = History()
        self.flow = Flow()
        self.known = Known()
        self.tape = Tape(self.look, self.failed)
        self.silent = Silent(base)
        self.findings: list[Finding] = []
        self.attempts: dict[int, int] = {}  # optimiser -> steps begun
        self.optimizers: dict[int, Any] = {}
        self.optimizer: Any = None  # that moved last
        self.backwards = 0
        self.roots: list[Any] = []  # outermost modules, the latest last
        self.model_inputs: list[torch.Tensor] = []
        self.model_output: Any = None
        self.losses: list[torch.Tensor] = []
        self.moving = Moving(self)
        self.scaling = Scaling(self)
        self.light = Light(self)
        self.over = False
        self.strict = False  # judge scaled gradients, too
        self.notes: list[str] = []
        self._quiet = 0  # depth
        self._exit_later = False
        self.step_roots: list[torch.Tensor] = []  # what backward was called on in this step
        self.random_state = torch.get_rng_state()  # when the step's tape began
        self.deepen = deepen
        self.tell = report
        self._wrapped: Wrapped | None = None
        self._unused: Any = None  # the model that ran last, if no backward pass came yet
        self.awaiting: list[torch.Tensor] = []  # scalar losses gone bad, no backward yet

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Attach to torch and switch the tape on."""
        self._wrapped = listen(self, module_hooks=True, failed=self.failed)
        wrap_functions(self.tape, self._wrapped.keep)
        wrap_launches(self._wrapped.wrap, self._wrapped.keep, self.tape.launch)
        self.tape.on()

    def failed(self, error: Exception) -> None:
        """An error of the diagnosis itself: say so, and leave the script alone."""
        self.over = True
        place = traceback.extract_tb(error.__traceback__)[-1]
        self.notes.append(
            f"{OWN_FAILURE}: {type(error).__name__}: {str(error)[:200]} "
            f"({os.path.basename(place.filename)}:{place.lineno})"
        )
        self.tape.paused = True
        if not self.tape.recording:
            self.stop()

    def stop(self) -> None:
        """Detach; torch is as it was."""
        if self._wrapped is not None:
            self._wrapped.undo()
            self._wrapped = None
            if self._quiet:
                self._exit_later = True  # the tape is not on the stack of modes now
            else:
                self.tape.off()

    def detach_child(self) -> None:
        """In a forked process: nobody listens there."""
        self.over = True
        self.tape.clear()
        self.stop()

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Compute without being seen."""
        before, self.tape.paused = self.tape.paused, True
        self._quiet += 1
        try:
            # Without the modes themselves, too: what is computed here costs what it costs anyway.
            with _disable_current_modes(), torch.no_grad():
                yield
        finally:
            self.tape.paused = before
            self._quiet -= 1
            if self._exit_later and not self._quiet:
                self._exit_later = False
                self.tape.off()

    @property
    def step(self) -> int:
        """Optimiser steps completed; without an optimiser, backward passes."""
        if self.attempts:
            done = [self.attempts[each] for each in self.optimizers if each in self.attempts]
            late = [each for each in self.optimizers if each not in self.attempts]
            return 0 if late and max(done) <= 1 else min(done)
        if self.optimizers:
            return 0
        return max(self.backwards - (1 if self.tape.backward else 0), 0)

    def diagnosis(self, notes: tuple[str, ...] = ()) -> Diagnosis:
        """What has been found so far."""
        found = tuple(self.findings)
        notes += tuple(self.notes)
        steps = max(self.attempts.values(), default=self.backwards)
        if not self.attempts and not self.backwards:
            notes += (
                "no training step was seen: no backward pass and no optimiser step in this "
                "process. Training that runs in processes the script starts is not watched; "
                "start such a script by torchrun, or diagnose the inner script itself",
            )
        return Diagnosis(outcome_of(found), found, steps, notes)

    def finish(
        self,
        failed: bool,  # the script ended by an exception
    ) -> None:
        """The script has ended: judge what no step came to judge, and the silent defects."""
        if self.over:
            return
        try:
            self._finish(failed)
        except Exception as error:  # noqa: BLE001  # the script's end is not disturbed either
            self.failed(error)

    def _finish(self, failed: bool) -> None:
        with self.quiet():
            self.look()
            bad = [each for each in self.awaiting if not is_finite(each)]
            if failed and not bad:
                bad = [
                    each for entry in self.tape.entries[-30:] for each in bad_outputs(self, entry)
                ]
            if bad:
                accuse(self, bad)
            if not self.over:
                self.findings += self.silent.summary(self)

    # -- looking -----------------------------------------------------------------------------------

    def look(self) -> None:
        """Judge what the tape has gathered since the last look."""
        tape = self.tape
        with self.quiet():
            start = tape.judged
            piece = tape.entries[start:]
            tape.judged = len(tape.entries)
            order = self.flow.order
            self.flow.follow(piece, start, self.step, self.known)
            if self.flow.order != order or self.flow.marks.held:
                for entry in piece:
                    out = entry.out
                    if (
                        type(out) is torch.Tensor
                        and out.numel() == 1
                        and out.requires_grad
                        and entry.phase == "forward"
                        and self.flow.marks.of(out)
                        and not self.scaling.active
                    ):
                        self.awaiting = [out]
        if not self.backwards and len(tape.entries) > 20000:
            self.forget()

    def forget(self) -> None:
        self.tape.clear()
        self.flow.marks.sweep()
        self.flow.close = 0
        self.step_roots = []
        self.random_state = torch.get_rng_state()
        self.flow.births = []
        self.awaiting = []

    # -- events ------------------------------------------------------------------------------------

    def entered(self, module: Any, inputs: Any) -> None:
        if not self.tape.modules:
            if all(module is not each for each in self.roots):
                self.roots.append(module)
            if torch.is_grad_enabled():
                if self._unused is module:
                    self._guarded()
                self.model_inputs = [
                    each
                    for each in inputs
                    if isinstance(each, torch.Tensor) and each.is_floating_point()
                ]
                self.known.inputs.update(key_of(each) for each in self.model_inputs)
        self.tape.modules.append(module)

    def left(self, module: Any, inputs: Any, output: Any) -> None:
        if self.tape.modules:
            self.tape.modules.pop()
        if not self.tape.modules:
            self.model_output = output
            self._unused = module if torch.is_grad_enabled() else None

    def _guarded(self) -> None:
        """A new forward pass begins and no backward pass came: was the loss bad, and skipped?"""
        with self.quiet():
            self.look()
            bad = [each for each in self.awaiting if not is_finite(each)]
        if bad:
            accuse(self, bad)
        self.awaiting = []

    def before_backward(self, roots: list[torch.Tensor]) -> None:
        if self.tape.paused:  # a replay's own backward pass
            return
        self.moving.backward_begins()
        self.tape.backward_begins()
        if self.light.on:
            self.tape.off()
        self.backwards += 1
        self._unused = None
        self.awaiting = []
        self.losses += [each for each in roots if each.is_floating_point()]
        self.step_roots += roots

    def after_backward(self, roots: list[torch.Tensor]) -> None:
        if self.tape.paused:
            return
        self.tape.backward -= 1
        if self.over or self.tape.backward:
            return
        if self.light.on:
            self.tape.on()
        with self.quiet():
            self.awaiting = []
            losses = list(self.scaling.unscaled.values()) or roots
            if not self.light.on:
                self.look()
                bad = [each for each in losses if self.flow.marks.of(each) and not is_finite(each)]
            else:
                bad = [each for each in losses if not is_finite(each)]
                if bad:
                    self.look()
            hidden = False
            if not bad and (not self.scaling.active or self.strict) and self.flow.marks.held:
                bad, hidden = marked_gradients(self, roots), True
        if bad:
            accuse(self, bad, hidden=hidden)
        elif not self.optimizers and not self.tape.dropped:
            measure(self, None)
            self.forget()

    def parameters(self) -> list[torch.Tensor]:
        """What the optimisers move."""
        return [each for optimizer in self.optimizers.values() for each in weights_of(optimizer)]

    def optimizer_made(self, optimizer: Any) -> None:
        self.optimizers[id(optimizer)] = optimizer

    def before_step(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        if not self.over:
            self.moving.before(optimizer)

    def closure_entered(self, optimizer: Any) -> None:
        if not self.over:
            self.moving.closure_entered(optimizer)

    def after_step(self, optimizer: Any) -> None:
        if not self.over:
            self.moving.after(optimizer)

    def scaled(self, scaler: Any, loss: Any) -> None:
        if not self.over:
            self.scaling.scaled(scaler, loss)

    def unscaled_by(self, scaler: Any, optimizer: Any) -> None:
        self.silent.unscaled()

    def scaler_stepped(self, scaler: Any, optimizer: Any, ran: bool) -> None:
        if not self.over:
            self.scaling.stepped(scaler, optimizer, ran)

    def scaler_updated(self, scaler: Any, before: float, after: float) -> None:
        self.scaling.scale = after

    def clipped(self, parameters: list[torch.Tensor], norm: torch.Tensor, limit: float) -> None:
        if not self.over:
            with self.quiet():
                self.silent.clipped(self, parameters, norm, limit)
