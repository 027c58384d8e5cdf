"""The norms' backward where the input and a parameter want gradients: one read and one write, as
accurate as two kernels, the same bits on every run, and each way of cutting rows into chunks.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

import kernels
from harness.inspection import DEFAULT_TARGETS, Inspected, inspect, rows_for
from harness.traffic import KernelTraffic, counted
from kernels import launch, norm_launch
from suites.conformance import exact_norms
from suites.conformance.conftest import DTYPES

Draw = Callable[..., Tensor]
NORMS = ("rms_norm", "layer_norm")
HELD = ("fp16", "bf16", "fp32")  # fp64 rows take two kernels
both = pytest.mark.parametrize("name", NORMS)
interpreted = pytest.mark.skipif(
    not launch.INTERPRETED, reason="traffic is counted in the interpreter"
)


def _parameters(name: str, width: int, dtype: torch.dtype, draw: Draw) -> list[Tensor]:
    return [draw(width, dtype=dtype) for _ in range(1 + (name == "layer_norm"))]


def _backward(
    name: str, x: Tensor, parameters: list[Tensor], g: Tensor
) -> tuple[Callable[[], tuple[Tensor, ...]], list[Tensor]]:
    """The backward of a norm, to be called, and its leaves."""
    leaves = [each.detach().requires_grad_() for each in (x, *parameters)]
    y = getattr(kernels, name)(leaves[0], x.shape[-1:], *leaves[1:], eps=1e-5)
    return lambda: torch.autograd.grad(y, leaves, g, retain_graph=True), leaves


# --- accuracy, and how rows are cut ---------------------------------------------------------------


def _check(name: str, x: Tensor, parameters: list[Tensor], g: Tensor) -> None:
    weight, *rest = parameters
    exact_norms.check(
        x, weight, rest[0] if rest else None, g,
        centred=name == "layer_norm", true=exact_norms.extended_truth,
    )  # fmt: skip


# In blocks of 4 and, in the interpreter, at most 4 chunks: one row; a block less one; two blocks;
# chunks of two blocks, the last block a single row, or one less than whole; chunks of five blocks.
@both
@pytest.mark.parametrize(
    ("rows", "dtype"),
    [(1, "fp32"), (3, "bf16"), (8, "fp32"), (29, "bf16"), (31, "fp32"), (79, "bf16")],
)
@pytest.mark.usefixtures("small_pieces")
def test_every_row_counts(name: str, rows: int, dtype: str, draw: Draw) -> None:
    """All gradients agree with the truth however the rows are cut, for rows and upstream gradients
    of very different sizes, the last row's the largest.
    """
    kind = DTYPES[dtype]
    x, g = draw(rows, 70, dtype=kind), draw(rows, 70, dtype=kind)
    sizes = torch.logspace(-4, 4, rows, device=x.device)[:, None]
    x, g = (x * sizes.flip(0)).to(kind), (g * sizes).to(kind)
    _check(name, x, _parameters(name, 70, kind, draw), g)


@triton.jit
def _one_less(columns, BLOCK_N: tl.constexpr, STATIC_BLOCKS: tl.constexpr):
    return STATIC_BLOCKS - 1


@interpreted
@both
@pytest.mark.usefixtures("small_pieces")
def test_a_lost_block_is_found(name: str, draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a kernel that leaves out the last block of each chunk fails the check above."""
    monkeypatch.setattr(launch, "block_count", _one_less)
    with pytest.raises(AssertionError, match="ULP beyond the allowance"):
        test_every_row_counts(name, 29, "bf16", draw)


