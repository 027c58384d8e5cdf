"""Runs the recorded step again, forward and backward: as it was, changed, or in another format.

The forward operations of the tape are called again on copies of what they started from, with
autograd on, so that their gradients are computed as a fresh step would compute them. Nothing of
the training that was watched is touched.
"""

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from harness.diagnosis.functions import Applied
from harness.diagnosis.tape import FLOATS, Entry, Tape, plan_of, tensors_in

Look = Callable[[Any], Any]  # the replayed counterpart of a recorded tensor
Substitute = Callable[[Any, tuple[Any, ...], dict[str, Any], Look], Any]


class Unavailable(Exception):
    """The step cannot be run again; the message says why."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a replayed step gave."""

    loss: float  # may be NaN or infinite
    bad_gradients: int  # entries of gradients that are not finite
    gradient_norm: float

    @property
    def finite(self) -> bool:
        """Whether nothing that training uses went bad."""
        return math.isfinite(self.loss) and self.bad_gradients == 0

    def spell(self) -> str:
        """In a few words."""
        if not math.isfinite(self.loss):
            return f"the loss is {self.loss}"
        if self.bad_gradients:
            return f"loss {self.loss:.6g}, but {self.bad_gradients} gradient entries are not finite"
        return f"loss {self.loss:.6g}, gradient norm {self.gradient_norm:.4g}"


class Run(NamedTuple):
    """What a recorded run of the step ran on."""

    roots: list[torch.Tensor]  # what backward was called on
    copies: list[tuple[torch.Tensor, torch.Tensor]]  # data as recorded, and the copy that was used


