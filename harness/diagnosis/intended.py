"""Infinities that somebody meant: masks, written as literals or as the logarithm of 0 and 1."""

import math

import torch

from harness.diagnosis.numbers import absmax
from harness.diagnosis.tape import Entry, inputs_of

_LITERALS = frozenset(
    [
        "aten.masked_fill",
        "aten.masked_fill_",
        "aten.fill_",
        "aten.fill",
        "aten.full",
        "aten.full_like",
        "aten.new_full",
        "aten.scalar_tensor",
        "aten.where",
        "aten.constant_pad_nd",
        "aten.index_fill",
        "aten.index_fill_",
        "aten.index_put",
        "aten.index_put_",
        "aten.copy_",
        "aten._to_copy",
        "aten.triu",
        "aten.tril",
        "aten.amin",
        "aten.amax",
        "aten.lift_fresh_copy",
    ]
)


def is_mask(
    name: str,
    entry: Entry,  # its inputs are finite, its output is not
    seen: set[str],  # kinds of what is not finite in the output
) -> bool:
    """Whether the operation only writes infinities that its caller asked for."""
    scalars = [
        each
        for each in (*entry.args, *entry.kwargs.values())
        if isinstance(each, (int, float)) and not isinstance(each, bool)
    ]
    if name in _LITERALS and any(not math.isfinite(each) for each in scalars):
        return True
    inputs = inputs_of(entry)
    if name in ("aten.log", "aten.log2") and seen == {"-inf"}:
        return not inputs[0].requires_grad and bool(((inputs[0] == 0) | (inputs[0] == 1)).all())
    if seen != {"-inf"} or not inputs:
        return False
    # finfo.min plus a score; a 0/1 mask times a number beyond the dtype's range.
    lowest = torch.finfo(inputs[0].dtype).min
    if name in ("aten.add", "aten.add_", "aten.sub"):
        return any(bool((each <= lowest * 0.99).any()) for each in inputs)
    if name in ("aten.mul", "aten.mul_"):
        flags = any(bool(((each == 0) | (each == 1)).all()) for each in inputs)
        return flags and any(absmax(each) >= -lowest * 0.99 for each in scalars)
    return False