# Chunks in use are at most 256 and, while rows suffice, at least 128; none is empty.
@pytest.mark.parametrize("rows", [1, 127, 128, 129, 1000, 4096, 8191, 8192, 16384, 100_003])
def test_chunks_hold_every_row_once(rows: int) -> None:
    """Chunks cover all rows, only the last may be short, and they move little beside the rows."""
    x = torch.empty(rows, 4096, dtype=torch.bfloat16, device="meta")
    with launch.shaped_as("cuda:90"):
        cut = norm_launch.by_rows("rms_norm_backward_with_parameters", x, torch.float64)
    assert cut is not None
    held = cut.blocks * cut.constants["BLOCK_M"]
    assert (cut.chunks - 1) * held < rows <= cut.chunks * held
    assert min(rows, 65) <= cut.chunks <= 256
    moved = 2 * 8 * cut.chunks * 4096  # each sum is written once and read once
    if rows >= 4096:
        assert moved <= 0.09 * 3 * x.numel() * 2
    if rows >= 16384:
        assert moved <= 0.05 * 3 * x.numel() * 2


# Short rows, many a program; two pieces; the widest that is held, and one more.
@both
@pytest.mark.parametrize(("rows", "width"), [(300, 128), (5, 5000)])
def test_as_two_kernels_have_it(name: str, rows: int, width: int, draw: Draw) -> None:
    """The one pass gives the two kernels' gradients, within the roundings of either."""
    x, g = draw(rows, width, dtype=torch.float32), draw(rows, width, dtype=torch.float32)
    parameters = _parameters(name, width, torch.float32, draw)
    found = _backward(name, x, parameters, g)[0]()
    leaves = [x.clone().requires_grad_(), *parameters]
    (alone,) = torch.autograd.grad(_value(name, leaves), leaves[:1], g)
    leaves = [x, *(each.clone().requires_grad_() for each in parameters)]
    apart = torch.autograd.grad(_value(name, leaves), leaves[1:], g)
    for one, other in zip(found, (alone, *apart), strict=True):
        torch.testing.assert_close(one, other, rtol=2.0**-23, atol=0)


def _value(name: str, leaves: list[Tensor]) -> Tensor:
    value: Tensor = getattr(kernels, name)(leaves[0], leaves[0].shape[-1:], *leaves[1:], eps=1e-5)
    return value


@both
@pytest.mark.usefixtures("small_pieces")
def test_which_gradients_are_wanted(name: str, draw: Draw, device: torch.device) -> None:
    """Any choice of gradients gives what all of them together give, None for the others; a weight
    that wants none still takes part in the input's.
    """
    x, g = draw(9, 70, dtype=torch.float32), draw(9, 70, dtype=torch.float32)
    parameters = _parameters(name, 70, torch.float32, draw)
    every = _backward(name, x, parameters, g)[0]()
    for choice in range(1, 2 ** len(every)):
        leaves = [
            each.clone().requires_grad_(bool(choice >> place & 1))
            for place, each in enumerate((x, *parameters))
        ]
        _value(name, leaves).backward(g)
        for leaf, expected in zip(leaves, every, strict=True):
            assert (leaf.grad is None) != leaf.requires_grad
            if leaf.grad is not None:
                torch.testing.assert_close(leaf.grad, expected, rtol=2.0**-23, atol=0)


