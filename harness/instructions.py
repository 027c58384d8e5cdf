"""Machine instructions of NVIDIA and AMD GPUs, sorted by what they cost; a reader for each listing.

An instruction that runs on the special-function unit (NVIDIA's MUFU: ex2, lg2, rcp, rsq, ...; AMD's
v_exp, v_log, v_rcp, ...) counts there and nowhere else. `fp32` and `fp64` are additions,
multiplications and fused multiply-adds of that type, an instruction on a packed pair as two.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Instruction:
    """One machine instruction: where it stands, and what it does."""

    address: int  # bytes in a cubin, lines in AMD's assembly: only the order matters
    opcode: str
    branch_to: int | None = None  # where a jump goes
    ends: bool = False  # the thread ends here

    @property
    def kind(self) -> str:
        """special, fp32, fp64, load, store, spill or other."""
        for kind, pattern in _KINDS:
            if pattern.match(self.opcode):
                return kind
        return "other"

    @property
    def weight(self) -> int:
        """Operations a lane: 2 for a packed pair."""
        return 2 if _PACKED.match(self.opcode) else 1

    @property
    def special(self) -> str:
        """Which special function: ex2, lg2, rcp, rsq, sqrt, sin, cos, tanh."""
        name = re.split(r"[._]", self.opcode)[1].lower()
        return {"exp": "ex2", "log": "lg2", "rcp64h": "rcp", "rsq64h": "rsq"}.get(name, name)

    @property
    def width(self) -> int:
        """Bytes a lane that a load or store moves."""
        for suffix, size in _WIDTHS.items():
            if re.search(suffix, self.opcode):
                return size
        return 4


_PACKED = re.compile(r"(FFMA2|FADD2|FMUL2)\b|v_pk_\w+_f32")
_WIDTHS = {
    r"\.256\b|dwordx8": 32,
    r"\.128\b|dwordx4": 16,
    r"dwordx3": 12,
    r"\.64\b|dwordx2": 8,
    r"\.[US]16\b|short|_d16|_b16": 2,
    r"\.[US]8\b|byte": 1,
}
_KINDS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        # Local memory holds what found no register. AMD's accumulation registers and writelane to a
        # VGPR are spills too, but to registers: those, the compiler's own count tells.
        ("spill", r"LDL|STL|scratch_(load|store)"),
        ("load", r"LDG|LD\.E|(global|buffer|flat)_load"),
        ("store", r"STG|ST\.E|(global|buffer|flat)_store"),
        ("special", r"MUFU\.|v_(exp|log|rcp|rsq|sqrt|sin|cos)_(f16|f32|f64)"),
        ("fp64", r"D(FMA|ADD|MUL)\b|v_(fma|fmac|mul|add)_f64"),
        (
            "fp32",
            r"F(FMA|ADD|MUL)2?(32I)?\b|v_(pk_)?(fma|fmac|fmamk|fmaak|mad|mac|mul|add|sub|subrev)"
            r"_f32|v_fma_mix_f32",
        ),
    )
)

_SASS = re.compile(
    r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:\{\s*)?(?:@!?U?P[\dT]+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);",
    re.MULTILINE,
)
_ADDRESS = re.compile(r"\b0x([0-9a-f]+)\s*$")


def of_cubin(listing: str) -> list[Instruction]:
    """The instructions in what `cuobjdump -sass` printed of one kernel."""
    found = []
    for address, opcode, operands in _SASS.findall(listing):
        jump = _ADDRESS.search(operands) if opcode.startswith("BRA") else None
        found.append(
            Instruction(
                int(address, 16),
                opcode,
                int(jump.group(1), 16) if jump else None,
                opcode.startswith("EXIT"),
            )
        )
    return found


def of_assembly(text: str) -> list[Instruction]:
    """The instructions of an AMD kernel, from the compiler's assembly."""
    lines = text.splitlines()
    labels = {
        line.partition(":")[0]: number
        for number, line in enumerate(lines)
        if line.startswith(".LBB")
    }
    found = []
    for number, line in enumerate(lines):
        words = line.partition(";")[0].split()
        if not words or not line[:1].isspace() or words[0].startswith("."):
            continue
        jump = words[0].startswith(("s_branch", "s_cbranch"))
        target = labels.get(words[-1]) if jump else None
        found.append(Instruction(number, words[0], target, words[0] == "s_endpgm"))
    return found


def innermost_loops(code: Iterable[Instruction]) -> list[list[Instruction]]:
    """The bodies of the loops that contain no other loop, in order.

    A loop is what lies between a backward jump and where it jumps to; a jump to itself (the padding
    at a kernel's end) is none.
    """
    code = list(code)
    spans = [
        (each.branch_to, each.address)
        for each in code
        if each.branch_to is not None and each.branch_to < each.address
    ]
    # Several jumps back to one head are one loop.
    ends: dict[int, int] = {}
    for head, end in spans:
        ends[head] = max(end, ends.get(head, end))
    loops = sorted(ends.items())
    inner = [
        span
        for span in loops
        if not any(o != span and span[0] <= o[0] and o[1] <= span[1] for o in loops)
    ]
    return [[each for each in code if head <= each.address <= end] for head, end in inner]


def straight_code(code: Iterable[Instruction]) -> list[Instruction]:
    """Everything up to where the kernel's main line ends; called subroutines follow behind it."""
    code = list(code)
    last = max((n for n, each in enumerate(code) if each.ends), default=len(code) - 1)
    return code[: last + 1]
