"""Silent defects that can be read off one step's tape: last activations and constants."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from harness.diagnosis.chain import Chain, first_input
from harness.diagnosis.numbers import rounds_to_zero
from harness.diagnosis.tape import Entry, plan_of


class Remark(NamedTuple):
    """A silent defect at one operation."""

    cause: str
    position: int
    detail: str


_ACTIVATIONS = {
    "aten._softmax": "a softmax",
    "aten.sigmoid": "a sigmoid",
    "aten.relu": "a ReLU",
    "aten.relu_": "a ReLU",
    "aten.clamp_min": "a ReLU",
}


def scan(chain: Chain) -> Iterator[Remark]:
    """The defects of a step's forward pass and optimiser."""
    for position, entry in enumerate(chain.entries):
        name = plan_of(entry.func).name
        if entry.node is not None or not entry.args:
            continue
        remark = None
        if name == "aten._log_softmax" and entry.grad_enabled:
            remark = _logits(chain, position, "cross-entropy")
        elif name == "aten.binary_cross_entropy_with_logits" and entry.grad_enabled:
            remark = _logits(chain, position, "binary cross-entropy with logits")
        elif name.startswith("aten.nll_loss") and "forward" in name and entry.grad_enabled:
            remark = _probabilities(chain, position)
        elif name == "aten._softmax" and entry.grad_enabled:
            remark = _one_column(position, entry)
        elif "add" in name or "clamp" in name:
            remark = _constant(position, entry, name)
        if remark is not None:
            yield remark


def _logits(chain: Chain, position: int, loss: str) -> Remark | None:
    made = chain.source(chain.entries[position].args[0], position)
    if made is None or chain.name(made) not in _ACTIVATIONS:
        return None
    if chain.name(made) == "aten.clamp_min" and chain.entries[made].args[1] != 0:
        return None
    what = _ACTIVATIONS[chain.name(made)]
    return Remark("activation_mismatch", made, f"{loss} takes logits and was given {what} of them")


def _probabilities(chain: Chain, position: int) -> Remark | None:
    rows = chain.entries[position].args[0]
    if rows.dim() < 2 or not bool(rows.isfinite().all()):
        return None
    total = rows.detach().double().exp().sum(1)
    off = float((total - 1).abs().max())
    if off < 0.05:
        return None
    return Remark(
        "activation_mismatch",
        position,
        f"nll_loss takes log-probabilities; a row's probabilities sum to {float(total.max()):.3g}",
    )


def _one_column(position: int, entry: Entry) -> Remark | None:
    rows, dim = entry.args[0], entry.args[1]
    if rows.dim() and rows.shape[dim] == 1:
        return Remark(
            "activation_mismatch",
            position,
            "a softmax over a single column is 1 whatever comes in",
        )
    return None


def _constant(position: int, entry: Entry, name: str) -> Remark | None:
    """An epsilon or bound that is 0 in the dtype of what it is added to."""
    first = first_input(entry)
    if first is None or first.dtype not in (torch.float16, torch.bfloat16):
        return None
    numbers = [*entry.args[1:3], entry.kwargs.get("min"), entry.kwargs.get("max")]
    for number in numbers:
        if isinstance(number, (int, float)) and rounds_to_zero(float(number), first.dtype):
            return Remark("epsilon_underflow", position, f"{number:g}")
    return None
