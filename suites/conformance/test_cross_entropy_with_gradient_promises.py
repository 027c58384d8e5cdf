"""Loss and gradient in one launch: what torch makes of it, what it refuses, and one read and one
write of the logits in machine code that does not spill.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import kernels
from harness.inspection import DEFAULT_TARGETS, Inspected, inspect, rows_for
from harness.traffic import Traffic, counted
from kernels import launch, launch_table
from suites.conformance.conftest import DTYPES

Draw = Callable[..., torch.Tensor]

interpreted = pytest.mark.skipif(
    not launch.INTERPRETED, reason="traffic is counted in the interpreter"
)


# --- what torch makes of it -----------------------------------------------------------------------


def test_results_have_no_graph(draw: Draw, device: torch.device) -> None:
    """Neither result requires a gradient, whatever does, nor is a gradient lost: handed on, it
    arrives.
    """
    x = draw(3, 5, dtype=torch.float32).requires_grad_()
    scale = torch.tensor(2.0, device=device, requires_grad=True)
    target = torch.arange(3, device=device)
    results = kernels.cross_entropy_with_gradient(x, target, upstream=scale)
    assert not any(each.requires_grad for each in results)
    x.backward(results[1])
    assert x.grad is not None
    assert torch.equal(x.grad, results[1])
    with torch.no_grad():
        again = kernels.cross_entropy_with_gradient(x, target, upstream=2.0)
    assert all(torch.equal(a, b) for a, b in zip(results, again, strict=True))


# Where statistics have a dtype of their own, and where not.
@pytest.mark.parametrize("name", ["bf16", "fp32"])
def test_compiled_graph(name: str, draw: Draw, device: torch.device) -> None:
    """torch.compile traces one graph without a break and without an fp64 scalar, and changes no
    bit, for a scale that is a tensor or a number, and for a second number.
    """
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    x, target = draw(3, 5, dtype=DTYPES[name]).requires_grad_(), torch.arange(3, device=device)
    torch._dynamo.reset()
    scales = [2.0, torch.tensor(8.0, device=device), 1024.0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.compile itself uses what torch has deprecated
        compiled = torch.compile(kernels.cross_entropy_with_gradient, backend=keep, fullgraph=True)
        found = [compiled(x, target, upstream=scale) for scale in scales]
    for scale, (loss, gradient) in zip(scales, found, strict=True):
        eager = kernels.cross_entropy_with_gradient(x, target, upstream=scale)
        assert torch.equal(loss, eager[0])
        assert torch.equal(gradient, eager[1])
    # Of a second number torch.compile itself makes a variable, which it keeps in fp64.
    values = (node.meta.get("example_value") for graph in graphs[:2] for node in graph.graph.nodes)
    scalars = [v for v in values if isinstance(v, Tensor) and v.dim() == 0]
    assert len(graphs) == len(scales)
    assert scalars
    assert not [v for v in scalars if v.dtype == torch.float64]


# Each names what is wrong, and where there is one, what to use instead.
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"target": torch.full((3, 4), 0.25)}, NotImplementedError, "use cross_entropy and its"),
        ({"upstream": torch.ones(3)}, ValueError, r"got shape \(3,\).* use cross_entropy"),
        ({"upstream": "large"}, ValueError, "large"),
        ({"target": torch.tensor([0, 4, 1])}, IndexError, r"target 4 at position \(1,\)"),
        ({"reduction": "avg"}, ValueError, "'avg'"),
        ({"weight": torch.ones(5)}, ValueError, r"shape \(4,\), got \(5,\)"),
        ({"weight": torch.ones(4, requires_grad=True)}, NotImplementedError, "gradient"),
        ({"input": torch.zeros(3, 4, dtype=torch.int64)}, TypeError, "int64"),
    ],
)
def test_errors_restate_the_input(
    change: dict[str, object], error: type[Exception], words: str
) -> None:
    """Bad input raises with the offending value in the message."""
    given = {
        "input": torch.zeros(3, 4), "target": torch.tensor([0, 3, 1]), "check_targets": True
    } | change  # fmt: skip
    with pytest.raises(error, match=words):
        kernels.cross_entropy_with_gradient(**given)  # type: ignore[arg-type]


# --- traffic and machine code ---------------------------------------------------------------------


def _traffic(logits: Tensor) -> Traffic:
    target = torch.arange(len(logits))
    with launch.shaped_as("cuda:90"), counted() as traffic:
        kernels.cross_entropy_with_gradient(logits, target, check_targets=False)
    return traffic


# A power of two; two pieces; what only half precision holds, a Llama vocabulary.
@interpreted
@pytest.mark.parametrize(
    ("name", "width"), [*((name, 4096) for name in DTYPES), ("fp32", 5000), ("bf16", 32_000)]
)
def test_one_read_and_one_write(name: str, width: int, draw: Draw) -> None:
    """In a single launch every logit is read once, the target's twice more, and every element of
    the gradient is written once; what torch moves beside it is as small as the targets.
    """
    logits = draw(4, width, dtype=DTYPES[name])
    traffic = _traffic(logits)
    (kernel,) = traffic.kernels
    size = logits.element_size()
    of_logits, of_gradient = kernel.operands["logits"], kernel.operands["gradient"]
    assert of_logits.read_bytes == (logits.numel() + 2 * len(logits)) * size
    assert (of_gradient.read_bytes, of_logits.written_bytes) == (0, 0)
    assert of_gradient.written_bytes == logits.numel() * size
    assert kernel.waste < 0.1
    assert traffic.torch_bytes < 200 * 8 * len(logits)


@interpreted
def test_wider_rows_take_two_reads(draw: Draw) -> None:
    """One column beyond what is held on chip, the traffic is that of a loss and its backward."""
    logits = draw(1, 16385, dtype=torch.float32)
    traffic = _traffic(logits)
    assert len(traffic.kernels) == 2
    bytes_ = logits.numel() * logits.element_size()
    assert traffic.reads_of(bytes_) == pytest.approx(2.0, abs=0.01)
    assert traffic.kernels[1].operands["gradient"].writes == 1.0


def _spilling(cases: dict[tuple[str, int], int], targets: tuple[str, ...]) -> list[Any]:
    """The kernels that spill, of (dtype, columns) cases with so many launches each."""
    asked = [
        Inspected("cross_entropy", "one_read", name, rows_for(columns), columns)
        for name, columns in cases
    ]
    found = inspect(
        asked, targets=targets, with_traffic=False, catalog="suites.conformance.one_read_catalog"
    )
    assert not found.problems
    kernels = found.of("kernel")
    assert len(kernels) == len(found.answers) == sum(cases.values()) * len(targets)
    assert {each["kernel"] for each in kernels} == {"kernels.cross_entropy.one_read._kernel"}
    return [each for each in kernels if each["spilled_bytes"] or each["spill_instructions"]]


def test_no_spills() -> None:
    """At its launch shape the kernel needs no more registers than it has: bf16 on Hopper."""
    assert not _spilling({("bf16", 5000): 1}, ("cuda:90",))


@pytest.mark.full
def test_no_spills_anywhere() -> None:
    """Nor in any dtype on any target: many rows a program, a power of two, pieces, and the widest
    rows of each entry in the table of launch shapes.
    """
    widths = {
        "fp16": (128, 1024, 4096, 5000, 16384, 32_000, 32768),
        "bf16": (128, 1024, 4096, 5000, 16384, 32_000, 32768),
        "fp32": (128, 1024, 4096, 5000, 14336, 14500, 16384),
        "fp64": (128, 1024, 4096),
    }
    for target in DEFAULT_TARGETS:
        most = {name: _widest(name, target) for name in widths}
        cases = {
            (name, columns): 1
            for name, of_name in widths.items()
            for columns in (*(each for each in of_name if each < most[name]), most[name])
        }
        assert not _spilling(cases, (target,))


def _widest(name: str, target: str) -> int:
    """The widest row that the table holds on chip."""
    held = launch_table.lookup("cross_entropy_with_gradient", name, target, 1 << 20).on_chip
    return held // (2 if name == "fp64" else 1)
