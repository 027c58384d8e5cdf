"""Follows what is not finite: where each NaN and infinity was born, and what became of it.

An origin is an operation whose output is not finite while its inputs are, or that turns intended
infinities into NaN. Its mark follows the values by the storage they lie in, so that a loss, a
gradient or a parameter that went bad leads back to its origins, and one that never did accuses
nobody.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from harness.diagnosis.chain import scalars
from harness.diagnosis.finding import TensorRange
from harness.diagnosis.functions import Applied
from harness.diagnosis.intended import is_mask
from harness.diagnosis.launches import Launch
from harness.diagnosis.numbers import is_finite, kinds, range_of
from harness.diagnosis.tape import (
    Entry,
    Plan,
    inputs_of,
    is_checked,
    outputs_of,
    plan_of,
    tensors_in,
)

# They put data together, or move it.
_LOADING = frozenset(
    [
        "aten.copy_",
        "aten.fill_",
        "aten.fill",
        "aten.full",
        "aten.full_like",
        "aten.new_full",
        "aten.masked_fill",
        "aten.masked_fill_",
        "aten.index_put_",
        "aten.index_put",
        "aten.index_fill_",
        "aten.clone",
        "aten._to_copy",
        "aten.cat",
        "aten.stack",
        "aten.index",
        "aten.index_select",
        "aten.triu",
        "aten.tril",
        "aten.scalar_tensor",
        "aten.where",
        "aten.masked_select",
        "aten.lift_fresh_copy",
        "aten.gather",
        "aten.nan_to_num",
    ]
)

_OVERWRITING = frozenset(
    [
        "aten.fill_",
        "aten.copy_",
        "aten.index_put_",
        "aten.masked_fill_",
        "aten.index_fill_",
        "aten.scatter_",
        "aten.masked_scatter_",
    ]
)
_SHRINKING = ("aten.mul_", "aten._foreach_mul_")

_CONSTANTS = ("aten.scalar_tensor", "aten.full", "aten.full_like", "aten.fill", "aten.fill_")

# Origins whose tensors are looked at closely in one step; a step that bears more is broken enough.
CLOSE_LOOKS = 24


@dataclass(eq=False, slots=True)
class Origin:
    """Where something not finite came into being. `entry` goes with the step; the rest stays."""

    order: int
    step: int
    kind: str  # "birth", "mask" (intended), "data", "target", "parameter", "buffer", "raw", "rank"
    entry: Entry | None
    name: str  # "aten.log"
    phase: str
    value: str  # "nan" or "inf"
    inputs: tuple[TensorRange, ...]
    parents: frozenset["Origin"]
    position: int  # in the tape of its step
    fed: torch.Tensor | None = None  # kind data, target, parameter, buffer, raw: the tensor

    @property
    def intended(self) -> bool:
        """Whether somebody meant it."""
        return self.kind == "mask"


@dataclass(slots=True)
class Marks:
    """Which storages hold what is not finite, and from which origins."""

    held: dict[int, tuple[StorageWeakRef, frozenset[Origin]]] = field(default_factory=dict)

    def of(self, tensor: torch.Tensor) -> frozenset[Origin] | None:
        """The origins of what lies in the tensor's storage."""
        if tensor.layout is not torch.strided:
            return None
        found = self.held.get(key_of(tensor))
        if found is None or found[0].expired():
            return None
        return found[1]

    def put(self, tensor: torch.Tensor, origins: frozenset[Origin]) -> None:
        """Mark a tensor's storage."""
        self.held[key_of(tensor)] = (StorageWeakRef(tensor.untyped_storage()), origins)

    def sweep(self) -> None:
        """Forget storages that are gone, and let go of the tensors that origins held."""
        self.held = {key: pair for key, pair in self.held.items() if not pair[0].expired()}
        for _, origins in self.held.values():
            for origin in all_of(origins):
                origin.entry = None
                origin.fed = None


def key_of(tensor: torch.Tensor) -> int:
    """The storage that a tensor lies in, while it lives."""
    return int(tensor.untyped_storage()._cdata)


def all_of(origins: Iterable[Origin]) -> set[Origin]:
    """The origins and those they come from."""
    seen: set[Origin] = set()
    todo = list(origins)
    while todo:
        origin = todo.pop()
        if origin not in seen:
            seen.add(origin)
            todo.extend(origin.parents)
    return seen


