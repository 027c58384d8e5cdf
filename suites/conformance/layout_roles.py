"""Where a pattern stands among a row's columns: the layouts that roles are made from."""

from __future__ import annotations

import torch
from torch import Tensor

COLUMNS = 8


def ordinary(*shape: int, dtype: torch.dtype, scale: float = 1.0, seed: int = 0) -> Tensor:
    """Normally distributed values from a stream of their own, rounded once."""
    generator = torch.Generator().manual_seed(7000 + seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)


def cycling(rows: int, shift: int = 0, columns: int = COLUMNS) -> Tensor:  # (rows,) int64
    """Each row's column: 0, 1, 2, ... around, so that no column of a tile is left out."""
    return (torch.arange(rows) + shift) % columns


def put(base: Tensor, column: Tensor, values: Tensor) -> Tensor:  # (N, C), (N,), (N,) -> (N, C)
    """The base with one column of each row replaced."""
    return base.scatter(1, column[:, None], values[:, None])


def lone(patterns: Tensor) -> Tensor:  # (N,) -> (N, 8)
    """The pattern among zeros."""
    zeros = torch.zeros(len(patterns), COLUMNS, dtype=patterns.dtype)
    return put(zeros, cycling(len(patterns)), patterns)


def crowd(patterns: Tensor, scale: float = 2.0) -> Tensor:  # (N,) -> (N, 8)
    """The pattern among ordinary values."""
    others = ordinary(len(patterns), COLUMNS, dtype=patterns.dtype, scale=scale)
    return put(others, cycling(len(patterns)), patterns)


def constant(patterns: Tensor) -> Tensor:  # (N,) -> (N, 8)
    """The pattern in every column."""
    return patterns[:, None].repeat(1, COLUMNS)
