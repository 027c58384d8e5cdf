"""What our kernels promise of their machine code and their traffic, held without a GPU.

Every path of the catalog that claims something and launches a kernel is held to all of it: adding
an operation to the catalog adds it here.
"""

from __future__ import annotations

from typing import Any

import pytest

from harness.catalog import load_catalog
from harness.inspection import DEFAULT_TARGETS, Inspected, Inspection, inspect, rows_for
from kernels import launch_table

# The path of this catalog that is ours.
OURS = "triton"
OPERATIONS = tuple(
    operation.name
    for operation in load_catalog().values()
    if any(path.name == OURS and path.claims for path in operation.paths)
)
# 5,000: held on chip, aligned to 16 bytes though no multiple of 16, 39% of a power of two idle.
# 32,000: looped over, a Llama vocabulary.
ON_CHIP, LOOPED = 5000, 32_000
# What is held on chip at most, by some kernels: where registers are scarcest.
WIDEST = (8192, 16_384)
# Promises that a kernel does not keep yet, each with its reason; held to it strictly: an entry that
# is not needed any more fails, and goes.
PENDING: dict[tuple[str, str], str] = {}
# Losses: the result has one element a row; what is read and written of full size, by pass.
LOSSES = {"cross_entropy"}
# Its columns are the hidden size; the kernels it launches are cross_entropy's, over few classes.
OTHER_WIDTH = {"linear_cross_entropy"}


def inspected(
    operations: tuple[str, ...], dtypes: tuple[str, ...], columns: tuple[int, ...]
) -> list[Inspected]:
    return [
        Inspected(operation, OURS, dtype, rows_for(width), width)
        for operation in operations
        for dtype in dtypes
        for width in columns
    ]


@pytest.fixture(scope="module")
def sample() -> Inspection:
    """bf16 on Hopper, what most people train with: one loss and one norm."""
    cases = inspected(("cross_entropy", "normalize"), ("bf16",), (ON_CHIP,))
    return checked(inspect(cases, targets=("cuda:90",)))


@pytest.fixture(scope="module")
def everything() -> Inspection:
    """Every dtype on every target: short rows, many a program; on chip; aligned; looped; and the
    widest rows on chip.
    """
    cases = inspected(
        OPERATIONS, ("fp16", "bf16", "fp32", "fp64"), (128, 1024, 4096, ON_CHIP, LOOPED)
    )
    cases += inspected(OPERATIONS, ("bf16", "fp32"), WIDEST)
    return checked(inspect(cases, targets=DEFAULT_TARGETS))


def checked(inspection: Inspection) -> Inspection:
    assert not inspection.problems
    assert not inspection.of("failure"), "every kernel compiles for every target"
    assert not inspection.of("error") + inspection.of("unsupported")
    return inspection


def judge(promise: str, broken: dict[str, Any], inspection: Inspection) -> None:
    """Assert that nothing is broken but what PENDING names, and that all it names is."""
    there = {each["case"]["operation"] for each in inspection.answers}
    pending = {name for kind, name in PENDING if kind == promise and name in there}
    new = {name: how for name, how in broken.items() if name.split()[0] not in pending}
    assert not new
    kept = pending - {name.split()[0] for name in broken}
    assert not kept, f"{promise} is kept now: take these out of PENDING"


def name_of(answer: dict[str, Any]) -> str:
    case = answer["case"]
    return (
        f"{case['operation']} {answer['pass']} {case['dtype']} {case['rows']}x{case['columns']}"
        f" {answer['target']} {answer.get('kernel', '')}"
    )


def no_spills(inspection: Inspection) -> None:
    spilling = {
        name_of(each): (each["spilled_bytes"], each["spill_instructions"], each["registers"])
        for each in inspection.of("kernel")
        if each["spilled_bytes"] or each["spill_instructions"]
    }
    judge("spills", spilling, inspection)


def wide_loads(inspection: Inspection) -> None:
    """At least three fifths of the bytes that the loads bring come 16 at a time. The rest are
    statistics of rows, and a row's last and narrow piece, of which a thread holds less than that.
    """
    narrow = {}
    for each in inspection.of("kernel"):
        loads = {int(width): number for width, number in each["loads"].items()}
        brought = sum(width * number for width, number in loads.items())
        by_16 = sum(width * number for width, number in loads.items() if width >= 16)
        if brought and by_16 < 0.6 * brought:
            narrow[name_of(each)] = loads
    judge("narrow", narrow, inspection)


def full_size(answer: dict[str, Any]) -> tuple[float, float]:
    """Reads and writes, by kernels, of operands with as many bytes as the first role."""
    rows = next(iter(answer["role_bytes"].values()))
    operands = [
        operand
        for kernel in answer["kernels"]
        for operand in kernel["operands"].values()
        if operand["bytes"] == rows
    ]
    return sum(each["reads"] for each in operands), sum(each["writes"] for each in operands)