def bad_entries(entries: list[Entry]) -> list[tuple[int, Entry, list[torch.Tensor]]]:
    """Those whose outputs are not finite now, found with one synchronisation a device and dtype."""
    groups: dict[torch.device, tuple[list[torch.Tensor], list[int]]] = {}
    for position, entry in enumerate(entries):
        plan = plan_of(entry.func)
        if not plan.check:
            continue
        out = entry.out
        if type(out) is torch.Tensor and not plan.writes:
            outputs = [out] if out.is_floating_point() else []
        else:
            outputs = outputs_of(entry)
        for each in outputs:
            if each.layout is torch.strided and each.itemsize > 1:
                tensors, positions = groups.setdefault(each.device, ([], []))
                tensors.append(each)
                positions.append(position)
    found: dict[int, list[torch.Tensor]] = {}
    for device, (tensors, positions) in groups.items():
        if device.type == "meta":
            continue
        # A sum is many times faster than isfinite().all(), and not finite where an entry is not;
        # that finite entries overflow it is rare, and looked at again.
        sums = _on_host([each.sum() for each in tensors])
        for index, total in enumerate(sums):
            if total - total != 0 and not is_finite(tensors[index]):
                found.setdefault(positions[index], []).append(tensors[index])
    return [(position, entries[position], found[position]) for position in sorted(found)]


def _on_host(values: list[torch.Tensor]) -> list[float]:
    by_dtype: dict[torch.dtype, list[int]] = {}
    for index, value in enumerate(values):
        by_dtype.setdefault(value.dtype, []).append(index)
    found = [0.0] * len(values)
    for indices in by_dtype.values():
        numbers = torch.stack([values[index] for index in indices]).tolist()
        for index, number in zip(indices, numbers, strict=True):
            found[index] = number
    return found


class Flow:
    """Turns entries into origins and marks."""

    def __init__(self) -> None:
        self.marks = Marks()
        self.order = 0
        self.close = 0  # close looks in this step
        self.births: list[Origin] = []  # of this step, intended ones aside

    def follow(
        self,
        entries: list[Entry],  # the piece to be judged
        start: int,  # its position in the step's tape
        step: int,
        known: "Known",
    ) -> None:
        """Mark what the entries made."""
        known.literals = {
            key_of(entry.out)
            for entry in entries
            if plan_of(entry.func).name in _CONSTANTS and any(map(math.isnan, scalars(entry)))
        }
        known.allocated = {
            key_of(entry.out)
            for entry in entries
            if "aten.empty" in plan_of(entry.func).name and entry.out.layout is torch.strided
        }
        for position, entry, bad in bad_entries(entries):
            if not _spoilt_later(entries, position, bad):
                self._one(position + start, entry, bad, step, known)

    def _one(
        self, position: int, entry: Entry, bad: list[torch.Tensor], step: int, known: "Known"
    ) -> None:
        plan = plan_of(entry.func)
        if _is_loading(plan, entry):
            return  # its first use will tell what it is
        written = {id(each) for spot in _written(plan, entry) for each in _floats(entry, spot)}
        shrinks = plan.name in _SHRINKING and all(abs(each) <= 1 for each in scalars(entry))
        alone = len(inputs_of(entry)) == len(written) and not any(map(self.marks.of, bad))
        if shrinks and alone:
            return  # a later operation wrote into the same tensor, and it was that one
        parents: set[Origin] = set()
        dirty: list[torch.Tensor] = []
        for each in inputs_of(entry):
            marked = self.marks.of(each)
            if id(each) in written:  # what it held before is gone; its mark tells
                if marked is not None:
                    parents |= marked
                continue
            if is_finite(each):
                continue
            dirty.append(each)
            if marked is None or known.is_buffer(each, entry) is not None:
                parents.add(self._fed(position, entry, each, step, known, marked or frozenset()))
            else:
                parents |= marked
        origins = frozenset(parents)
        seen = set().union(*(kinds(each) for each in bad))
        before = set().union(*(kinds(each) for each in dirty)) if dirty else set()
        fresh = not parents or (
            all(origin.intended for origin in parents)
            and (("nan" in seen and "nan" not in before) or _takes_masks_wrongly(plan.name, seen))
        )
        if fresh:
            close = self.close < CLOSE_LOOKS
            mask = not parents and close and is_mask(plan.name, entry, seen)
            self.close += close and not mask
            self.order += 1
            origins = frozenset(
                {
                    Origin(
                        order=self.order,
                        step=step,
                        kind="mask" if mask else "birth",
                        entry=entry if close else None,
                        name=plan.name,
                        phase=entry.phase,
                        value="nan" if "nan" in seen else "inf",
                        inputs=_ranges(entry, bad) if close and not mask else (),
                        parents=origins,
                        position=position,
                    )
                }
            )
            self.births += [each for each in origins if close and not each.intended]
        for each in bad:
            self.marks.put(each, origins)

    def _fed(
        self,
        position: int,
        entry: Entry,
        tensor: torch.Tensor,
        step: int,
        known: "Known",
        parents: frozenset[Origin],
    ) -> Origin:
        """An origin outside of what the tape saw: data, a parameter, a buffer, a raw kernel."""
        buffer = known.is_buffer(tensor, entry) is not None
        for origin in self.marks.of(tensor) or ():
            if origin.kind == "buffer" or (
                not buffer and origin.kind in ("data", "target", "parameter", "raw")
            ):
                return origin
        self.order += 1
        found = kinds(tensor)
        role = known.role(tensor, entry)
        origin = Origin(
            order=self.order,
            step=step,
            kind=role,
            entry=entry,
            name=plan_of(entry.func).name,
            phase="data" if role != "birth" else entry.phase,
            value="nan" if "nan" in found else "inf",
            inputs=(range_of(tensor),),
            parents=parents,
            position=position,
            fed=tensor,
        )
        if origin.kind in ("data", "target") and found == {"-inf"}:
            origin.kind = "mask"  # a mask made outside, from NumPy or a file
        self.marks.put(tensor, frozenset({origin}))
        return origin


