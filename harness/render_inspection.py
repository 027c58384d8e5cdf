"""An inspection as text: 80 columns, a block a kernel, a line a target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from harness.inspection import Inspection

_HEADER = "  target      warps  regs spill  smem  load store  special  fp32  fp64 instr"
_LEGEND = """\
regs: registers a thread. spill: bytes a thread in local memory. smem: shared
memory of a program, in bytes. load, store: bytes a lane of the widest access to
global memory, + where narrower ones stand beside it. special (ex2, rcp, ...),
fp32, fp64: operations an element; instr: all instructions an element; counted
in the main loops or, without loops, in the kernel. moved: bytes read and
written over the least possible. docs/inspect.md says how all this is counted."""


def lines(inspection: Inspection) -> Iterator[str]:
    """The table, line by line."""
    told = False
    cases: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for answer in inspection.answers:
        cases.setdefault(tuple(answer["case"].values()), []).append(answer)
    for (operation, path, dtype, rows, columns), answers in cases.items():
        block = list(_case(answers))
        yield f"{operation}/{path}/{dtype} {rows}x{columns}"
        yield from block
        yield ""
        told = told or any(each["kind"] == "kernel" for each in answers)
    if told:
        yield from _LEGEND.splitlines()
    for problem in inspection.problems:
        yield f"problem: {problem}"


def _case(answers: list[dict[str, Any]]) -> Iterator[str]:
    refusals = [each for each in answers if each["kind"] in ("unsupported", "error")]
    for reason, targets in _by_reason(refusals).items():
        yield from _folded(f"{reason} ({', '.join(targets)})")
    for pass_ in ("forward", "backward"):
        same = [each for each in answers if each.get("pass") == pass_]
        kernels = [each for each in same if each["kind"] in ("kernel", "failure")]
        blocks: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for each in kernels:
            key = (each["kernel"], tuple(each.get("grid", ())), each.get("elements", 0))
            blocks.setdefault(key, []).append(each)
        for (kernel, grid, elements), block in blocks.items():
            programs = "x".join(str(each) for each in grid) or "-"
            yield f" {pass_}  {kernel}"[:80]
            yield f"  grid {programs}, tile of {elements} elements"
            yield _HEADER
            yield from (_kernel(each) for each in block if each["kind"] == "kernel")
            for each in block:
                if each["kind"] == "failure":
                    yield from _folded(f"{each['target']}: does not compile: {each['reason']}")
        for each in same:
            if each["kind"] == "traffic":
                yield from _folded(_traffic(each))


def _kernel(answer: dict[str, Any]) -> str:
    per = answer["per_element"]
    return (
        f"  {answer['target']:<11} {answer['warps']:>5} {answer['registers']:>5}"
        f" {answer['spilled_bytes']:>5} {answer['shared_bytes']:>5}"
        f" {_widths(answer['loads']):>5} {_widths(answer['stores']):>5}"
        f" {per['special']:>8.2f} {per['fp32']:>5.1f} {per['fp64']:>5.1f}"
        f" {per['instructions']:>5.0f}"
    )


def _widths(accesses: dict[str, int]) -> str:
    widths = sorted((int(width) for width in accesses), reverse=True)
    return "-" if not widths else f"{widths[0]}{'+' if len(widths) > 1 else ''}"


def _traffic(answer: dict[str, Any]) -> str:
    parts = [
        f"{answer['pass']} moved {answer['ratio']:.2f} x the least"
        f" ({answer['moved_bytes']} of {answer['least_bytes']} bytes)"
    ]
    others = answer["moved_bytes"] - answer["kernel_bytes"]
    if others > 0.005 * answer["least_bytes"]:
        parts.append(f"{others} of them by torch's own operators")
    for kernel in answer["kernels"]:
        # Statistics of a row are small beside the rows: only what counts is told.
        large = max((each["bytes"] for each in kernel["operands"].values()), default=0)
        uses = [
            f"{name} " + " ".join(_times(word, each) for word in ("reads", "writes") if each[word])
            for name, each in kernel["operands"].items()
            if 20 * each["bytes"] >= large
        ]
        parts.append(f"{', '.join(uses)}; {100 * kernel['waste']:.0f}% of lanes idle")
    return "; ".join(parts)


def _times(word: str, operand: dict[str, Any]) -> str:
    return f"{'read' if word == 'reads' else 'written'} {operand[word]:.2f}x"


def _by_reason(refusals: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in refusals:
        found.setdefault(f"{each['kind']}: {each['reason']}", []).append(each["target"])
    return found


def _folded(sentence: str) -> list[str]:
    import textwrap

    return textwrap.wrap(sentence, 80, initial_indent="  ", subsequent_indent="    ")
