"""The tape of the current step: every operation torch runs, with what is needed to judge it later.

An entry keeps references, computes nothing and never waits for the device, so that the mode can
stay on from the first step to the last. Outputs are looked at in batches (`flow`), before an
optimiser overwrites what they were computed from.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.diagnosis.frames import Where, user_frame
from harness.diagnosis.functions import Applied
from harness.diagnosis.launches import Launch, launch_of

# Bytes of outputs that the tape may keep alive. A step that needs more is judged piece by piece,
# and cannot be replayed: its tensors are let go.
KEEP_BYTES = 1 << 30
PIECE_BYTES = 128 << 20

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_sequence = torch._C._autograd._get_sequence_nr
_IS_FLOAT = dict.fromkeys(FLOATS, True)


class Entry(NamedTuple):
    """One operation as it ran. A tuple, since thousands are made a second."""

    func: Any  # the OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    where: Where  # code object and instruction of the user's line
    module: Any  # innermost module whose forward was running, or None
    sequence: int  # forward: torch's sequence number, one above that of the node it made
    node: Any  # backward: the autograd node that ran it; None in forward
    phase: str  # "forward", "backward", "optimizer"
    grad_enabled: bool


class Plan(NamedTuple):
    """What is known about an operation before it runs."""

    name: str  # "aten.log"
    check: bool  # can make a value that is not finite
    writes: tuple[int, ...]  # positions of arguments it overwrites


# They move or describe what is there, or hand out memory that nobody has written yet.
_UNCHECKED = frozenset(
    [
        "aten.empty",
        "aten.empty_like",
        "aten.empty_strided",
        "aten.new_empty",
        "aten.new_empty_strided",
        "aten.lift_fresh",
        "aten.alias",
        "aten.detach",
        "aten.detach_",
        "aten._local_scalar_dense",
        "aten.equal",
        "aten.resize_",
        "aten.set_",
        "aten.requires_grad_",
        "aten.zeros",
        "aten.zeros_like",
        "aten.new_zeros",
        "aten.zero_",
        "aten.ones",
        "aten.ones_like",
        "aten.new_ones",
        "aten.rand",
        "aten.randn",
        "aten.randint",
        "aten.randperm",
        "aten.arange",
        "aten.uniform_",
        "aten.normal_",
        "aten.bernoulli_",
        "aten.is_pinned",
    ]
)
# By id: hashing an operation runs Python code, several times for each that a script runs.
_PLANS: dict[int, tuple[Plan, Any]] = {}
_ENGINE = torch.autograd.graph._engine_run_backward.__code__


def plan_of(func: Any) -> Plan:
    """What is known about an operation, from its schema; kept, since it is asked each time."""
    known = _PLANS.get(id(func))
    if known is not None:
        return known[0]
    if isinstance(func, Launch):
        return Plan(func.name, True, func.writes)
    if isinstance(func, Applied):
        return Plan(func.name, False, ())
    namespace, _, name = func._schema.name.partition("::")
    full = f"{namespace}.{name}"
    writes = tuple(
        position
        for position, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
    if "batch_norm" in name and "backward" not in name and not writes:
        writes = (3, 4)  # the running statistics, which these schemas do not own up to
    check = full not in _UNCHECKED and not (not writes and getattr(func, "is_view", False))
    plan = Plan(full, check, writes)
    _PLANS[id(func)] = (plan, func)  # with the operation, so that its id stays its own
    return plan


class Tape(TorchDispatchMode):
    """Records every operation of the step under way."""

    def __init__(
        self,
        full: Callable[[], None],  # called when a piece is large enough to be judged
        failed: Callable[[Exception], None],  # told of errors made in recording
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch annotates neither this nor below
        self.entries: list[Entry] = []
        self.judged = 0  # entries already looked at
        self.dropped = False  # the step was too large to be kept whole
        self.paused = False
        self.modules: list[Any] = []  # whose forward is running, outermost first
        self.backward = 0  # depth of backward passes under way
        self.optimizer = 0  # depth of optimiser steps under way
        self._engine: Where | None = None  # the line that the backward pass under way began at
        self._bytes = 0
        self._full = full
        self._failed = failed
        self.is_on = False  # by `on`, and not as a context
        self.recording = False  # inside an operation of the script

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Else every operation goes through a wrapper that keeps the compiler out. It is out
        # already: scripts run with TORCHDYNAMO_DISABLE=1, and replays call torch's operations
        # themselves.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **kwargs) if kwargs else func(*args)
        if self.paused:
            return out
        self.recording = True
        try:
            self._record(func, args, kwargs, out, sys._getframe(1))
        except Exception as error:  # noqa: BLE001  # the operation itself has succeeded
            self._failed(error)
        self.recording = False
        return out

    def _record(self, func: Any, args: Any, kwargs: Any, out: Any, frame: Any) -> None:
        node = None
        if self.backward:
            node = torch._C._current_autograd_node()
            if frame.f_code is _ENGINE:
                # Called by the engine itself: all of a pass have the same line.
                where = self._engine = self._engine or user_frame(frame)
            else:
                where = user_frame(frame)
        else:
            where = user_frame(frame)
        phase = "optimizer" if self.optimizer else "backward" if node is not None else "forward"
        self.entries.append(
            Entry(
                func,
                args,
                kwargs or {},
                out,
                where,
                self.modules[-1] if self.modules else None,
                _sequence() if node is None else -1,
                node,
                phase,
                torch.is_grad_enabled(),
            )
        )
        if type(out) is torch.Tensor:
            self._bytes += _bytes(out) + 4096  # many small ones are many, too
            if self._bytes > PIECE_BYTES:
                self._piece()

    def launch(self, run: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Launch a Triton kernel and record it; stands for `run` of Triton's functions."""
        if self.paused or kwargs.get("warmup"):
            return run(function, *args, **kwargs)
        self.paused = True  # what the launcher does by itself is no operation of the script
        try:
            options = {key: each for key, each in kwargs.items() if key not in ("grid", "warmup")}
            again = functools.partial(run, function)
            recorded = launch_of(function, again, kwargs["grid"], args, self._is_empty)
            out = run(function, *args, **kwargs)
            self._record(recorded, args, options, None, sys._getframe(1))
            return out
        finally:
            self.paused = False

    def applied(self, func: Applied, args: Any, kwargs: Any, out: Any) -> None:
        """An autograd function has been applied."""
        if func.start <= len(self.entries) and any(True for _ in tensors_in(out)):
            self._record(func, args, kwargs, out, sys._getframe(2))

    def _is_empty(self, tensor: torch.Tensor) -> bool:
        """Whether it was allocated lately, and nobody has written into it since."""
        for entry in reversed(self.entries[-64:]):
            plan = plan_of(entry.func)
            if entry.out is tensor and plan.name in ("aten.detach", "aten.alias"):
                tensor = entry.args[0]  # what an allocation returns has passed through these
            elif entry.out is tensor:
                return "empty" in plan.name
            elif any(entry.args[spot] is tensor for spot in plan.writes if spot < len(entry.args)):
                return False
        return False

    def _piece(self) -> None:
        self._bytes = 0
        self._full()
        kept = sum(
            _bytes(entry.out) for entry in self.entries if isinstance(entry.out, torch.Tensor)
        )
        if kept > KEEP_BYTES:
            self.entries = [_light(entry) for entry in self.entries]
            self.dropped = True

    def on(self) -> None:
        """Record from here."""
        if not self.is_on:
            self.is_on = True
            self.__enter__()  # type: ignore[no-untyped-call]

    def off(self) -> None:
        """Record no more."""
        if self.is_on:
            self.is_on = False
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def backward_begins(self) -> None:
        """A backward pass is called."""
        self.backward += 1
        self._engine = None

    def clear(self) -> None:
        """Forget the step."""
        self.entries = []
        self.judged = 0
        self.dropped = False
        self._bytes = 0


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()  # nbytes refuses sparse tensors


def _light(entry: Entry) -> Entry:
    """The entry without its tensors: what backward needs to name its forward line."""
    return entry._replace(args=(), kwargs={}, out=None)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in arguments or results, nested lists included."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from tensors_in(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors_in(each)


def is_checked(tensor: Any) -> bool:
    """Whether a tensor has floating-point entries to look at."""
    return (
        tensor.dtype in _IS_FLOAT
        and tensor.layout is torch.strided
        and tensor.device.type != "meta"
        and tensor.numel() > 0
    )


def outputs_of(entry: Entry) -> list[torch.Tensor]:
    """The floating-point tensors that an operation made or overwrote."""
    found = [each for each in tensors_in(entry.out) if is_checked(each)]
    for position in plan_of(entry.func).writes:
        if position < len(entry.args):
            for each in tensors_in(entry.args[position]):
                if is_checked(each) and all(each is not other for other in found):
                    found.append(each)
    return found


def inputs_of(entry: Entry) -> list[torch.Tensor]:
    """The floating-point tensors that an operation read, in the order of its arguments."""
    return [each for each in tensors_in((entry.args, entry.kwargs)) if is_checked(each)]