class Known:
    """What is known of the model at hand: its parameters, buffers and inputs, by storage."""

    def __init__(self) -> None:
        self.inputs: set[int] = set()
        self.allocated: set[int] = set()  # without content, in this step
        self.literals: set[int] = set()  # a NaN that is written in the code

    def is_buffer(self, tensor: torch.Tensor, entry: Entry) -> str | None:
        """The name of the running module's buffer that the tensor is, or None."""
        for name, buffer in getattr(entry.module, "_buffers", {}).items():
            if buffer is not None and key_of(buffer) == key_of(tensor):
                return str(name)
        return None

    def role(self, tensor: torch.Tensor, entry: Entry) -> str:
        """What a tensor that no operation made is."""
        if self.is_buffer(tensor, entry) is not None:
            return "buffer"
        if isinstance(tensor, torch.nn.Parameter) or (tensor.requires_grad and tensor.is_leaf):
            return "parameter"
        key = key_of(tensor)
        if key in self.literals:
            return "birth"  # chosen by a condition: the choice is the fault
        if key in self.allocated:
            return "raw"  # torch allocated it, and something else wrote into it
        weights = getattr(entry.module, "_parameters", {}).values()
        if any(weight is not None and key_of(weight) == key for weight in weights):
            return "parameter"
        if "loss" in plan_of(entry.func).name and len(entry.args) > 1 and entry.args[1] is tensor:
            return "target"
        if key in self.inputs or entry.module is not None or not self.inputs:
            return "data"
        return "target"


def _is_loading(plan: Plan, entry: Entry) -> bool:
    """Whether data is being put together, outside of models and of what gradients flow through."""
    if plan.name not in _LOADING or entry.phase != "forward" or entry.module is not None:
        return False
    return not (isinstance(entry.out, torch.Tensor) and entry.out.requires_grad)


def _ranges(entry: Entry, bad: list[torch.Tensor]) -> tuple[TensorRange, ...]:
    """The inputs' numbers. A kernel's outputs are among its arguments: those are left out."""
    inputs = inputs_of(entry)
    if isinstance(entry.func, Launch):
        inputs = [each for each in inputs if all(each is not other for other in bad)]
    return tuple(map(range_of, inputs[:8]))


def _spoilt_later(entries: list[Entry], position: int, bad: list[torch.Tensor]) -> bool:
    """Whether its result was finite, and a later operation wrote into it, such as `y[3] = nan`."""
    entry = entries[position]
    if entry.node is not None or plan_of(entry.func).writes or not inputs_of(entry):
        return False
    if isinstance(entry.func, (Launch, Applied)) or entry.kwargs.get("generator") is not None:
        return False
    places = {key_of(each) for each in bad}
    written = any(
        isinstance(later.args[0], torch.Tensor)
        and later.args[0].layout is torch.strided
        and key_of(later.args[0]) in places
        for later in entries[position + 1 :]
        if plan_of(later.func).name in _OVERWRITING and later.args
    )
    if not written:
        return False
    try:
        out = entry.func(*entry.args, **entry.kwargs)
    except (RuntimeError, TypeError, ValueError):
        return False  # its inputs have changed, too
    return all(is_finite(each) for each in tensors_in(out) if is_checked(each))


def _written(plan: Plan, entry: Entry) -> tuple[int, ...]:
    if "batch_norm" in plan.name and len(entry.args) > 5 and entry.args[5] is False:
        return ()  # in evaluation the running statistics are read
    return plan.writes


def _floats(entry: Entry, spot: int) -> list[torch.Tensor]:
    value = entry.args[spot] if spot < len(entry.args) else None
    values = value if isinstance(value, (list, tuple)) else [value]
    return [each for each in values if isinstance(each, torch.Tensor)]


def _takes_masks_wrongly(name: str, seen: set[str]) -> bool:
    """A loss that picks a masked entry, or a log-sum-exp over nothing else."""
    return ("nll_loss" in name and "forward" in name) or (
        name in ("aten.logsumexp", "aten.binary_cross_entropy_with_logits")
    )
