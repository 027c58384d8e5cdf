"""Causes of what goes bad in the backward pass while the forward pass was finite."""

import torch

from harness.diagnosis.cause_forward import SOFTMAXES, counts, lost_epsilon
from harness.diagnosis.chain import Chain
from harness.diagnosis.flow import Origin
from harness.diagnosis.numbers import at_bad
from harness.diagnosis.tape import inputs_of, outputs_of, plan_of

# Their backward hands on zeros where forward left something out.
_HIDING = (
    "Where",
    "MaskedFill",
    "MaskedSelect",
    "IndexBackward",
    "Gather",
    "NanToNum",
    "Maximum",
    "Minimum",
    "Clamp",
)
_SINGULAR = (
    "sqrt",
    "norm",
    "pow",
    "acos",
    "asin",
    "atanh",
    "acosh",
    "log",
    "div",
    "std",
    "var",
    "rsqrt",
    "reciprocal",
    "cdist",
    "dist",
    "prod",
    "atan2",
    "hypot",
    "logit",
    "erfinv",
)


def judge(
    origin: Origin,
    chain: Chain,
    forward: int | None,  # position of the forward operation
    name: str,  # its name
) -> str:
    """The cause's word."""
    entry = origin.entry
    assert entry is not None
    if origin.parents:
        return "fully_masked" if name in SOFTMAXES or "soft" in name else "masked_times_zero"
    if "linalg" in name and "norm" not in name:
        return "degenerate_linalg"
    out = outputs_of(entry)[0]
    divides = any(word in origin.name for word in ("div", "reciprocal", "pow", "rsqrt", "cdist"))
    singular = divides or any(word in name for word in _SINGULAR)
    if not singular:
        return "overflow"
    zero_divisor = False
    if origin.name in ("aten.div", "aten.div_", "aten.reciprocal"):
        at = at_bad(entry.args[-1] if len(entry.args) > 1 else entry.args[0], out)
        zero_divisor = at is not None and bool((at == 0).any())
        if at is not None and not zero_divisor:
            return "overflow"
    if hidden(origin, chain):
        return "masked_branch_gradient"
    if forward is not None and lost_epsilon(forward, chain):
        return "epsilon_underflow"
    if name == "aten.div" and forward is not None:
        divisor = chain.entries[forward].args[1]
        if isinstance(divisor, torch.Tensor) and counts(divisor, forward, chain):
            return "empty_reduction"
    return "singular_gradient" if zero_divisor or divides or origin.value == "nan" else "overflow"


def hidden(origin: Origin, chain: Chain) -> bool:
    """Whether zeros came in from above because something downstream left these entries out."""
    entry = origin.entry
    assert entry is not None
    out = outputs_of(entry)[0]
    above = None  # where the node's own gradient came from
    # A node works in several operations; the first to break need not be the one that reads it.
    nearby = range(max(0, origin.position - 8), min(len(chain.entries), origin.position + 8))
    for position in nearby:
        near = chain.entries[position]
        if near.node is None or (near.node is not entry.node and near.node != entry.node):
            continue
        for each in inputs_of(near):
            at = at_bad(each, out) if each.numel() == out.numel() else None
            made = chain.maker(each, position)
            if at is None or made is None or chain.entries[made].node in (None, entry.node):
                continue
            if at.numel() and bool((at == 0).any()):
                above = position
    if above is None:
        return False
    for position in chain.ancestors(above, 14):
        before = chain.entries[position]
        if before.node is None:
            continue
        node = before.node.name()
        if node != getattr(entry.node, "name", str)() and node.startswith(_HIDING):
            return True
        if plan_of(before.func).name == "aten.mul" and _by_zero(before):
            return True
    return False


def _by_zero(entry: object) -> bool:
    """A product with a mask of zeros and ones."""
    for each in inputs_of(entry):  # type: ignore[arg-type]
        if each.numel() > 1 and bool(((each == 0) | (each == 1)).all()) and bool((each == 0).any()):
            return bool((each == 1).any())
    return False
