"""Defects that never show a NaN: weights that do not move, dead outputs, clipping gone wrong."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.diagnosis.chain import Chain
from harness.diagnosis.finding import Finding, Fix
from harness.diagnosis.findings import explain, with_advice
from harness.diagnosis.flow import Origin, all_of
from harness.diagnosis.frames import location, module_path, source, user_frame
from harness.diagnosis.mismatch import scan
from harness.diagnosis.numbers import is_finite, range_of, short
from harness.diagnosis.optimizer_replay import try_steps
from harness.diagnosis.silent_fixes import move_weights, try_silent, unscale_first
from harness.diagnosis.tape import inputs_of, outputs_of, plan_of

if TYPE_CHECKING:
    from harness.diagnosis.session import Session

# Steps at which updates are compared and tapes scanned: the first ones, then ever fewer.
_SAMPLED = frozenset({0, 1, 2, 4, 8, 16, 32}) | frozenset(range(64, 1_000_000, 64))
# Entries of a parameter that are compared; a slice says as much as all of them.
_SLICE = 4096
# Sampled steps that must agree before something is called dead: zero initialisation lasts one.
_PERSISTS = 3
# Their overflow, divided by afterwards, makes zeros where numbers belong.
_REDUCING = ("pow", "mul", "sum", "mean", "norm", "var", "mm", "square", "dot")


@dataclass(slots=True)
class Tally:
    """How often a parameter's entries moved when they had a gradient."""

    dtype: torch.dtype
    samples: int = 0
    compared: int = 0
    moved: int = 0


