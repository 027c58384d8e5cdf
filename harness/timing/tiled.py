"""Inputs of training size: a block, drawn as every regime draws, repeated along the rows.

Drawing and judging a whole 65,536 × 262,144 matrix in float64 would take minutes and 137 GB. Rows
are independent in every operation, so a block of different rows stands for all: it is drawn from
the seed like any other input, and row i of set k is row (i + k·shift) of the block. Kernels read
each address once whatever it holds, so repeated rows cost what different ones do.
"""

import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness import poison
from harness.inputs import Batch, build_batch
from harness.operation import Expected, Roles
from harness.timing.speed_case import SpeedGroup
from harness.truth import expected_of

_BLOCK_ELEMENTS = 2**22  # drawn in tenths of a second
# Of regimes other than the plain one, whose special rows (a NaN, an infinity, a mask) come first:
# so few that the special ones are about half of all.
_SPECIAL_ROWS = 8
_JUDGED = 6  # rows whose truth is computed; certified truth (fp64) costs more, and takes two
_CHUNK = 2**26  # elements compared at a time, so that a check needs little memory
_SHIFT = 3  # between the sets, in rows of the block: no set has another's row in its place


@dataclass(frozen=True, slots=True)
class Drawn:
    """The block of a group's inputs, on the CPU, and the truth of some of its rows."""

    block: Batch
    judged: tuple[int, ...]  # rows of the block
    expected: dict[str, Expected]  # of the judged rows, by pass


@dataclass(frozen=True, slots=True)
class TiledInputs:
    """Several sets of a group's inputs on a device."""

    drawn: Drawn
    on_device: Roles  # the block, there
    sets: tuple[Roles, ...]  # of the whole shape; what rows share is the same tensor in all
    shape: tuple[int, int]

    def indices(self, number: int) -> Tensor:
        """Which row of the block each row of a set is, (rows,) int64 on the device."""
        first = next(iter(self.on_device.values()))
        count = first.shape[0]
        rows = torch.arange(self.shape[0], device=first.device)
        return (rows + number * _SHIFT) % count

    def places(self, number: int, chooser: random.Random) -> list[int]:
        """A row of the set for each judged row of the block, one of its repetitions at random."""
        count = next(iter(self.on_device.values())).shape[0]
        found = []
        for row in self.drawn.judged:
            first = (row - number * _SHIFT) % count
            repetitions = (self.shape[0] - 1 - first) // count
            found.append(first + count * chooser.randint(0, repetitions))
        return found

    def changed(self, number: int) -> bool:
        """Whether any bit of a set differs from what it was laid out as."""
        given = self.sets[number]
        index = self.indices(number)
        for role, value in given.items():
            shared = role in self.drawn.block.shared
            source = self._source(role, value)
            for part in _chunks(value):
                before = source[part] if shared else source.index_select(0, index[part])
                if not torch.equal(poison.bits_of(before), poison.bits_of(value.detach()[part])):
                    return True
        return False

    def restore(self, number: int) -> None:
        """Lay a set out again, in place."""
        index = self.indices(number)
        for role, value in self.sets[number].items():
            shared = role in self.drawn.block.shared
            source = self._source(role, value)
            for part in _chunks(value):
                before = source[part] if shared else source.index_select(0, index[part])
                value.detach()[part].copy_(before)

    def _source(self, role: str, value: Tensor) -> Tensor:
        """What a role was laid out from; of a shared one the drawn tensor, for it is no copy."""
        if role in self.drawn.block.shared:
            return self.drawn.block.roles[role].to(value.device)
        return self.on_device[role]


def draw(group: SpeedGroup, *, seed: int) -> Drawn:
    """Draw a group's block and compute the truth of its judged rows."""
    block_rows = rows_of_block(group)
    regime = replace(group.regime, shape=(block_rows, group.size.columns))
    block = build_batch(group.operation, regime, group.fmt, [group.magnitude], seed=seed)
    judged = _judged_rows(block_rows, seed, 2 if group.fmt.name == "fp64" else _JUDGED)
    chosen = torch.tensor(judged)
    roles = {
        role: value if role in block.shared else value[chosen]
        for role, value in block.roles.items()
    }
    some = replace(block, roles=roles, rows=len(judged))
    return Drawn(block, judged, expected_of(group.operation, group.fmt, some))


def tile(drawn: Drawn, shape: tuple[int, int], *, device: str, count: int) -> TiledInputs:
    """Lay out `count` sets on a device; the first role and shared float roles want gradients."""
    shared = drawn.block.shared
    there = {role: value.to(device) for role, value in drawn.block.roles.items()}
    common = {role: there[role].clone() for role in shared}
    inputs = TiledInputs(drawn, there, (), shape)
    sets = []
    for number in range(count):
        index = inputs.indices(number)
        given = {
            role: common[role] if role in shared else value.index_select(0, index)
            for role, value in there.items()
        }
        for place, (role, value) in enumerate(given.items()):
            if place == 0 or (role in shared and value.is_floating_point()):
                value.requires_grad_(True)
        sets.append(given)
    return replace(inputs, sets=tuple(sets))


def rows_of_block(group: SpeedGroup) -> int:
    """How many different rows there are."""
    rows, columns = group.shape
    most = _SPECIAL_ROWS if group.regime.name != "normal" else max(8, _BLOCK_ELEMENTS // columns)
    return min(rows, most)


def unwritten_anywhere(value: Tensor) -> bool:
    """Whether a result still holds the poison of `poison.poisoned(0)` in some element."""
    return any(bool(poison.unwritten(value.detach()[part], 0).any()) for part in _chunks(value))


def _judged_rows(count: int, seed: int, most: int) -> tuple[int, ...]:
    """The first four, which regimes make special, the last, and others at random."""
    others = list(range(count))
    random.Random(seed).shuffle(others)
    ordered = dict.fromkeys([0, *range(1, min(4, count)), count - 1, *others])
    return tuple(list(ordered)[:most])


def _chunks(value: Tensor) -> list[slice]:
    rows = value.shape[0]
    width = max(1, value.numel() // max(rows, 1))
    step = max(1, _CHUNK // width)
    return [slice(start, start + step) for start in range(0, rows, step)]
