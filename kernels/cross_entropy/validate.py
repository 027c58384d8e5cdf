"""What `kernels.cross_entropy` accepts, and what it says of the rest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import launch
from .options import Options

_REDUCTIONS = ("mean", "sum", "none")
_ALL_IGNORED = ("nan", "zero")


def validate(input: Tensor, target: Tensor, weight: Tensor | None, options: Options) -> None:
    """Raise TypeError, ValueError or NotImplementedError, repeating what was given."""
    _validate_options(options)
    if not launch.is_supported(input.dtype):
        raise TypeError(f"input must be fp16, bf16, fp32 or fp64, got {input.dtype}")
    if input.device != target.device:
        raise ValueError(f"input is on {input.device} but target on {target.device}")
    if input.dim() == 0:
        raise ValueError(
            "input must have at least one dimension, that of the classes, got shape ()"
        )
    class_dim = 0 if input.dim() == 1 else 1
    _validate_target(input, target, class_dim)
    if target.is_floating_point() and options.ignore_index >= 0:
        raise ValueError(
            "ignore_index picks class indices and has no meaning for class probabilities, got "
            f"ignore_index={options.ignore_index} and a target of {target.dtype}"
        )
    if weight is not None:
        _validate_weight(input, weight, input.shape[class_dim])


def _validate_options(options: Options) -> None:
    if options.reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be one of {_REDUCTIONS}, got {options.reduction!r}")
    if options.all_ignored not in _ALL_IGNORED:
        raise ValueError(f"all_ignored must be one of {_ALL_IGNORED}, got {options.all_ignored!r}")
    if not 0.0 <= options.label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be within [0, 1], got {options.label_smoothing}")
    if not (math.isfinite(options.z_loss) and options.z_loss >= 0.0):
        raise ValueError(f"z_loss must be finite and not negative, got {options.z_loss}")
    if not (math.isfinite(options.softcap) and options.softcap >= 0.0):
        raise ValueError(f"softcap must be positive and finite, got {options.softcap}")


def _validate_target(input: Tensor, target: Tensor, class_dim: int) -> None:
    if target.shape == input.shape and input.dim() > 0 and target.is_floating_point():
        if not launch.is_supported(target.dtype):
            raise TypeError(f"class probabilities must be fp16 to fp64, got {target.dtype}")
        return
    expected = input.shape[:0] if class_dim == 0 else input.shape[:1] + input.shape[2:]
    if target.dtype not in (torch.int64, torch.uint8):
        raise TypeError(
            "target must hold class indices in torch.int64 (or torch.uint8), of shape "
            f"{tuple(expected)}, or class probabilities of the input's shape {tuple(input.shape)}; "
            f"got {target.dtype} of shape {tuple(target.shape)}"
        )
    if target.shape != expected:
        raise ValueError(
            f"target for input of shape {tuple(input.shape)} must have shape {tuple(expected)}, "
            f"got {tuple(target.shape)}"
        )


def _validate_weight(input: Tensor, weight: Tensor, n_classes: int) -> None:
    if weight.shape != (n_classes,):
        raise ValueError(
            f"weight must have one entry a class, shape ({n_classes},), got {tuple(weight.shape)}"
        )
    statistics = launch.statistics_dtype(input.dtype)
    if weight.dtype not in (input.dtype, statistics):
        raise TypeError(
            f"weight for input of {input.dtype} must be of that dtype or {statistics}, "
            f"got {weight.dtype}"
        )
    if weight.device != input.device:
        raise ValueError(f"input is on {input.device} but weight on {weight.device}")
    if weight.requires_grad:
        raise NotImplementedError(
            "weight has no gradient here (nor in torch, for class indices): pass weight.detach()"
        )