@both
@pytest.mark.parametrize("rows", [0, 13])
@pytest.mark.usefixtures("small_pieces")
def test_every_element_is_written(
    name: str, rows: int, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With memory full of NaNs where torch allocates, no gradient has one, and bits repeat."""
    x, g = draw(rows, 70, dtype=torch.bfloat16), draw(rows, 70, dtype=torch.bfloat16)
    run, leaves = _backward(name, x, _parameters(name, 70, torch.bfloat16, draw), g)
    first = run()
    empty, like = Tensor.new_empty, torch.empty_like
    monkeypatch.setattr(Tensor, "new_empty", lambda *a, **k: empty(*a, **k).fill_(torch.nan))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: like(*a, **k).fill_(torch.nan))
    for one, other, leaf in zip(first, run(), leaves, strict=True):
        assert torch.equal(one, other)
        assert one.shape == leaf.shape
        assert rows or not one.any()


@both
@pytest.mark.usefixtures("small_pieces")
def test_a_spoiled_row_stays_alone(name: str, draw: Draw) -> None:
    """A NaN spoils its own row's dx, and every parameter's gradient where torch has it spoiled."""
    x, g = draw(13, 70, dtype=torch.float32), draw(13, 70, dtype=torch.float32)
    parameters = _parameters(name, 70, torch.float32, draw)
    clean = _backward(name, x, parameters, g)[0]()
    x[5, 3] = torch.nan
    of_x, of_weight, *of_bias = _backward(name, x, parameters, g)[0]()
    rest = torch.arange(13, device=x.device) != 5
    assert torch.equal(of_x[rest], clean[0][rest])
    assert bool(of_x[5].isnan().all())
    assert bool(of_weight.isnan().all())
    assert all(torch.equal(*pair) for pair in zip(of_bias, clean[2:], strict=True))


# --- traffic and machine code ---------------------------------------------------------------------


def _launches(name: str, dtype: str, rows: int, width: int, draw: Draw) -> list[KernelTraffic]:
    """The launches of a backward for all gradients, in the shapes of a Hopper."""
    x, g = draw(rows, width, dtype=DTYPES[dtype]), draw(rows, width, dtype=DTYPES[dtype])
    with launch.shaped_as("cuda:90"):
        run, _ = _backward(name, x, _parameters(name, width, DTYPES[dtype], draw), g)
        with counted() as traffic:
            run()
    return traffic.kernels


# Rows that fill a block or leave a part of the last one empty; two pieces, aligned.
@interpreted
@both
@pytest.mark.parametrize(("dtype", "width"), [("bf16", 128), ("fp32", 1000), ("fp16", 5000)])
def test_one_read_and_one_write(name: str, dtype: str, width: int, draw: Draw) -> None:
    """In one launch x and the upstream gradient are read once and dx is written once; the weight is
    read once a chunk, and the second launch reads each chunk's sums once.
    """
    rows = 2100 // width + 4
    kernel, *of_sums = _launches(name, dtype, rows, width, draw)
    assert kernel.kernel == "kernels.norm_one_pass.one_pass_kernel"
    assert len(of_sums) == 1 + (name == "layer_norm")
    size = rows * width * DTYPES[dtype].itemsize
    for operand in ("upstream", "x_ptr"):
        assert kernel.operands[operand].read_bytes == size
    assert kernel.operands["gradient"].written_bytes == size
    assert kernel.operands["weight_ptr"].reads == kernel.programs
    partial = kernel.programs * width * 8
    for sums in of_sums:
        assert sums.operands["partial"].read_bytes == partial
    moved = 3 * size + kernel.programs * width * DTYPES[dtype].itemsize + len(of_sums) * partial
    moved += rows * 8 * (5 if name == "layer_norm" else 2)
    assert kernel.moved_bytes == moved


@interpreted
@both
@pytest.mark.parametrize(("dtype", "width"), [("bf16", 8193), ("fp64", 70)])
def test_what_is_not_held_takes_two_kernels(name: str, dtype: str, width: int, draw: Draw) -> None:
    """Wider rows and fp64, whose sums have no room beside the row, are read twice as often."""
    found = [each.kernel.rpartition(".")[2] for each in _launches(name, dtype, 1, width, draw)]
    sums = ["sum_chunks_kernel"] * (1 + (name == "layer_norm"))
    assert found == ["input_kernel", "parameters_kernel", *sums]


# The widest rows of each entry in the table of launch shapes; several rows a program; an odd width.
@pytest.mark.full
@both
def test_no_spills_anywhere(name: str) -> None:
    """At its launch shapes no kernel of the backward needs more registers than it has."""
    cases = [
        Inspected(name, "triton", dtype, rows_for(width), width)
        for dtype in HELD
        for width in (128, 1024, 1025, 5000, 5120, 7168, 8192)
    ]
    found = inspect(cases, targets=DEFAULT_TARGETS, with_traffic=False)
    assert not found.problems
    backward = [each for each in found.of("kernel") if each["pass"] == "backward"]
    assert "kernels.norm_one_pass.one_pass_kernel" in {each["kernel"] for each in backward}
    assert not [each for each in backward if each["spilled_bytes"] or each["spill_instructions"]]
