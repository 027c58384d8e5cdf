"""`harness.watch`: a cheap look at every step, and a strict second run of the one that fails.

Every step costs one sum per gradient and one synchronisation, before the optimiser moves. Only when
something is not finite is the step run again under the tape, with the random state it began with.
"""

import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

import torch

from harness.diagnosis.finding import Diagnosis, Finding, outcome_of
from harness.diagnosis.findings import advice, explain, spell
from harness.diagnosis.frames import user_frame
from harness.diagnosis.history import History
from harness.diagnosis.numbers import is_finite, range_of
from harness.diagnosis.render import of_finding
from harness.diagnosis.scaling import SKIPS
from harness.diagnosis.second_run import Abort, Failed, find, random_state
from harness.diagnosis.session import OWN_FAILURE
from harness.diagnosis.steps import Wrapped, listen

_Result = TypeVar("_Result")

# Steps between full norms for the history, and between looks at the parameters themselves.
_SAMPLE = 16
# Entries up to which calls cost more than numbers.
_SMALL = 1 << 14
_ONE = torch.ones(())


class Watch:
    """Finds the first value that is not finite. Use `harness.watch(...)` as a context manager.

    `step(function, *args)` runs one training step so that it can be run again; in a plain loop the
    model's forward and backward pass are run again instead.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: Any = None,  # or several; None: any optimiser that moves
        *,
        save: str | None = None,  # directory for a reproduction
        on_finding: Callable[[Finding], None] | None = None,  # default: print the report
    ) -> None:
        self.model = model
        self.findings: list[Finding] = []
        self.steps = 0
        self.history = History()
        self._optimizers = None if optimizer is None else [id(each) for each in _as_list(optimizer)]
        self._save = save
        self._on_finding = on_finding or _print
        self._wrapped: Wrapped | None = None
        self._handle: Any = None
        self._losses: list[torch.Tensor] = []
        self._unscaled: torch.Tensor | None = None
        self._small: dict[int, bool] = {}  # optimiser -> whether its weights are
        self._seen: set[int] = set()  # optimisers of the training
        self._skips = 0
        self._busy = False
        self._moving: Any = None  # the optimiser whose step is looked at
        self._redo: Callable[[], Any] | None = None
        self._inputs: tuple[Any, dict[str, Any]] | None = None
        self._output: Any = None
        self._kept: torch.Tensor | None = None  # the model's output, which keeps its gradient
        self._random: Any = None
        self._base = os.getcwd()

    def __enter__(self) -> "Watch":
        self._wrapped = listen(self, module_hooks=False, failed=self._failed)
        self._handle = (
            self.model.register_forward_pre_hook(self._before_forward, with_kwargs=True),
            self.model.register_forward_hook(self._after_forward),
        )
        where = user_frame(sys._getframe(1))
        if where.code is not None:
            self._base = os.path.dirname(os.path.abspath(where.code.co_filename))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._detach()

    def _failed(self, error: Exception) -> None:
        """An error of the watch itself: say so once, and leave the training alone."""
        self._detach()
        print(f"stability: {OWN_FAILURE}: {type(error).__name__}: {error}", file=sys.stderr)

    def _detach(self) -> None:
        if self._wrapped is not None:
            self._wrapped.undo()
            self._wrapped = None
            for each in self._handle:
                each.remove()

    @property
    def diagnosis(self) -> Diagnosis:
        """What has been found."""
        found = tuple(self.findings)
        return Diagnosis(outcome_of(found), found, self.steps)

    def step(self, function: Callable[..., _Result], *args: Any, **kwargs: Any) -> _Result:
        """Run one training step: forward, backward and the optimiser's step, all in `function`.

        If it goes bad it is run a second time up to its optimiser; it should read its batch from
        its arguments and have no other effects before that.
        """
        if self._wrapped is None:
            return function(*args, **kwargs)
        self._random = random_state()
        buffers = list(self.model.buffers())
        before = [each.detach().clone() for each in buffers]

        def redo() -> None:
            with torch.no_grad():
                for buffer, value in zip(buffers, before, strict=True):
                    buffer.copy_(value)
            function(*args, **kwargs)

        self._redo = redo
        try:
            return function(*args, **kwargs)
        finally:
            self._redo = None

    def check(self, loss: torch.Tensor) -> bool:
        """Whether a loss is finite; if not, diagnose. For loops that skip bad steps."""
        if is_finite(loss):
            return True
        self._losses = [loss]
        self._diagnose()
        return False

    # -- events ------------------------------------------------------------------------------------

    def _before_forward(self, module: Any, args: Any, kwargs: Any) -> None:
        if not self._busy and torch.is_grad_enabled():
            self._inputs = (args, kwargs)
            if self._redo is None:
                self._random = random_state()

    def _after_forward(self, module: Any, args: Any, output: Any) -> None:
        if not self._busy and isinstance(output, torch.Tensor) and output.requires_grad:
            self._output = output.detach()
            if self._redo is None and not output.is_leaf:
                output.retain_grad()  # a hook in Python would cost several times as much
                self._kept = output

    def before_backward(self, roots: list[torch.Tensor]) -> None:
        if not self._busy:
            self._losses += [each.detach() for each in roots]

    def after_backward(self, roots: list[torch.Tensor]) -> None: ...

    def before_step(self, optimizer: Any) -> None:
        if self._busy:
            if id(optimizer) in self._seen:
                raise Abort
            return  # a copy, on which a repair is tried
        self._seen.add(id(optimizer))
        if self._optimizers is not None and id(optimizer) not in self._optimizers:
            return
        self._moving = optimizer
        parameters = [
            each
            for group in optimizer.param_groups
            for each in group["params"]
            if each.grad is not None and each.grad.layout is torch.strided
        ]
        losses = [self._unscaled] if self._unscaled is not None else self._losses
        sampled = self.steps % _SAMPLE == 0
        # Nothing here asks for gradients: losses are detached, and gradients have none.
        sums = [each if each.dim() == 0 else each.sum() for each in losses]
        gradients = [each.grad for each in parameters]
        finite = True
        if self._small.get(id(optimizer)) is None:
            self._small[id(optimizer)] = _are_small(optimizer)
        if gradients and self._small[id(optimizer)] and not gradients[0].requires_grad:
            finite = _quickly(gradients)
        else:
            sums += [each.sum() for each in gradients]
        if sampled:
            sums += [each.detach().sum() for each in parameters]
        if not (finite and _all_finite(sums)) and self._truly_bad(losses, parameters):
            self._diagnose()
        elif sampled and self._wrapped is not None:
            rate = float(optimizer.param_groups[0]["lr"])
            watched = {"output": self._output}
            with torch.no_grad():
                self.history.add(self.steps, losses, parameters, watched, {"rate": rate})

    def after_step(self, optimizer: Any) -> None:
        if self._optimizers is None or id(optimizer) == self._optimizers[0]:
            self.steps += 1
        self._losses, self._unscaled, self._kept = [], None, None

    def closure_entered(self, optimizer: Any) -> None: ...
    def optimizer_made(self, optimizer: Any) -> None: ...

    def scaled(self, scaler: Any, loss: Any) -> None:
        if isinstance(loss, torch.Tensor) and not self._busy:
            self._unscaled = loss.detach()

    def unscaled_by(self, scaler: Any, optimizer: Any) -> None: ...

    def scaler_stepped(self, scaler: Any, optimizer: Any, ran: bool) -> None:
        if self._busy:
            raise Abort
        if ran:
            self._skips = 0
            return
        self._moving = optimizer
        self._skips += 1
        bad_loss = self._unscaled is not None and not is_finite(self._unscaled)
        if bad_loss:
            self._diagnose()
        elif self._skips >= SKIPS or scaler.get_scale() < 1:
            self._diagnose(cause="loss_scale_collapse")
        self.steps += 1
        self._losses, self._unscaled = [], None

    def scaler_updated(self, scaler: Any, before: float, after: float) -> None: ...
    def clipped(self, parameters: Any, norm: Any, limit: float) -> None: ...
    def entered(self, module: Any, inputs: Any) -> None: ...
    def left(self, module: Any, inputs: Any, output: Any) -> None: ...

    # -- the second run ----------------------------------------------------------------------------

    def _truly_bad(self, losses: list[Any], parameters: list[Any]) -> bool:
        """Sums of finite numbers may overflow; this looks at the numbers."""
        tensors = [*losses, *(each.grad for each in parameters), *parameters]
        return any(each is not None and not is_finite(each) for each in tensors)

    def _diagnose(self, cause: str | None = None) -> None:
        if self._wrapped is None or self._busy:
            return
        self._busy = True
        try:
            finding = find(
                Failed(
                    model=self.model,
                    optimizer=self._moving,
                    number=self.steps,
                    history=self.history,
                    base=self._base,
                    save=self._save,
                    random_state=self._random,
                    redo=self._redo,
                    inputs=self._inputs,
                    output_gradient=None if self._kept is None else self._kept.grad,
                )
            )
        finally:
            self._busy = False
        finding = finding or self._outside()
        if cause is not None:
            finding = replace(
                finding,
                cause=cause,
                explanation=explain(
                    cause, finding.op, finding.inputs, f"below 1 in {self._skips} skips"
                ),
            )
        at = self.steps - 1 if finding.phase == "optimizer" else self.steps
        finding = replace(finding, step=at)
        self.findings.append(finding)
        self._detach()
        self._on_finding(finding)

    def _outside(self) -> Finding:
        """The model is sound at this step: it happened in the loss, between model and backward."""
        inputs = (range_of(self._output),) if isinstance(self._output, torch.Tensor) else ()
        losses = [self._unscaled] if self._unscaled is not None else self._losses
        bad = [each for each in losses if each is not None and not is_finite(each)]
        value = "nan" if any(bool(each.isnan().any()) for each in bad) else "inf"
        return Finding(
            kind="nonfinite",
            step=self.steps,
            phase="forward" if bad else "backward",
            op="loss",
            module=None,
            location=None,
            value=value,
            cause="unknown",
            explanation=explain("unknown", "The loss function", inputs, spell(inputs)),
            inputs=inputs,
            history=self.history.columns(),
            fixes=advice("unknown"),
            notes=(
                "the model, run again on this batch, is finite: the fault lies in the code between "
                "the model's output and backward(), which only Watch.step can run again",
            ),
        )


def _are_small(optimizer: Any) -> bool:
    """Whether all weights are small, in fp32 and on the CPU."""
    weights = [each for group in optimizer.param_groups for each in group["params"]]
    return len(weights) > 1 and all(
        each.dtype is torch.float32 and each.numel() <= _SMALL and each.device.type == "cpu"
        for each in weights
    )


def _quickly(gradients: list[torch.Tensor]) -> bool:
    """Whether small gradients are finite, in one call for all.

    It is the check that a GradScaler makes, with a scale of 1: each entry is multiplied by 1.
    """
    found = torch.zeros(())
    torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, _ONE)
    return not found.item()


def _all_finite(sums: list[torch.Tensor]) -> bool:
    """Whether single numbers are finite; one wait for a device."""
    if any(each.device.type != "cpu" for each in sums):
        sums = [torch.stack([each.to(sums[0]) for each in sums]).sum()]
    return all(math.isfinite(each.item()) for each in sums)


def _as_list(optimizer: Any) -> list[Any]:
    return list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer]


def _print(finding: Finding) -> None:
    print("\n".join(of_finding(finding)), file=sys.stderr, flush=True)


watch = Watch
