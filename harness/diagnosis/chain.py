"""Looks back along the tape: which operation made a tensor, and what came before that."""

from collections.abc import Iterator
from typing import Any

import torch

from harness.diagnosis.functions import Applied
from harness.diagnosis.tape import Entry, inputs_of, plan_of, tensors_in

# Moves or renames values without changing them: the maker of a value lies behind these.
_TRANSPARENT = frozenset(
    [
        "aten.view",
        "aten.reshape",
        "aten._unsafe_view",
        "aten.t",
        "aten.transpose",
        "aten.permute",
        "aten.expand",
        "aten.unsqueeze",
        "aten.squeeze",
        "aten.detach",
        "aten.alias",
        "aten._to_copy",
        "aten.clone",
        "aten.slice",
        "aten.select",
        "aten.contiguous",
        "aten.unbind",
        "aten.split",
    ]
)

_HIDING = frozenset(
    [
        "aten.where",
        "aten.masked_fill",
        "aten.masked_select",
        "aten.index",
        "aten.nan_to_num",
        "aten.clamp",
        "aten.clamp_max",
        "aten.minimum",
        "aten.maximum",
        "aten.gather",
        "aten.index_select",
    ]
)


class Chain:
    """Producers of the tensors of one step."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self._makers: dict[int, list[int]] = {}
        for position, entry in enumerate(entries):
            if isinstance(entry.func, Applied):
                continue  # its own operations tell more
            made = list(tensors_in(entry.out))
            for spot in plan_of(entry.func).writes:
                made += list(tensors_in(entry.args[spot])) if spot < len(entry.args) else []
            for each in made:
                self._makers.setdefault(id(each), []).append(position)
        self.by_sequence: dict[int, int] = {}
        for position, entry in enumerate(entries):
            if entry.node is None and not isinstance(entry.func, Applied):
                self.by_sequence.setdefault(entry.sequence, position)

    def maker(self, tensor: Any, before: int) -> int | None:
        """Position of the last entry before `before` that made or overwrote the tensor."""
        found = [each for each in self._makers.get(id(tensor), ()) if each < before]
        return found[-1] if found else None

    def source(self, tensor: Any, before: int) -> int | None:
        """The same, behind views, casts and copies."""
        position = self.maker(tensor, before)
        while position is not None:
            entry = self.entries[position]
            if plan_of(entry.func).name not in _TRANSPARENT or not entry.args:
                return position
            behind = self.maker(entry.args[0], position)
            if behind is None:
                return position
            position = behind
        return None

    def ancestors(self, position: int, depth: int) -> Iterator[int]:
        """Positions of the entries that this one's inputs come from, nearest first."""
        level, seen = [position], {position}
        for _ in range(depth):
            following: list[int] = []
            for each in level:
                for tensor in tensors_in((self.entries[each].args, self.entries[each].kwargs)):
                    made = self.maker(tensor, each)
                    if made is not None and made not in seen:
                        seen.add(made)
                        following.append(made)
                        yield made
            level = following

    def hides(self, position: int) -> bool:
        """Whether what an entry made is left out soon after, by a condition, bound or index."""
        made = {id(each) for each in tensors_in(self.entries[position].out)}
        for entry in self.entries[position + 1 : position + 12]:
            if entry.node is None and any(
                id(each) in made for each in tensors_in((entry.args, entry.kwargs))
            ):
                if plan_of(entry.func).name in _HIDING:
                    return True
                made |= {id(each) for each in tensors_in(entry.out)}
        return False

    def forward_of(self, entry: Entry) -> int | None:
        """Position of the forward operation whose gradient a backward entry computes."""
        if entry.node is None:
            return None
        return self.by_sequence.get(entry.node._sequence_nr() + 1)

    def name(self, position: int) -> str:
        """The operation's name at a position."""
        return plan_of(self.entries[position].func).name


def scalars(entry: Entry) -> list[float]:
    """The Python numbers among an operation's arguments, truth values aside."""
    return [
        float(each)
        for each in (*entry.args, *entry.kwargs.values())
        if isinstance(each, (int, float)) and not isinstance(each, bool)
    ]


def first_input(entry: Entry) -> torch.Tensor | None:
    """The first floating-point tensor an operation read."""
    found = inputs_of(entry)
    return found[0] if found else None
