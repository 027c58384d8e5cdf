"""A path on a group's inputs, ready to be called over and over: what is timed, what is not."""

from typing import Any

import torch
from torch import Tensor

from harness.execute import NO_GRADIENT, missing_parameters
from harness.operation import UPSTREAM, Path
from harness.timing.speed_case import SpeedPass
from harness.timing.tiled import TiledInputs


class Subject:
    """`arrange` prepares a call and is not timed; `call` is; `results` looks at what came out.

    The input requires a gradient in every pass, as in training. A backward call gets a fresh graph
    each time, so that what a path frees or overwrites in backward is there the next time. Gradients
    are those of the first role and of what rows share (a norm's weight).
    """

    def __init__(self, path: Path, inputs: TiledInputs, pass_: SpeedPass) -> None:
        lacking = missing_parameters(
            path.function, inputs.drawn.block.roles, inputs.drawn.block.options
        )
        if lacking:
            raise NotImplementedError(f"takes no {lacking}")
        self.path, self.inputs, self.pass_ = path, inputs, pass_
        # Of a path that was seen to change its inputs: it gets copies, so that others' stay whole.
        self.needs_copies = False
        self._given: dict[str, Tensor] = {}
        self._kind: tuple[torch.dtype, tuple[int, ...]] | None = None  # of the forward's result
        self._upstream: Tensor | None = None
        self._ones: Tensor | None = None
        self._value: Any = None
        self._gradients: tuple[Tensor | None, ...] = ()

    def arrange(self, number: int) -> None:
        """Take a set of inputs; for backward alone, run the forward."""
        self.release()
        self._given = self._taken(number)
        if self.pass_ == "forward":
            return
        if self.pass_ == "backward" or self._kind is None:
            self._forward()
        self._upstream = self._upstream_now()
        if self.pass_ == "both" and self._value is not None:
            # That forward only said what an upstream gradient looks like, and may have overwritten.
            self._value = None
            self._given = self._taken(number)

    def call(self) -> None:
        """The pass itself."""
        if self.pass_ != "backward":
            self._value = self.path.function(*self._roles(), **self.inputs.drawn.block.options)
        if self.pass_ != "forward":
            leaves = self._leaves()
            self._gradients = torch.autograd.grad(
                self._value, leaves, self._upstream, allow_unused=True
            )

    def results(self) -> dict[str, object]:
        """What the last call returned, by pass; a gradient that did not arrive is None."""
        found: dict[str, object] = {}
        if self.pass_ != "backward":
            found["forward"] = self._value
        if self.pass_ != "forward":
            found["backward"] = self._gradients[0] if self._gradients else None
        return found

    def release(self) -> None:
        """Let go of what the last call returned, so that the next one finds its memory."""
        self._value, self._gradients, self._given = None, (), {}

    def _taken(self, number: int) -> dict[str, Tensor]:
        """A set of inputs; copies where the path writes to them, which autograd lets no leaf be."""
        given = dict(self.inputs.sets[number])
        first = next(iter(given))
        for role in given if self.needs_copies else (first,):
            if self.needs_copies or self.path.overwrites_input:
                given[role] = given[role].clone()
        return given

    def _forward(self) -> None:
        value = self.path.function(*self._roles(), **self.inputs.drawn.block.options)
        if not isinstance(value, Tensor):
            raise TypeError(f"returned {type(value).__name__}, not a tensor")
        if not value.requires_grad:
            raise NotImplementedError(NO_GRADIENT)
        self._kind = (value.dtype, tuple(value.shape))
        self._value = value

    def _upstream_now(self) -> Tensor:
        """The set's own gradient of the result, else ones, made once."""
        assert self._kind is not None
        dtype, shape = self._kind
        given = self._given.get(UPSTREAM)
        if given is not None:
            return given.to(dtype)
        if self._ones is None or (self._ones.dtype, tuple(self._ones.shape)) != self._kind:
            self._ones = torch.ones(shape, dtype=dtype, device=self._roles()[0].device)
        return self._ones

    def _roles(self) -> list[Tensor]:
        return [value for role, value in self._given.items() if role != UPSTREAM]

    def _leaves(self) -> list[Tensor]:
        return [each for each in self._roles() if each.requires_grad]
