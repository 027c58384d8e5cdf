"""How many elements of a tensor one pass of a kernel covers, read from Triton's own IR.

The IR before any layout is chosen says exactly what a program loads and stores: `tt.load %p :
tensor<1x4096x!tt.ptr<bf16>>`, with %p traced back to the kernel's argument. So the tile need not be
guessed from the names of constants, and a peer's kernel is counted as ours are.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_DEFINITION = re.compile(r"^\s*(%[\w$.-]+)(?::\d+)? = (\S+) (.*)$")
_NAME = re.compile(r"%[\w$.-]+")
_TENSOR = re.compile(r"tensor<((?:\d+x)+)")
_POINTEE = re.compile(r"!tt\.ptr<([a-z]+)(\d+)")
# Operations whose result points where their first operand points.
_POINTS_ON = ("tt.addptr", "tt.splat", "tt.broadcast", "tt.expand_dims", "tt.reshape", "tt.bitcast")
_ACCESS = re.compile(r"\btt\.(load|store|descriptor_load|descriptor_store)\b")


@dataclass(slots=True)
class _Region:
    """A loop's body, or the kernel outside of all loops."""

    accesses: dict[str, int] = field(default_factory=dict)  # pointer value -> elements
    moved_bytes: int = 0
    stores: bool = False
    has_loop: bool = False

    def elements(self, root_of: dict[str, str]) -> int:
        """Elements of the argument of which the region touches most; each address counts once."""
        totals: dict[str, int] = {}
        for pointer, elements in self.accesses.items():
            root = _root(pointer, root_of)
            totals[root] = totals.get(root, 0) + elements
        return max(totals.values(), default=0)


@dataclass(frozen=True, slots=True)
class LoopTile:
    """What one round of a loop covers in one program."""

    elements: int  # of the argument of which it touches most
    moved_bytes: int  # of all arguments
    stores: bool


@dataclass(frozen=True, slots=True)
class Tiles:
    """What one program covers: in one round of each innermost loop, and outside of loops."""

    loops: tuple[LoopTile, ...]  # those that load or store, in order
    straight: int  # elements


def tiles_of(ttir: str) -> Tiles:
    """The tile sizes in a kernel's Triton IR (`binary.asm["ttir"]`)."""
    root_of: dict[str, str] = {}
    stack, loops = [_Region()], []
    outermost = stack[0]
    depths: list[int] = []  # the brace depth at which each open loop began
    depth = 0
    for line in _code_lines(ttir):
        definition = _DEFINITION.match(line)
        name, operation, rest = definition.groups() if definition else ("", "", line)
        if operation in _POINTS_ON:
            operands = _NAME.findall(rest)
            if operands:
                root_of[name] = operands[0]
        elif "scf.for" in line or "scf.while" in line:
            # What is carried from round to round points where it pointed at first.
            root_of.update(re.findall(r"(%[\w$.-]+) = (%[\w$.-]+)", line.partition("iter_args")[2]))
        access = _ACCESS.search(line)
        if access:
            pointers = _NAME.findall(line[access.end() :])
            elements = _elements(line)
            stack[-1].accesses.setdefault(pointers[0], elements)
            stack[-1].moved_bytes += elements * _element_bytes(line)
            stack[-1].stores |= "store" in access.group(1)
        before = depth
        depth += line.count("{") - line.count("}")
        if ("scf.for" in line or "scf.while" in line) and depth > before:
            stack[-1].has_loop = True
            stack.append(_Region())
            depths.append(before)
        while depths and depth <= depths[-1]:
            depths.pop()
            region = stack.pop()
            if region.accesses and not region.has_loop:
                elements = region.elements(root_of)
                loops.append(LoopTile(elements, region.moved_bytes, region.stores))
    return Tiles(tuple(loops), outermost.elements(root_of))


def _code_lines(ttir: str) -> Iterable[str]:
    for line in ttir.splitlines():
        if not line.startswith("#"):
            yield re.sub(r" loc\(.*\)$", "", line)


def _elements(line: str) -> int:
    """Elements of the largest tensor in an access's type; a scalar access touches one."""
    sizes = [1]
    for shape in _TENSOR.findall(line.rpartition(" : ")[2] or line):
        elements = 1
        for extent in shape.rstrip("x").split("x"):
            elements *= int(extent)
        sizes.append(elements)
    return max(sizes)


def _element_bytes(line: str) -> int:
    pointee = _POINTEE.search(line.rpartition(" : ")[2])
    return max(int(pointee.group(2)) // 8, 1) if pointee else 1


def _root(pointer: str, root_of: dict[str, str]) -> str:
    for _ in range(len(root_of) + 1):  # a loop-carried pointer may lead back to itself
        if pointer not in root_of:
            break
        pointer = root_of[pointer]
    return pointer
