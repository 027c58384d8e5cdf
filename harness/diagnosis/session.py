"""One watched training: hears where steps begin and end, follows the tape, reports the root."""

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from harness.diagnosis import findings as making
from harness.diagnosis.cause import Evidence, Verdict
from harness.diagnosis.chain import Chain
from harness.diagnosis.finding import Diagnosis, Finding, outcome_of
from harness.diagnosis.flow import Flow, Known, Origin, _key, all_of
from harness.diagnosis.frames import called_from
from harness.diagnosis.history import History
from harness.diagnosis.numbers import is_finite, range_of
from harness.diagnosis.replay import Replay, Unavailable
from harness.diagnosis.silent import Silent
from harness.diagnosis.steps import Wrapped, listen
from harness.diagnosis.tape import Tape, inputs_of

# Skipped steps in a row after which a scaler no longer looks for its scale: 2^16 halved to below 1.
SKIPS = 17
OWN_FAILURE = "the diagnosis itself failed"
# Bytes of weights, and of a batch, that are kept to compare with.
_REMEMBERED = 64 << 20

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
        self.tape = Tape(self._look, self.failed)
        self.silent = Silent(base)
        self.findings: list[Finding] = []
        self.attempts: dict[int, int] = {}  # optimiser -> steps begun
        self.optimizers: dict[int, Any] = {}
        self.backwards = 0
        self.roots: list[Any] = []  # outermost modules, the latest last
        self.model_inputs: list[torch.Tensor] = []
        self.model_output: Any = None
        self.losses: list[torch.Tensor] = []
        self.unscaled: dict[int, torch.Tensor] = {}  # id of a scaled loss's scaler -> the loss
        self.scaling = False
        self.skips = 0
        self.scale: float | None = None
        self.over = False
        self.strict = False  # judge scaled gradients, too
        self.notes: list[str] = []
        self._quiet = 0  # depth
        self._exit_later = False
        self._off = False  # the tape is off for one optimiser step
        self.step_roots: list[torch.Tensor] = []  # what backward was called on in this step
        self.random_state = torch.get_rng_state()  # when the step's tape began
        self.other_batch: list[torch.Tensor] = []  # data of an earlier step
        self.first_weights: dict[int, torch.Tensor] = {}
        self._deepen = deepen
        self._report = report
        self._wrapped: Wrapped | None = None
        self._pending_skip: Origin | None = None
        self._awaiting: list[torch.Tensor] = []  # scalar losses gone bad, no backward yet

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Attach to torch and switch the tape on."""
        self._wrapped = listen(self, module_hooks=True, failed=self.failed)
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
            notes += ("no training step was seen: no backward pass and no optimiser step",)
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
            self._look()
            bad = [each for each in self._awaiting if not is_finite(each)]
            if failed and not bad:
                bad = [each for entry in self.tape.entries[-30:] for each in self._bad_of(entry)]
            if bad:
                self._accuse(bad)
            if not self.over:
                self.findings += self.silent.summary(self)

    def _bad_of(self, entry: Any) -> list[torch.Tensor]:
        outs = entry.out if isinstance(entry.out, (list, tuple)) else [entry.out]
        return [
            each
            for each in outs
            if isinstance(each, torch.Tensor) and self.flow.marks.of(each) and not is_finite(each)
        ]

    # -- looking -----------------------------------------------------------------------------------

    def _look(self) -> None:
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
                        and not self.scaling
                    ):
                        self._awaiting = [out]
        if not self.backwards and len(tape.entries) > 20000:
            self._forget()

    def _accuse(self, bad: list[torch.Tensor], **more: Any) -> None:
        """Something that matters is not finite: name its root."""
        origins: set[Origin] = set()
        for each in bad:
            origins |= self.flow.marks.of(each) or frozenset()
        root = self._root(origins)
        if root is None:
            root = self._unseen(bad[0])
        self._note_step()
        self.report(root, **more)

    def _note_step(self) -> None:
        """The failing step's own numbers close the history."""
        if not self.history.rows or self.history.rows[-1]["step"] != self.step:
            self._measure(next(iter(self.optimizers.values()), None))

    def _root(self, origins: set[Origin]) -> Origin | None:
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

    def _unseen(self, tensor: torch.Tensor) -> Origin:
        """Written by code that torch does not see, such as a raw kernel."""
        return Origin(
            self.flow.order, self.step, "raw", None, "unknown", "forward", "nan", (), frozenset(), 0
        )

    def report(
        self,
        root: Origin,
        *,
        cause: str | None = None,  # where more than the operation decides it
        detail: str | None = None,
        hidden: bool = False,  # the loss is finite, the gradients are not
    ) -> None:
        """Make the finding of a root, deepen it, hand it on, and stop watching."""
        if self.over:
            return
        self.over = True
        chain = Chain(self.tape.entries)
        evidence = Evidence(
            origin=root,
            chain=chain,
            history=self.history,
            model_inputs=self.model_inputs,
            eps=min(
                (
                    group["eps"]
                    for each in self.optimizers.values()
                    for group in each.param_groups
                    if "eps" in group
                ),
                default=None,
            ),
            in_clipping=root.entry is not None and root.phase == "forward" and self._clips(root),
        )
        if not self.step_roots:
            self.step_roots = list(self._awaiting)
        with self.quiet():
            finding, verdict = making.make(
                evidence,
                roots=self.roots,
                base=self.base,
                cause=cause,
                detail=detail,
                hidden=hidden,
            )
            if self._deepen is not None:
                finding = self._deepen(self, finding, verdict, evidence)
        self.findings.append(finding)
        self._forget()
        self.stop()
        if self._report is not None:
            self._report(finding)

    def _clips(self, root: Origin) -> bool:
        return called_from("clip_grad_norm_")

    def _forget(self) -> None:
        self.tape.clear()
        self.flow.marks.sweep()
        self.flow.close = 0
        self.step_roots = []
        self.random_state = torch.get_rng_state()
        self.flow.births = []
        self._awaiting = []

    # -- events ------------------------------------------------------------------------------------

    def entered(self, module: Any, inputs: Any) -> None:
        if not self.tape.modules:
            if all(module is not each for each in self.roots):
                self.roots.append(module)
            if torch.is_grad_enabled():
                if self._awaiting:
                    self._guarded()
                self.model_inputs = [
                    each
                    for each in inputs
                    if isinstance(each, torch.Tensor) and each.is_floating_point()
                ]
                self.known.inputs.update(_key(each) for each in self.model_inputs)
        self.tape.modules.append(module)

    def left(self, module: Any, inputs: Any, output: Any) -> None:
        if self.tape.modules:
            self.tape.modules.pop()
        if not self.tape.modules:
            self.model_output = output

    def _guarded(self) -> None:
        """A new forward pass begins and a bad loss was never used: the script skipped it."""
        with self.quiet():
            self._look()
            bad = [each for each in self._awaiting if not is_finite(each)]
        if bad:
            self._accuse(bad)
        self._awaiting = []

    def before_backward(self, roots: list[torch.Tensor]) -> None:
        if self.tape.paused:  # a replay's own backward pass
            return
        self.tape.backward += 1
        self.backwards += 1
        self._awaiting = []
        self.losses += [each for each in roots if each.is_floating_point()]
        self.step_roots += roots

    def after_backward(self, roots: list[torch.Tensor]) -> None:
        if self.tape.paused:
            return
        self.tape.backward -= 1
        if self.over or self.tape.backward:
            return
        with self.quiet():
            self._look()
            self._awaiting = []
            losses = list(self.unscaled.values()) or roots
            bad = [each for each in losses if self.flow.marks.of(each) and not is_finite(each)]
            hidden = False
            if not bad and (not self.scaling or self.strict) and self.flow.marks.held:
                bad, hidden = self._bad_gradients(roots), True
        if bad:
            self._accuse(bad, hidden=hidden)
        elif not self.optimizers and not self.tape.dropped:
            self._measure(None)
            self._forget()

    def _bad_gradients(self, roots: list[torch.Tensor]) -> list[torch.Tensor]:
        parameters = self._parameters() or _leaves(roots)
        return [
            each.grad
            for each in parameters
            if each.grad is not None and self.flow.marks.of(each.grad) and not is_finite(each.grad)
        ]

    def _parameters(self) -> list[torch.Tensor]:
        return [
            each
            for optimizer in self.optimizers.values()
            for group in optimizer.param_groups
            for each in group["params"]
        ]

    def optimizer_made(self, optimizer: Any) -> None:
        self.optimizers[id(optimizer)] = optimizer

    def _measure(self, optimizer: Any) -> None:
        with self.quiet():
            parameters = (
                [each for group in optimizer.param_groups for each in group["params"]]
                if optimizer is not None
                else _leaves(self.losses)
            )
            output = self.model_output
            watched = {"output": output} if isinstance(output, torch.Tensor) else {}
            if self.model_inputs:
                watched["input"] = self.model_inputs[0]
            settings = {}
            if optimizer is not None:
                settings["rate"] = float(optimizer.param_groups[0]["lr"])
            if self.scale is not None:
                settings["scale"] = self.scale
            losses = list(self.unscaled.values()) or self.losses[:8]
            row = self.history.add(self.step, losses, parameters, watched, settings)
            self.silent.measured(self, row, parameters)
        self.losses = []
        self.unscaled = {}

    def before_step(self, optimizer: Any) -> None:
        if self.over:
            return
        self.optimizers.setdefault(id(optimizer), optimizer)
        self._measure(optimizer)
        with self.quiet():
            self.silent.before_step(self, optimizer)
            self._remember()
        norm = self.history.rows[-1].get("gradient_norm", 0.0)
        if norm - norm != 0:
            with self.quiet():
                self._look()
                bad = [
                    each.grad
                    for group in optimizer.param_groups
                    for each in group["params"]
                    if each.grad is not None and not is_finite(each.grad)
                ]
            if bad:
                self._accuse(bad)
                return
        if not self._optimizer_is_watched(norm):
            self._look()
            self._off = True
            self.tape.off()
        self.tape.optimizer += 1

    def _optimizer_is_watched(self, norm: float) -> bool:
        """Optimisers run most of a step's operations, and seldom break: watched closely at first,
        now and then, and when the numbers are such that they may."""
        if self.step < 3 or self.step % 32 == 0 or not 1e-12 < norm < 1e12:
            return True
        return any(each.dtype in (torch.float16, torch.bfloat16) for each in self._parameters())

    def _accuse_optimizer(self, optimizer: Any) -> None:
        """An unwatched optimiser step made weights that are not finite from finite gradients."""
        self.flow.order += 1
        name = f"torch.optim.{type(optimizer).__name__}"
        gradients = [
            range_of(each.grad) for each in self._parameters()[:2] if each.grad is not None
        ]
        self.report(
            Origin(
                self.flow.order,
                self.step,
                "birth",
                None,
                name,
                "optimizer",
                "nan",
                tuple(gradients),
                frozenset(),
                0,
            ),
            cause="divergence" if self.history.growth("weight_norm") > 10 else "optimizer_state",
        )

    def _remember(self) -> None:
        """Now and then, keep a batch; once, the weights: to compare with when a step fails."""
        if not self.first_weights and self.step == 0:
            parameters = self._parameters()
            if sum(each.nbytes for each in parameters) < _REMEMBERED:
                self.first_weights = {id(each): each.detach().clone() for each in parameters}
        if (self.step < 3 or self.step % 16 == 0) and not self.tape.dropped and self.step_roots:
            with contextlib.suppress(Unavailable):
                data = Replay(self.tape.entries, self.step_roots, self.random_state).data
                if sum(each.nbytes for each in data) < _REMEMBERED:
                    self.other_batch = [each.detach().clone() for each in data]

    def after_step(self, optimizer: Any) -> None:
        if self.over:
            return
        self.tape.optimizer = max(self.tape.optimizer - 1, 0)
        unwatched = self._off
        if self._off:
            self.tape.on()
            self._off = False
        with self.quiet():
            self._look()
            self.silent.after_step(self, optimizer)
            bad = []
            if unwatched:
                bad = _not_finite(optimizer)
                if bad:
                    self._accuse_optimizer(optimizer)
                    return
            elif self.flow.marks.held:
                bad = [
                    each
                    for group in optimizer.param_groups
                    for each in group["params"]
                    if self.flow.marks.of(each) and not is_finite(each)
                ]
        if bad:
            self._accuse(bad)
            return
        if not self.scaling:
            self._stepped(optimizer)

    def _stepped(self, optimizer: Any) -> None:
        self.attempts[id(optimizer)] = self.attempts.get(id(optimizer), 0) + 1
        with self.quiet():
            self.silent.step_ended(self)
        # Several optimisers may share a forward pass: the tape goes when all have moved.
        if self.over or self.tape.backward:
            return
        if len(set(self.attempts.values())) == 1 or len(self.tape.entries) > 20000:
            self._forget()

    def scaled(self, scaler: Any, loss: Any) -> None:
        if self.over:
            return
        self.scaling = True
        if isinstance(loss, torch.Tensor):
            self.unscaled[id(loss)] = loss

    def unscaled_by(self, scaler: Any, optimizer: Any) -> None:
        self.silent.unscaled()

    def clipped(self, parameters: list[torch.Tensor], norm: torch.Tensor) -> None:
        if self.over:
            return
        with self.quiet():
            self.silent.clipped(self, parameters, norm)

    def scaler_stepped(self, scaler: Any, optimizer: Any, ran: bool) -> None:
        if self.over:
            return
        self.optimizers.setdefault(id(optimizer), optimizer)
        if ran:
            self.skips = 0
            self._stepped(optimizer)
            return
        self.skips += 1
        with self.quiet():
            self._look()
            bad = [
                each.grad
                for group in optimizer.param_groups
                for each in group["params"]
                if each.grad is not None and not is_finite(each.grad)
            ]
            origins: set[Origin] = set()
            for each in bad:
                origins |= self.flow.marks.of(each) or frozenset()
            root = self._root(origins)
        scale = scaler.get_scale()
        if root is not None and (self.skips >= SKIPS or scale < 1):
            self.report(
                root, cause="loss_scale_collapse", detail=f"{scale:g} after {self.skips} skips"
            )
            return
        if root is not None and root.entry is not None and self._at_any_scale(root):
            self.report(root)
            return
        self._stepped(optimizer)

    def _at_any_scale(self, root: Origin) -> bool:
        """Whether no loss scale would have helped: it is not a number that grew too large."""
        evidence = Evidence(root, Chain(self.tape.entries), self.history, [])
        with self.quiet():
            _, verdict = making.make(evidence, roots=self.roots, base=self.base)
        if root.phase == "forward" and verdict.cause == "overflow":
            return False
        return verdict.cause not in (
            "overflow",
            "divergence",
            "bad_data",
            "initialization",
            "unknown",
        )

    def scaler_updated(self, scaler: Any, before: float, after: float) -> None:
        self.scale = after


def _not_finite(optimizer: Any) -> list[torch.Tensor]:
    parameters = [each.detach() for group in optimizer.param_groups for each in group["params"]]
    sums = torch.stack([each.sum().double() for each in parameters]).tolist()
    return [
        each
        for each, total in zip(parameters, sums, strict=True)
        if total - total != 0 and not is_finite(each)
    ]


def _leaves(roots: list[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors whose `.grad` a backward pass from these roots fills."""
    found: list[torch.Tensor] = []
    seen: set[Any] = set()
    todo = [each.grad_fn for each in roots if each.grad_fn is not None]
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, torch.Tensor):
            found.append(variable)
        todo += [following for following, _ in node.next_functions if following is not None]
    return found