class Replay:
    """A step that can be run again."""

    def __init__(
        self,
        entries: list[Entry],
        roots: list[torch.Tensor],  # what backward was called on
        random_state: torch.Tensor,  # of the CPU's generator when the tape began
    ) -> None:
        if not roots:
            raise Unavailable("no loss of this step is known")
        made = {id(each) for entry in entries for each in tensors_in(entry.out)}
        if any(id(root) not in made for root in roots):
            raise Unavailable("the loss was computed before this step's tape began")
        if not any(root.requires_grad for root in roots):
            raise Unavailable("the loss depends on no weight")
        self.entries = entries
        self.roots = roots
        self._random_state = random_state
        # What functions of the script's own do inside: they are applied whole.
        self._inside = {
            inner
            for position, entry in enumerate(entries)
            if isinstance(entry.func, Applied)
            for inner in range(entry.func.start, position)
        }
        last = max(
            position
            for position, entry in enumerate(entries)
            for each in tensors_in(entry.out)
            if any(each is root for root in roots)
        )
        # What comes before the first operation on a weight is data being made ready, or weights
        # being initialised: its results are taken as they are.
        start = min(
            position
            for position, entry in enumerate(entries)
            if entry.grad_enabled and any(each.requires_grad for each in tensors_in(entry.out))
        )
        # Run as well, for the random numbers that they take.
        self._drawn = [
            entry
            for entry in entries[:start]
            if torch.Tag.nondeterministic_seeded in entry.func.tags
            and entry.kwargs.get("generator") is None
        ]
        self.forward = [
            (position, entry)
            for position, entry in enumerate(entries[: last + 1])
            if entry.node is None
            and entry.phase == "forward"
            and position >= start
            and position not in self._inside
        ]
        if any(plan_of(entry.func).name.startswith(_TALKING) for _, entry in self.forward):
            raise Unavailable("its forward pass talks to other processes")
        self.leaves = self._find_leaves()

    def _find_leaves(self) -> list[torch.Tensor]:
        made: set[int] = set()
        leaves: dict[int, torch.Tensor] = {}
        for _, entry in self.forward:
            for each in tensors_in((entry.args, entry.kwargs)):
                if id(each) not in made:
                    leaves.setdefault(id(each), each)
            made |= {id(each) for each in tensors_in(entry.out)}
        return list(leaves.values())

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Leaves that gradients are wanted for."""
        return [each for each in self.leaves if each.requires_grad]

    @property
    def data(self) -> list[torch.Tensor]:
        """The other leaves: batches, targets, buffers, constants."""
        return [each for each in self.leaves if not each.requires_grad]

    @property
    def is_random(self) -> bool:
        """Whether the step draws random numbers."""
        return any(
            torch.Tag.nondeterministic_seeded in entry.func.tags for _, entry in self.forward
        )

    def run(
        self,
        substitutes: Mapping[int, Substitute] | None = None,  # by position in the tape
        *,
        dtype: torch.dtype | None = None,  # compute the whole step in it
        leaves: Mapping[int, torch.Tensor] | None = None,  # by id, in place of recorded ones
        seed: int | None = None,  # other random numbers
        scale: float = 1.0,  # of the loss in the backward pass; the gradients are divided by it
    ) -> Result:
        """Run the step. Raises Unavailable where an operation refuses."""
        loss, gradients = self.gradients(
            substitutes, dtype=dtype, leaves=leaves, seed=seed, scale=scale
        )
        found = [each.double() / scale for each in gradients if each is not None]
        bad = sum(int((~each.isfinite()).sum()) for each in found)
        norm = math.sqrt(sum(float(each.pow(2).sum()) for each in found)) if not bad else math.nan
        return Result(loss, bad, norm)

    def gradients(
        self,
        substitutes: Mapping[int, Substitute] | None = None,
        *,
        dtype: torch.dtype | None = None,
        leaves: Mapping[int, torch.Tensor] | None = None,
        seed: int | None = None,
        scale: float = 1.0,
    ) -> tuple[float, list[torch.Tensor | None]]:
        """The loss, and the gradient of each of `parameters`; arguments as for `run`.
        Gradients are those of the scaled loss."""
        loss, gradients, _ = self._compute(
            substitutes or {}, dtype=dtype, leaves=leaves or {}, seed=seed, scale=scale
        )
        return loss, gradients

    def recorded(self, tape: Tape) -> tuple["Run", dict[int, torch.Tensor | None], dict[int, int]]:
        """Run the step on its own weights with another tape on.

        Gives what it ran on, the gradients by id of the parameter, and the positions of the entries
        that tensors stem from by their id.
        """
        _, gradients, environment = self._compute({}, tape=tape)
        made = {
            id(environment[id(each)]): position
            for position, entry in self.forward
            for each in tensors_in(entry.out)
            if id(each) in environment
        }
        run = Run(
            [environment[id(root)] for root in self.roots],
            [(each, environment[id(each)]) for each in self.data],
        )
        return run, dict(zip(map(id, self.parameters), gradients, strict=True)), made

    def _compute(
        self,
        substitutes: Mapping[int, Substitute],
        *,
        dtype: torch.dtype | None = None,
        leaves: Mapping[int, torch.Tensor] = MappingProxyType({}),
        seed: int | None = None,
        scale: float = 1.0,
        tape: Tape | None = None,  # records; the weights are then the script's own
    ) -> tuple[float, list[torch.Tensor | None], dict[int, Any]]:
        if not self._inside.isdisjoint(substitutes):
            raise Unavailable("the operation lies inside of an autograd function of the script's")
        environment: dict[int, Any] = {}
        for each in self.leaves:
            if tape is not None and each.requires_grad and each.is_leaf:
                environment[id(each)] = each
                continue
            fresh = leaves.get(id(each), each).detach().clone()
            if dtype is not None and fresh.dtype in FLOATS:
                fresh = fresh.to(dtype)
            environment[id(each)] = fresh.requires_grad_(each.requires_grad)
        wanted = [environment[id(each)] for each in self.parameters]

        def look(tensor: Any) -> Any:
            return environment.get(id(tensor), tensor)

        with (
            torch.random.fork_rng(devices=[]),
            torch.enable_grad(),
            tape or contextlib.nullcontext(),
        ):
            if seed is None:
                torch.set_rng_state(self._random_state)
            else:
                torch.manual_seed(seed)
            try:
                self._forward(substitutes, environment, look, dtype)
                loss = sum(look(root).double().sum() for root in self.roots)
                if tape is not None:
                    tape.backward_begins()
                gradients = torch.autograd.grad(loss * scale, wanted, allow_unused=True)
            except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
                line = (str(error).splitlines() or [type(error).__name__])[0]
                raise Unavailable(f"the step cannot be run so: {line}") from None
            finally:
                if tape is not None:
                    tape.backward = 0
        found: list[torch.Tensor | None] = [
            None if each is None else each.detach() for each in gradients
        ]
        return float(loss.detach()), found, environment

    def _forward(
        self,
        substitutes: Mapping[int, Substitute],
        environment: dict[int, Any],
        look: Look,
        dtype: torch.dtype | None,
    ) -> None:
        with torch.no_grad():
            for entry in self._drawn:
                entry.func(*_mapped(entry.args, _copy, None), **_mapped(entry.kwargs, _copy, None))
        for position, entry in self.forward:
            args = _mapped(entry.args, look, dtype)
            kwargs = _mapped(entry.kwargs, look, dtype)
            if dtype is None and plan_of(entry.func).name in _ONE_DTYPE:
                args = _as_recorded(args, entry.args)
            substitute = substitutes.get(position)
            with torch.set_grad_enabled(entry.grad_enabled):
                if substitute is not None:
                    out = substitute(entry.func, args, kwargs, look)
                elif kwargs.get("generator") is not None:
                    out = entry.out.detach().clone()
                elif dtype is not None and plan_of(entry.func).name in _HALF_TO_FLOAT:
                    out = entry.func(args[0], args[1], False)
                else:
                    out = entry.func(*args, **kwargs)
            made = not any(True for _ in tensors_in((args, kwargs)))  # from nothing
            if dtype is not None and made and getattr(out, "dtype", None) in FLOATS:
                out = out.to(dtype)  # it has the default dtype
            for before, now in zip(tensors_in(entry.out), tensors_in(out), strict=False):
                environment[id(before)] = now


# They refuse tensors of different dtypes. A repair that computes a part in a wider one ends here.
_ONE_DTYPE = frozenset(
    [
        "aten.mm",
        "aten.addmm",
        "aten.bmm",
        "aten.baddbmm",
        "aten.mv",
        "aten.dot",
        "aten.convolution",
        "aten.native_layer_norm",
        "aten.native_batch_norm",
        "aten.cat",
        "aten.stack",
        "aten.index_put",
        "aten._scaled_dot_product_flash_attention_for_cpu",
    ]
)


def _as_recorded(args: Any, recorded: Any) -> Any:
    """The arguments in the dtypes that they had."""
    if isinstance(args, torch.Tensor):
        return args.to(recorded.dtype) if args.dtype != recorded.dtype else args
    if isinstance(args, (list, tuple)):
        changed = [_as_recorded(now, then) for now, then in zip(args, recorded, strict=True)]
        return tuple(changed) if isinstance(args, tuple) else changed
    return args


# Run by one process alone, they wait for the others forever.
_TALKING = ("c10d.", "_c10d_functional.")
_HALF_TO_FLOAT = ("aten._softmax", "aten._log_softmax")


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone()


def _mapped(value: Any, look: Look, dtype: torch.dtype | None) -> Any:
    if isinstance(value, torch.Tensor):
        return look(value)
    if isinstance(value, (list, tuple)):
        mapped = [_mapped(each, look, dtype) for each in value]
        return tuple(mapped) if isinstance(value, tuple) else mapped
    if isinstance(value, dict):
        return {key: _mapped(each, look, dtype) for key, each in value.items()}
    if dtype is not None and isinstance(value, torch.dtype) and value in FLOATS:
        return dtype
    return value
