"""What rms_norm and layer_norm ask of their arguments, and the rows they work on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from . import launch

_NAMES = "fp16, bf16, fp32 or fp64"


def validate(
    input: Tensor, normalized_shape: Sequence[int], eps: float, **parameters: Tensor | None
) -> int:
    """The number of elements normalised together.

    Raises:
        TypeError: on a dtype that is not supported.
        ValueError: on a normalized_shape that is empty or not the input's end; on a parameter of
            another shape; on an eps that is negative, NaN or infinite.
    """
    if not launch.is_supported(input.dtype):
        raise TypeError(f"input must be {_NAMES}, got {input.dtype}")
    if isinstance(normalized_shape, int):
        raise TypeError(f"normalized_shape must be a tuple of ints, got {normalized_shape!r}")
    shape = tuple(normalized_shape)
    if not shape or tuple(input.shape[-len(shape) :]) != shape:
        raise ValueError(
            f"normalized_shape must be the last dimensions of the input, at least one; got "
            f"{shape} for an input of shape {tuple(input.shape)}"
        )
    if not (math.isfinite(eps) and eps >= 0.0):
        raise ValueError(f"eps must be a finite number, 0 or above, got {eps}")
    statistics = launch.statistics_dtype(input.dtype)
    for name, value in parameters.items():
        if value is None:
            continue
        if tuple(value.shape) != shape:
            raise ValueError(
                f"{name} must be of shape {shape}, as normalized_shape, got {tuple(value.shape)}"
            )
        if not launch.is_supported(value.dtype) or (
            value.dtype == torch.float64 and statistics != torch.float64
        ):
            raise TypeError(
                f"{name} must be {_NAMES}, and no wider than {statistics} beside an input of "
                f"{input.dtype}; got {value.dtype}"
            )
    return math.prod(shape)


def as_rows(input: Tensor, normalized_shape: Sequence[int], n_columns: int) -> Tensor:
    """(..., K) with the normalised dimensions laid out as one."""
    return input.reshape(*input.shape[: input.dim() - len(normalized_shape)], n_columns)
