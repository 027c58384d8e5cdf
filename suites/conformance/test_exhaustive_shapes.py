"""Every width around a block boundary and every number of rows around a program's, forward and
backward, against truth. The sample has four widths, each in a dtype of its own.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kernels import launch
from suites.conformance.proof import Subject, prove, run
from suites.conformance.subjects import PLAIN, ROUTES, SUBJECTS, case

named = pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)


def _routes(kernel: tuple[str, ...], formula: tuple[str, ...] = ()) -> list[Any]:
    """Every subject by both routes, in the sample those named."""
    names = {"kernel": kernel, "formula": formula}
    return [
        case(subject, route, sample=subject.name in names[route])
        for route in ROUTES
        for subject in SUBJECTS
    ]


def _boundaries(dtype: torch.dtype) -> list[int]:
    """Where a kernel changes what it does: its widest tile and small multiples of it, the widest
    row on chip, and each split of such a row into pieces.
    """
    widest = launch.tile(1, 1 << 30)[1]
    places = {widest, 2 * widest, 3 * widest}
    on_chip = getattr(launch, "WIDEST_ON_CHIP", {}).get(launch.statistics_dtype(dtype))
    if on_chip:
        places |= {on_chip, on_chip // 2 + on_chip // 8, on_chip // 2 + 64}
    return sorted(places)


def _widths(dtype: torch.dtype) -> list[int]:
    """One to three columns; each boundary and one to either side; a vocabulary's odd width."""
    around = {place + step for place in _boundaries(dtype) for step in (-1, 0, 1)}
    return [1, 2, 3, *sorted(around), 50_257]


# A few that differ in kind: no row to reduce, one tile but for a column, two tiles and a column.
SAMPLE = (1, 3, 4095, 8193)


@pytest.mark.parametrize(("subject", "route"), _routes(PLAIN, PLAIN), indirect=["route"])
@pytest.mark.usefixtures("route")
def test_sampled_widths(subject: Subject, device: torch.device) -> None:
    """Rows of each width are right in every element."""
    for width, dtype in zip(
        SAMPLE, (torch.float64, torch.float16, torch.float32, torch.bfloat16), strict=True
    ):
        inputs = subject.draw(3, width, dtype)
        prove(subject, inputs, device, f"width {width} {dtype}", twice=width == SAMPLE[-1])


@pytest.mark.full
@named
@pytest.mark.usefixtures("route")
def test_every_width(subject: Subject, dtype: torch.dtype, device: torch.device) -> None:
    """Rows of each width around each boundary are right in every element."""
    for width in _widths(dtype):
        prove(subject, subject.draw(3, width, dtype), device, f"width {width} {dtype}")


def _row_counts(columns: int) -> list[int]:
    """One row; a program's rows and one to either side; several programs and one row more."""
    block = launch.tile(1 << 30, columns)[0]
    return [1, block - 1, block, block + 1, 3 * block + 1]


# Two columns make the tallest tiles; 4,096 tiles of a few rows.
@pytest.mark.full
@pytest.mark.parametrize("columns", [2, 4096])
@named
@pytest.mark.usefixtures("route")
def test_every_number_of_rows(subject: Subject, columns: int, device: torch.device) -> None:
    """A partial last program computes its rows and writes no others."""
    for rows in _row_counts(columns):
        if rows > 0:
            inputs = subject.draw(rows, columns, torch.float32)
            prove(subject, inputs, device, f"{rows} rows")


# Rows of few columns, so that one program has many of them; wide ones beside them are the dearest.
@pytest.mark.parametrize(
    ("subject", "columns", "route"),
    [
        case(subject, columns, route, sample=wanted)
        for subject in SUBJECTS
        for columns in (7, 4096)
        for route in ROUTES
        for wanted in [subject.name in PLAIN and columns == 7 and route == "kernel"]
    ],
    indirect=["route"],
)
@pytest.mark.usefixtures("route")
def test_one_row_more(subject: Subject, columns: int, device: torch.device) -> None:
    """A partial last program computes its rows and writes no others."""
    rows = launch.tile(1 << 30, columns)[0] + 1
    prove(subject, subject.draw(rows, columns, torch.float32), device, f"{rows} rows")


@pytest.mark.parametrize(("subject", "route"), _routes(PLAIN, PLAIN), indirect=["route"])
@pytest.mark.usefixtures("route")
def test_no_rows(subject: Subject, dtype: torch.dtype, device: torch.device) -> None:
    """No row gives no result, and gradients of the inputs' shapes that are zero."""
    inputs = subject.draw(0, 5, dtype)
    found = run(subject.ours, inputs, subject.differentiable, device)
    assert found["output"].shape == inputs["upstream"].shape
    for name in subject.differentiable:
        assert found[name].shape == inputs[name].shape
        assert found[name].dtype == dtype
        assert not found[name].any()
