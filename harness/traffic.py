"""Counting the bytes that a path moves: every load and store of its kernels, exact on any machine.

In Triton's interpreter each load, store and atomic of a kernel passes through Python with its
addresses and mask; the lanes that are not masked are counted, per kernel argument. What torch's own
operators move around the kernels is counted beside it: each reads its inputs once and writes its
outputs once. Caches are not modelled: a second read counts, whether or not a GPU would find it in
its L2. Nor are the 32-byte sectors in which DRAM is read.
"""

from __future__ import annotations

import importlib
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from harness.errors import InputError

STRAY = "?"  # the argument of an address that lies in none of the launch's tensors


@dataclass(slots=True)
class Operand:
    """What the programs of one launch did to one of its tensors."""

    size_bytes: int  # of the tensor's distinct elements
    read_bytes: int = 0
    written_bytes: int = 0
    lanes: int = 0  # of all loads and stores
    idle_lanes: int = 0  # of these, masked

    @property
    def reads(self) -> float:
        """How often the tensor was read, on average over its elements."""
        return self.read_bytes / self.size_bytes if self.size_bytes else 0.0

    @property
    def writes(self) -> float:
        """How often the tensor was written, on average over its elements."""
        return self.written_bytes / self.size_bytes if self.size_bytes else 0.0


@dataclass(slots=True)
class KernelTraffic:
    """One launch of a Triton kernel."""

    kernel: str
    programs: int
    operands: dict[str, Operand] = field(default_factory=dict)  # by the kernel's parameter

    @property
    def moved_bytes(self) -> int:
        """Bytes read and written by all programs."""
        return sum(each.read_bytes + each.written_bytes for each in self.operands.values())

    @property
    def waste(self) -> float:
        """Masked lanes over all lanes: what power-of-two tiles leave idle."""
        lanes = sum(each.lanes for each in self.operands.values())
        return sum(each.idle_lanes for each in self.operands.values()) / lanes if lanes else 0.0


@dataclass(slots=True)
class Traffic:
    """Everything that moved in one pass of a path."""

    kernels: list[KernelTraffic] = field(default_factory=list)
    torch_bytes: int = 0
    torch_operators: dict[str, int] = field(default_factory=dict)  # name -> bytes

    @property
    def moved_bytes(self) -> int:
        """Bytes moved by kernels and by torch's operators."""
        return self.torch_bytes + sum(each.moved_bytes for each in self.kernels)

    def reads_of(self, tensor_bytes: int) -> float:
        """Reads, over all kernels, of operands of that size: how often "the logits" were read."""
        same = [
            operand.read_bytes
            for kernel in self.kernels
            for operand in kernel.operands.values()
            if operand.size_bytes == tensor_bytes
        ]
        return sum(same) / tensor_bytes


@contextmanager
def counted() -> Iterator[Traffic]:
    """Within this context launches and torch operators are counted.

    Raises:
        InputError: outside of Triton's interpreter, where loads cannot be seen.
    """
    import triton

    if not triton.knobs.runtime.interpret:
        raise InputError("traffic is counted in Triton's interpreter; set TRITON_INTERPRET=1")
    interpreter = importlib.import_module("triton.runtime.interpreter")
    traffic = Traffic()
    with _watched(interpreter, traffic), _TorchOperators(traffic):
        yield traffic


# --- kernels --------------------------------------------------------------------------------------


