"""What a compiled kernel costs, read from its machine code: registers, spills, widths, operations.

For NVIDIA the cubin is disassembled with cuobjdump, which comes in the triton package; for AMD the
compiler's own assembly is read. No device is needed.
"""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.instructions import (
    Instruction,
    innermost_loops,
    of_assembly,
    of_cubin,
    straight_code,
)
from harness.tile_elements import LoopTile, tiles_of


@dataclass(frozen=True, slots=True)
class MachineCode:
    """One kernel as the GPU would run it.

    Loads and stores are those of global memory in the main part: the innermost loops that touch it,
    or, where there are none, the whole kernel. `per_element` counts instructions there, each once,
    times the threads of a program, over the elements of its tile: branches are taken as if both
    sides ran, subroutines for rare cases (a division's subnormals) are left out.
    """

    registers: int  # a thread
    spilled_bytes: int  # a thread, in local memory
    spill_instructions: int  # loads and stores of local memory, anywhere in the kernel
    shared_bytes: int  # a program
    warps: int
    loads: dict[int, int]  # bytes a lane -> instructions in the main part
    stores: dict[int, int]
    loops: int  # innermost loops that touch global memory; 0: the main part is the whole kernel
    elements: int  # of a program's tile, in one round of each loop
    per_element: dict[str, float]  # special, fp32, fp64, instructions
    special: dict[str, float]  # special functions by name: ex2, lg2, rcp, ... per element
    bytes: int  # of machine code

    @property
    def spills(self) -> bool:
        """Whether anything that needed a register went to memory."""
        return self.spilled_bytes > 0 or self.spill_instructions > 0

    def widest(self, accesses: dict[int, int]) -> int:
        """Bytes a lane of the widest access, 0 where there is none."""
        return max(accesses, default=0)


def read_binary(binary: Any) -> MachineCode:
    """Read a kernel that `triton.compile` has built for CUDA or HIP.

    Raises:
        InputError: if the disassembler is missing or refuses the binary.
    """
    if "cubin" in binary.asm:
        listing = _disassembled(binary.asm["cubin"])
        usage = re.search(r"REG:(\d+) STACK:(\d+)", listing)
        if usage is None:
            raise InputError("cuobjdump told no resource usage; its triton package may be damaged")
        registers, spilled = int(usage.group(1)), int(usage.group(2))
        code, size = of_cubin(listing), len(binary.asm["cubin"])
    else:
        text = binary.asm["amdgcn"]
        registers = _told(text, "vgpr_count")
        # Scratch, in bytes a lane; a spill of scalars into a vector register's lanes is none.
        spilled = max(
            _told(text, "private_segment_fixed_size"), 4 * _told(text, "vgpr_spill_count")
        )
        code, size = of_assembly(text), len(binary.asm["hsaco"])
    metadata = binary.metadata
    threads = metadata.num_warps * metadata.target.warp_size
    return _counted(code, binary.asm["ttir"], threads, metadata, registers, spilled, size)


def _counted(
    code: list[Instruction],
    ttir: str,
    threads: int,
    metadata: Any,
    registers: int,
    spilled: int,
    size: int,
) -> MachineCode:
    tiles = tiles_of(ttir)
    loops = [
        body for body in innermost_loops(code) if any(i.kind in ("load", "store") for i in body)
    ]
    parts = _steady_loops(loops, tiles.loops, threads)
    count = len(parts)
    if not parts:
        parts = [(straight_code(code), max(tiles.straight, 1))]
    per_element = dict.fromkeys(("special", "fp32", "fp64", "instructions"), 0.0)
    special: dict[str, float] = {}
    widths: dict[str, Counter[int]] = {"load": Counter(), "store": Counter()}
    for body, elements in parts:
        lanes = threads / max(elements, 1)
        for each in body:
            kind = each.kind
            per_element["instructions"] += lanes
            if kind in ("special", "fp32", "fp64"):
                per_element[kind] += each.weight * lanes
            if kind == "special":
                special[each.special] = special.get(each.special, 0.0) + lanes
            if kind in widths:
                widths[kind][each.width] += 1
    return MachineCode(
        registers=registers,
        spilled_bytes=spilled,
        spill_instructions=sum(each.kind == "spill" for each in code),
        shared_bytes=metadata.shared,
        warps=metadata.num_warps,
        loads=dict(sorted(widths["load"].items())),
        stores=dict(sorted(widths["store"].items())),
        loops=count,
        elements=max([tile.elements for tile in tiles.loops] if count else [parts[0][1]]),
        per_element=per_element,
        special=dict(sorted(special.items())),
        bytes=size,
    )


def _steady_loops(
    loops: list[list[Instruction]], tiles: Sequence[LoopTile], threads: int
) -> list[tuple[list[Instruction], int]]:
    """Each loop of the source as the machine runs it for long, with the elements of one round.

    The compiler may unroll a loop, and then leaves a second one for the remainder; both move a
    multiple of the bytes that one round of the source moves. Loops stay in order, so each machine
    loop belongs to the source's loop at hand or to the next one, whichever has its kind of access;
    of several that belong to one, the most unrolled counts.
    """
    found: dict[int, tuple[list[Instruction], int, float]] = {}
    at = 0
    for body in loops:
        if not tiles:
            break
        stores = any(each.kind == "store" for each in body)
        later = [place for place in range(at, len(tiles)) if tiles[place].stores == stores]
        # As many machine loops as source loops: one each, unless their kinds say otherwise.
        if len(loops) == len(tiles) and len(found) in later:
            at = len(found)
        elif later:
            at = later[0]
        tile = tiles[at]
        moved = threads * sum(i.width for i in body if i.kind in ("load", "store"))
        rounds = max(moved / tile.moved_bytes, 1.0) if tile.moved_bytes else 1.0
        if at not in found or rounds > found[at][2]:
            found[at] = (body, tile.elements * max(round(rounds), 1), rounds)
    return [(body, elements) for body, elements, _ in found.values()]


def _disassembled(cubin: bytes) -> str:
    import triton

    tool = triton.knobs.nvidia.cuobjdump.path
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        try:
            done = subprocess.run(
                [tool, "-sass", "-res-usage", file.name],
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", "") or ""
            raise InputError(f"cuobjdump, at {tool}, failed: {error} {said}") from error
    return done.stdout


def _told(assembly: str, name: str) -> int:
    found = re.search(rf"^\s*\.{name}:\s+(\d+)", assembly, re.MULTILINE)
    return int(found.group(1)) if found else 0