class Silent:
    """Watches for what is finite and wrong."""

    def __init__(self, base: str | None) -> None:
        self.base = base
        self.found: dict[tuple[str, str | None], Finding] = {}
        self._before: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._tallies: dict[int, Tally] = {}
        self._zero_gradients = 0
        self._constant = 0
        self._measured = 0
        self._steps = 0
        self._was_unscaled = False
        self._line: str | None = None  # where the optimiser is told to move

    def _here(self) -> str | None:
        """The script's line that is running."""
        return location(user_frame(sys._getframe(1)), self.base)

    # -- events ------------------------------------------------------------------------------------

    def measured(self, session: "Session", row: dict[str, Any], parameters: list[Any]) -> None:
        """Before an optimiser moves: gradients that are zero, outputs that are constant."""
        step = session.step
        if step not in _SAMPLED:
            return
        self._measured += 1
        session.look()
        loss = row.get("loss", 0.0)
        if row.get("gradient_norm") == 0.0 and loss:
            self._zero_gradients += 1
            if self._zero_gradients == _PERSISTS:
                self._vanished(session)
        if _rows_equal(session.model_output) and not _rows_equal_inputs(session.model_inputs):
            self._constant += 1
            if self._constant == _PERSISTS and self._constant == self._measured:
                self._died(session)
        if step in (0, 2):
            chain = Chain(session.tape.entries)
            for remark in scan(chain):
                self._remark(session, chain, remark.cause, remark.position, remark.detail)
        self._swallowed(session)

    def before_step(self, session: "Session", optimizer: Any) -> None:
        """Remember some weights, to see whether they move."""
        self._before = []
        if session.step not in _SAMPLED:
            return
        self._line = self._here()
        for group in optimizer.param_groups:
            if not group["lr"]:
                continue
            for each in group["params"]:
                if each.grad is not None and each.grad.layout is torch.strided:
                    used = each.grad.detach().flatten()[:_SLICE] != 0
                    flat = each.detach().flatten()[:_SLICE]
                    self._before.append((each, torch.where(used, flat, float("nan"))))

    def after_step(self, session: "Session", optimizer: Any) -> None:
        """Compare them."""
        if self._before:
            for parameter, before in self._before:
                valid = ~before.isnan()
                now = parameter.detach().flatten()[:_SLICE]
                tally = self._tallies.setdefault(id(parameter), Tally(parameter.dtype))
                compared = int(valid.sum())
                tally.samples += compared > 0
                tally.compared += compared
                tally.moved += int((valid & (now != before)).sum())
        self._before = []
        self._state(session, optimizer)
        if session.step in (0, 2):
            chain = Chain(session.tape.entries)
            for remark in scan(chain):
                if chain.entries[remark.position].phase == "optimizer":
                    self._remark(session, chain, remark.cause, remark.position, remark.detail)

    def _state(self, session: "Session", optimizer: Any) -> None:
        """Moments that overflowed: the weights stay finite, and freeze."""
        for origin in session.flow.births:
            if origin.phase != "optimizer":
                continue
            for state in optimizer.state.values():
                for name, each in state.items() if isinstance(state, dict) else ():
                    if not isinstance(each, torch.Tensor) or not each.is_floating_point():
                        continue
                    if session.flow.marks.of(each) and not is_finite(each):
                        with session.moving.rehearsal():
                            _, fixes = try_steps(optimizer, session.moving.start)
                        self._add(
                            session,
                            cause="optimizer_state",
                            op=origin.name,
                            detail=f"{name} is no longer finite, the weights still are",
                            phase="optimizer",
                            inputs=origin.inputs,
                            fixes=fixes,
                        )
                        return

    def step_ended(self, session: "Session") -> None:
        """Buffers that a step left poisoned."""
        self._was_unscaled = False
        self._steps += 1
        if not session.flow.marks.held:
            return
        for root in session.roots[-4:]:
            for name, buffer in root.named_buffers():
                if buffer.is_floating_point() and session.flow.marks.of(buffer):
                    if is_finite(buffer):
                        continue
                    self._add(
                        session,
                        cause="poisoned_buffer",
                        op="aten.native_batch_norm",
                        detail=f"{name} holds {int((~buffer.isfinite()).sum())} such entries",
                        module=name.rpartition(".")[0] or type(root).__name__,
                    )

    def unscaled(self) -> None:
        """GradScaler.unscale_ was called."""
        self._was_unscaled = True

    def clipped(
        self, session: "Session", parameters: list[torch.Tensor], norm: torch.Tensor, limit: float
    ) -> None:
        """After clip_grad_norm_."""
        if session.scaling.active and not self._was_unscaled:
            scale = session.scaling.scale
            fix = unscale_first(parameters, float(norm), limit, scale) if scale else None
            self._add(
                session,
                cause="gradient_clipping",
                op="torch.nn.utils.clip_grad_norm_",
                detail="the gradients were still multiplied by the loss scale when their norm was "
                "compared with the limit, so that nearly every step is clipped to almost nothing",
                phase="optimizer",
                where=self._here(),
                fixes=(fix,) if fix else (),
            )
        elif not session.scaling.active and not is_finite(norm):
            largest = max(
                (each.absmin_nonzero or 0.0 for each in map(range_of, _gradients(parameters))),
                default=0.0,
            )
            zero = all(not bool(each.any()) for each in _gradients(parameters))
            if zero or largest == 0.0:
                self._add(
                    session,
                    cause="gradient_clipping",
                    op="torch.nn.utils.clip_grad_norm_",
                    detail=f"the norm came out as {float(norm):g}, and every gradient as 0",
                    phase="optimizer",
                    where=self._here(),
                )

    # -- verdicts ----------------------------------------------------------------------------------

    def summary(self, session: "Session") -> list[Finding]:
        """The silent findings of the whole training, in the order they were seen."""
        tallies = [each for each in self._tallies.values() if each.samples >= _PERSISTS]
        stuck = [
            each
            for each in tallies
            if each.dtype in (torch.float16, torch.bfloat16)
            and each.compared >= 16
            and each.moved < 0.01 * each.compared
        ]
        if not stuck and tallies and not any(each.moved for each in tallies):
            stuck = tallies
        if stuck:
            fixes: tuple[Fix, ...] = ()
            if session.deepen is not None:
                with session.moving.rehearsal():
                    fixes = move_weights(session.optimizer)
            self._add(
                session,
                cause="lost_update",
                op="optimizer.step",
                detail=f"of {sum(each.compared for each in stuck)} updates of "
                f"{short(stuck[0].dtype)} weights with a gradient, looked at in "
                f"{stuck[0].samples} steps, {sum(each.moved for each in stuck)} changed anything",
                phase="optimizer",
                where=self._line,
                fixes=fixes,
                step=0,
            )
        return list(self.found.values())

    def _vanished(self, session: "Session") -> None:
        """All gradients are 0: find where in the backward pass they became so."""
        if session.light.on and not session.light.again():
            return
        chain = Chain(session.tape.entries)
        for position, entry in enumerate(chain.entries):
            if entry.node is None:
                continue
            outputs, inputs = outputs_of(entry), inputs_of(entry)
            if not outputs or not inputs or any(bool(each.any()) for each in outputs):
                continue
            if not bool(inputs[0].any()):
                continue
            forward = chain.forward_of(entry)
            name = plan_of(entry.func).name
            dtype = outputs[0].dtype
            if dtype in (torch.float16, torch.bfloat16) and "threshold" not in name:
                cause = "lost_update"
                count = outputs[0].numel()
                detail = f"the gradient is flushed to 0 in {short(dtype)}, all {count} of it"
            else:
                cause = "dead_output"
                detail = f"no gradient passes {name}, whose output here is flat"
            self._remark(session, chain, cause, position if forward is None else forward, detail)
            return

    def _died(self, session: "Session") -> None:
        """The model's output is the same for every sample: find where the samples became equal."""
        chain = Chain(session.tape.entries)
        for position, entry in enumerate(chain.entries):
            out = entry.out
            if entry.node is not None or not isinstance(out, torch.Tensor):
                continue
            given = [each for each in inputs_of(entry) if not _parameter(each)]
            if _rows_equal(out) and any(
                each.dim() and each.shape[0] == out.shape[0] and not _rows_equal(each)
                for each in given
            ):
                zero = "zero" if not bool(out.any()) else "the same for every sample"
                detail = f"all {out.numel()} entries are {zero}"
                self._remark(session, chain, "dead_output", position, detail)
                return

    def _swallowed(self, session: "Session") -> None:
        """An overflow that a division turned into zeros."""
        births = [
            each
            for each in session.flow.births
            if each.kind == "birth"
            and each.phase == "forward"
            and each.value == "inf"
            and any(word in each.name for word in _REDUCING)
        ]
        if not births:
            return
        chain = Chain(session.tape.entries)
        for position, entry in enumerate(chain.entries):
            name = chain.name(position)
            if entry.node is not None or not any(w in name for w in ("div", "rsqrt", "recip")):
                continue
            for each in inputs_of(entry):
                origins = session.flow.marks.of(each) or frozenset()
                guilty = [origin for origin in births if _comes_from(origin, origins)]
                out = outputs_of(entry)
                if guilty and out and is_finite(out[0]) and not is_finite(each):
                    origin = guilty[0]
                    self._remark(
                        session,
                        chain,
                        "dead_output",
                        origin.position,
                        f"{origin.name} overflowed, and {name} made zeros of it",
                    )
                    return

    def _remark(
        self, session: "Session", chain: Chain, cause: str, position: int, detail: str
    ) -> None:
        entry = chain.entries[position]
        where = location(entry.where, self.base)
        if (cause, where) in self.found:
            return
        self._add(
            session,
            cause=cause,
            op=chain.name(position),
            detail=detail,
            module=module_path(entry.module, session.roots),
            where=where,
            text=source(entry.where),
            inputs=tuple(map(range_of, inputs_of(entry)[:4])),
            phase=entry.phase,
            fixes=try_silent(session, cause, chain, position) if session.deepen else (),
        )

    def _add(
        self,
        session: "Session",
        *,
        cause: str,
        op: str,
        detail: str,
        phase: str = "forward",
        module: str | None = None,
        where: str | None = None,
        text: str | None = None,  # of that line
        inputs: tuple[Any, ...] = (),
        step: int | None = None,
        fixes: tuple[Fix, ...] = (),
    ) -> None:
        if (cause, where) in self.found:
            return
        self.found[cause, where] = Finding(
            kind="silent",
            step=session.step if step is None else step,
            phase=phase,
            op=op,
            module=module,
            location=where,
            source=text,
            value="zero" if cause in ("dead_output", "epsilon_underflow", "lost_update") else None,
            cause=cause,
            explanation=explain(cause, op, inputs, detail),
            inputs=inputs,
            history=session.history.columns(),
            fixes=with_advice(fixes, cause),
        )


def _gradients(parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    return [each.grad.detach() for each in parameters if each.grad is not None]


def _parameter(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, torch.nn.Parameter)


def _comes_from(origin: Origin, origins: frozenset[Origin]) -> bool:
    return origin in all_of(origins)


def _rows_equal(output: Any) -> bool:
    """Whether all samples of a batch got the very same floating-point result."""
    if not isinstance(output, torch.Tensor) or not output.is_floating_point():
        return False
    if output.dim() < 1 or output.shape[0] < 2 or not output.numel():
        return False
    output = output.detach()
    return bool((output == output[:1]).all())


def _rows_equal_inputs(inputs: list[torch.Tensor]) -> bool:
    return not inputs or all(_rows_equal(each) for each in inputs)