class _Launch:
    """The launch under way: which addresses belong to which argument."""

    def __init__(self, record: KernelTraffic, tensors: dict[str, Tensor]) -> None:
        self.record = record
        spans = sorted((*_span(tensor), name) for name, tensor in tensors.items() if tensor.numel())
        # Arguments may share memory (in-place kernels): the first name stands for all.
        self.starts = [start for start, _, _ in spans]
        self.ends = [end for _, end, _ in spans]
        self.names = [name for _, _, name in spans]
        self.sizes = {name: _distinct_bytes(tensor) for name, tensor in tensors.items()}

    def count(self, pointers: Any, mask: Any, *, reads: bool, writes: bool) -> None:
        """Count one access of a block of pointers under a mask (None: all lanes)."""
        addresses = np.asarray(pointers.data)
        if mask is None:
            active = addresses.reshape(-1)
        else:
            addresses, kept = np.broadcast_arrays(addresses, np.asarray(mask.data).astype(bool))
            active = addresses[kept]
        width = max(pointers.get_element_ty().primitive_bitwidth // 8, 1)
        for name, lanes in self._by_name(active, addresses):
            operand = self.record.operands.setdefault(name, Operand(self.sizes.get(name, 0)))
            operand.read_bytes += width * lanes * reads
            operand.written_bytes += width * lanes * writes
            operand.lanes += lanes
        if active.size < addresses.size:
            # A masked lane's address may lie anywhere: it is laid to the access's first operand.
            name = next(iter(self._by_name(active[:1], addresses)))[0]
            operand = self.record.operands.setdefault(name, Operand(self.sizes.get(name, 0)))
            operand.lanes += addresses.size - active.size
            operand.idle_lanes += addresses.size - active.size

    def _by_name(self, active: Any, addresses: Any) -> list[tuple[str, int]]:
        if not active.size:
            return [(self._name(int(addresses.flat[0])), 0)]
        low, high = self._name(int(active.min())), self._name(int(active.max()))
        if low == high:
            return [(low, int(active.size))]
        names = [self._name(int(each)) for each in active.flat]
        return [(name, names.count(name)) for name in dict.fromkeys(names)]

    def _name(self, address: int) -> str:
        place = bisect_right(self.starts, address) - 1
        return self.names[place] if place >= 0 and address < self.ends[place] else STRAY


def _span(tensor: Tensor) -> tuple[int, int]:
    """The first address of a tensor's elements, and the one behind its last."""
    reach = sum(
        (extent - 1) * stride for extent, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    start = tensor.data_ptr()
    return start, start + (reach + 1) * tensor.element_size()


def _distinct_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor's elements, those of an expanded dimension counted once."""
    elements = 1
    for extent, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= extent if stride != 0 or extent == 0 else 1
    return elements * tensor.element_size()


@contextmanager
def _watched(interpreter: Any, traffic: Traffic) -> Iterator[None]:
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    names = ("create_masked_load", "create_masked_store", "create_atomic_rmw", "create_atomic_cas")
    originals = {name: getattr(builder, name) for name in names}
    call = executor.__call__
    under_way: list[_Launch] = []

    def launched(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(self.arg_names, args, strict=False)) | kwargs
        tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
        grid = self.grid(given) if callable(self.grid) else self.grid
        programs = int(np.prod(grid))
        record = KernelTraffic(f"{self.fn.__module__}.{self.fn.__name__}", programs)
        traffic.kernels.append(record)
        under_way.append(_Launch(record, tensors))
        try:
            # The interpreter copies arguments about with torch's operators: not the path's doing.
            with _disable_current_modes():
                return call(self, *args, **kwargs)
        finally:
            under_way.pop()

    # Positions as in every triton from 3.6 on: load(pointers, mask, ...), store(pointers, value,
    # mask, ...), rmw(operation, pointers, value, mask, ...), cas(pointers, compare, value, ...).
    def load(self: Any, pointers: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        under_way[-1].count(pointers, mask, reads=True, writes=False)
        return originals["create_masked_load"](self, pointers, mask, *rest, **named)

    def store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any, **named: Any) -> Any:
        under_way[-1].count(pointers, mask, reads=False, writes=True)
        return originals["create_masked_store"](self, pointers, value, mask, *rest, **named)

    def rmw(self: Any, operation: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        under_way[-1].count(pointers, mask, reads=True, writes=True)
        return originals["create_atomic_rmw"](self, operation, pointers, value, mask, *rest)

    def cas(self: Any, pointers: Any, *rest: Any) -> Any:
        under_way[-1].count(pointers, None, reads=True, writes=True)
        return originals["create_atomic_cas"](self, pointers, *rest)

    try:
        executor.__call__ = launched
        for name, watched in zip(names, (load, store, rmw, cas), strict=True):
            setattr(builder, name, watched)
        yield
    finally:
        executor.__call__ = call
        for name, original in originals.items():
            setattr(builder, name, original)


# --- torch's operators ----------------------------------------------------------------------------


class _TorchOperators(TorchDispatchMode):
    """Counts what torch's operators read and write; views and fresh allocations move nothing."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.traffic = traffic

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        inside = _python_body(func)
        if inside is not None:
            # An opaque operator written in Python: what it moves is what its body moves.
            with self:
                return inside(*args, **kwargs)
        result = func(*args, **kwargs)
        if not _moves_nothing(func):
            read = {each.data_ptr(): _distinct_bytes(each) for each in _tensors((args, kwargs))}
            written = {each.data_ptr(): _distinct_bytes(each) for each in _tensors(result)}
            moved = sum(read.values()) + sum(written.values())
            name = func._schema.name
            self.traffic.torch_bytes += moved
            totals = self.traffic.torch_operators
            totals[name] = totals.get(name, 0) + moved
        return result


def _python_body(func: Any) -> Any:
    """The Python function behind an operator made by torch.library.custom_op, else None."""
    from torch._library import custom_ops

    definition = custom_ops.OPDEFS.get(func._schema.name)
    return None if definition is None else definition._init_fn


_ALLOCATE = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")


def _moves_nothing(func: Any) -> bool:
    schema = func._schema
    name = schema.name.partition("::")[2]
    returns_view = any(
        each.alias_info is not None and not each.alias_info.is_write for each in schema.returns
    )
    return returns_view or name in (*_ALLOCATE, "_unsafe_view", "detach", "lift_fresh")


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for each in tree.values():
            yield from _tensors(each)
    elif isinstance(tree, (tuple, list)):
        for each in tree:
            yield from _tensors(each)
