"""Where the conformance tests run, and how they pick device, dtype and route.

Without a CUDA device the kernels are interpreted. That is decided when triton is first imported, so
the switch is set here, before anything imports the kernels.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from kernels import launch  # only now may triton be imported

HERE = Path(__file__).parent

DTYPES = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp64": torch.float64,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A warning is an error here, whatever the configuration outside says; a test may filter its
    own.
    """
    strict = pytest.mark.filterwarnings("error")
    for item in items:
        if item.path.parent == HERE and item.get_closest_marker("filterwarnings") is None:
            item.add_marker(strict)


@pytest.fixture
def device() -> torch.device:
    """A GPU where there is one, else the CPU with the kernels interpreted."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    assert launch.INTERPRETED, "triton was imported before TRITON_INTERPRET was set"
    return torch.device("cpu")


@pytest.fixture(params=list(DTYPES))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Each dtype that the kernels take."""
    return DTYPES[request.param]


@pytest.fixture(params=["kernel", "formula"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways through an operator: the Triton kernel, and the PyTorch formula used on a plain
    CPU.
    """
    if request.param == "formula":
        monkeypatch.setattr(launch, "uses_triton", lambda tensor: False)
    return str(request.param)


@pytest.fixture
def formula_unless_routed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that does not ask for a route takes the PyTorch formula on a CPU: an interpreted
    launch costs 20 ms, which is much where what is proved is the accounting around it.
    """
    if "route" not in request.fixturenames:
        monkeypatch.setattr(launch, "uses_triton", lambda tensor: tensor.is_cuda)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 4 rows and 64 columns and no row held on chip, so that short rows already span
    several blocks.
    """
    monkeypatch.setattr(launch, "tile", lambda rows, columns, *shape: (4, 64))
    monkeypatch.setattr(launch, "row_pieces", lambda columns, dtype, *shape: ())


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows held on chip in pieces of at most 64 columns, 4 a program, whatever their width."""
    whole = launch.row_pieces

    def small(columns: int, dtype: torch.dtype, *shape: object) -> tuple[int, ...]:
        return (64,) * (columns // 64) + (whole(columns % 64, dtype) if columns % 64 else ())

    monkeypatch.setattr(launch, "row_pieces", small)
    monkeypatch.setattr(launch, "row_block", lambda rows, pieces, *shape: 4)


@pytest.fixture(params=["on_chip", "looped", "formula"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The three ways a row goes: held on chip, here in pieces of at most 64 columns; looped over in
    blocks of 64; through the PyTorch formula.
    """
    if request.param == "on_chip":
        request.getfixturevalue("small_pieces")
    elif request.param == "looped":
        request.getfixturevalue("small_tiles")
    else:
        monkeypatch.setattr(launch, "uses_triton", lambda tensor: False)
    return str(request.param)


@pytest.fixture
def unchecked_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets are not looked at unless asked for: what a GPU does by default, on any device."""
    monkeypatch.setattr(launch, "checks_by_default", lambda tensor: False)


@pytest.fixture
def draw(device: torch.device) -> Callable[..., torch.Tensor]:
    """Normally distributed values, drawn in fp64 and rounded once, the same on every device."""
    generator = torch.Generator().manual_seed(20)

    def normal(*shape: int, dtype: torch.dtype, scale: float = 1.0) -> torch.Tensor:
        values = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
        return values.to(dtype).to(device)

    return normal
