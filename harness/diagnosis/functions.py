"""Autograd functions of a script's own: to be run again they are applied whole.

Inside of `forward` gradients are off, so that its operations, run again one by one, would lead no
gradient back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from harness.diagnosis.tape import Tape


@dataclass(frozen=True, slots=True, eq=False)
class Applied:
    """An application, in the place that an operation has on the tape; called, it is repeated."""

    function: Any  # the class
    start: int  # position of its first own operation in the tape
    tags: tuple[()] = ()  # torch's operations have some

    @property
    def name(self) -> str:
        """The class's name."""
        return str(self.function.__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function.apply(*args, **kwargs)


def wrap_functions(tape: "Tape", keep: Callable[[Any], None]) -> None:
    """Record every application on the tape, until the handle that is kept is removed."""
    original = torch.autograd.Function.__dict__["apply"]

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if tape.paused or tape.backward or any(map(_is_code, args)):
            return original.__func__(cls, *args, **kwargs)
        start = len(tape.entries)
        out = original.__func__(cls, *args, **kwargs)
        tape.applied(Applied(cls, start), args, kwargs, out)
        return out

    torch.autograd.Function.apply = classmethod(apply)  # type: ignore[assignment, method-assign]
    keep(_Handle(original))


def _is_code(value: Any) -> bool:
    """Modules and functions carry weights that a second run would have to leave alone."""
    return callable(value) and not isinstance(value, (torch.Tensor, type))


@dataclass(frozen=True)
class _Handle:
    original: Any

    def remove(self) -> None:
        torch.autograd.Function.apply = self.original  # type: ignore[method-assign]