def expected_traffic(answer: dict[str, Any]) -> tuple[int, int]:
    """Reads and writes that the mathematics needs: every large operand once."""
    case = answer["case"]
    inputs = sum(
        size == next(iter(answer["role_bytes"].values())) for size in answer["role_bytes"].values()
    )
    if case["operation"] in LOSSES:
        return (1, 0) if answer["pass"] == "forward" else (1, 1)
    return (inputs, 1) if answer["pass"] == "forward" else (inputs + 1, 1)


def least_traffic(inspection: Inspection, columns: int) -> None:
    wrong = {}
    for each in inspection.of("traffic"):
        if each["case"]["columns"] != columns:
            continue
        if not read_at_once(each):
            continue
        reads, writes = full_size(each)
        wanted = expected_traffic(each)
        # One element a row more, the target's logit, is no second read.
        if reads > wanted[0] + 0.01 or writes > wanted[1] + 0.01:
            wrong[name_of(each)] = f"{reads:.2f} reads, {writes:.2f} writes; wanted {wanted}"
    judge("traffic", wrong, inspection)


def read_at_once(answer: dict[str, Any]) -> bool:
    """Whether one read is enough: a row held on chip, or a running sum (a loss)."""
    case = answer["case"]
    family = f"{case['operation']}_{answer['pass']}"
    shape = launch_table.lookup(family, case["dtype"], answer["target"], case["columns"])
    held = shape.on_chip // (2 if case["dtype"] == "fp64" else 1)
    return case["operation"] in LOSSES or case["columns"] <= held


def little_waste(inspection: Inspection) -> None:
    idle = {
        f"{name_of(each)} {kernel['kernel']}": kernel["waste"]
        for each in inspection.of("traffic")
        for kernel in each["kernels"]
        if kernel["waste"] > 0.10
        and each["case"]["columns"] >= 1024
        and each["case"]["operation"] not in OTHER_WIDTH
    }
    judge("idle", idle, inspection)


# --- the sample -----------------------------------------------------------------------------------


def test_no_spills(sample: Inspection) -> None:
    """At its launch shape no kernel needs more registers than it has."""
    no_spills(sample)


def test_16_byte_loads(sample: Inspection) -> None:
    """Where rows begin on 16-byte boundaries, their elements are loaded 16 bytes at a time."""
    wide_loads(sample)


def test_each_operand_is_read_once(sample: Inspection) -> None:
    """On chip: forward reads its input once and writes once, backward reads two and writes one;
    cross-entropy reads its logits once in forward, once in backward, and writes the gradient.
    """
    least_traffic(sample, ON_CHIP)


def test_tiles_fit_their_rows(sample: Inspection) -> None:
    """At most a tenth of the lanes lies idle beyond the end of a row."""
    little_waste(sample)


def test_exponentials_an_element(sample: Inspection) -> None:
    """About one exponential an element: none of ours runs on the special-function unit (its error
    grows with the argument), each is a polynomial of at most 30 fp32 operations; and at most one
    division (a reciprocal) an element.
    """
    for each in sample.of("kernel"):
        assert each["special"].get("ex2", 0.0) <= 1.1, name_of(each)
        assert each["per_element"]["special"] <= 3.0, name_of(each)
        assert each["per_element"]["fp32"] <= 80.0, name_of(each)


# --- everything -----------------------------------------------------------------------------------


@pytest.mark.full
def test_no_spills_anywhere(everything: Inspection) -> None:
    """No spill on any target, in any dtype, at short, fitting and looped rows."""
    no_spills(everything)


@pytest.mark.full
def test_16_byte_loads_anywhere(everything: Inspection) -> None:
    """16-byte loads on every target and in every dtype; all widths here are aligned."""
    wide_loads(everything)


@pytest.mark.full
@pytest.mark.parametrize(
    # Many rows a program, a power of two, one row in two pieces.
    "columns",
    [128, 1024, 4096, ON_CHIP],
)
def test_each_operand_is_read_once_anywhere(everything: Inspection, columns: int) -> None:
    """As in the sample, at every width that fits on chip and in every dtype."""
    least_traffic(everything, columns)


@pytest.mark.full
def test_cross_entropy_reads_long_rows_once(everything: Inspection) -> None:
    """A vocabulary of 32,000: the logits are read once forward, once backward, written once."""
    answers = [
        each
        for each in everything.of("traffic")
        if each["case"]["operation"] == "cross_entropy" and each["case"]["columns"] == LOOPED
    ]
    assert len(answers) == 8
    least_traffic(Inspection(answers), LOOPED)


@pytest.mark.full
def test_tiles_fit_their_rows_anywhere(everything: Inspection) -> None:
    """At most a tenth of the lanes idle, in every dtype."""
    little_waste(everything)
