"""The paths of each cost, row by row: formulas that people write, torch's, and the kernels'."""

import contextlib
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn import functional

import kernels
from harness.training.setting import Setting
from harness.training.workload import Rows
from kernels import launch
from kernels.binary_cross_entropy import reference as binary
from kernels.cross_entropy import reference as classes
from kernels.normalize import reference as vectors

# How sharply the cosines of metric learning are told apart: the usual temperature of 1/16.
_SHARPNESS = 16.0


def _torch_classes(logits: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(logits, target, reduction="none")


def _kernel_classes(logits: Tensor, target: Tensor) -> Tensor:
    return kernels.cross_entropy(logits, target, reduction="none")


def _doubled(logits: Tensor, target: Tensor) -> Tensor:
    """A softmax as the model's last layer, and another in the cost: a common slip."""
    return functional.cross_entropy(torch.softmax(logits, dim=-1), target, reduction="none")


def _missing(logits: Tensor, target: Tensor) -> Tensor:
    """The logarithm of what the model returns, which nobody made probabilities."""
    return -torch.log(logits.gather(-1, target[:, None])[:, 0])


CROSS_ENTROPY: Mapping[str, Rows] = {
    "naive": classes.naive,
    "softmax_log": classes.softmax_log,
    "clamped": classes.clamped,
    "epsilon": classes.epsilon,
    "torch": _torch_classes,
    "stable": _kernel_classes,
    "triton": _kernel_classes,
    "doubled": _doubled,
    "missing": _missing,
}


def _binary(path: Rows) -> Rows:
    def rows(logits: Tensor, target: Tensor) -> Tensor:
        return path(logits[:, 0], target.to(logits.dtype))

    return rows


def _kernel_binary(logits: Tensor, target: Tensor) -> Tensor:
    return kernels.binary_cross_entropy_with_logits(logits, target, reduction="none")


BINARY_CROSS_ENTROPY: Mapping[str, Rows] = {
    "naive": _binary(binary.naive),
    "clamped": _binary(binary.clamped),
    "torch_bce": _binary(binary.torch_bce),
    "torch": _binary(binary.torch_with_logits),
    "stable": _binary(_kernel_binary),
    "triton": _binary(_kernel_binary),
}


def _similarity(unit: Tensor) -> Tensor:  # (N, 5) -> (N, 10)
    """Cosines with the classes' directions: of each two of five axes the one half-way between."""
    first, second = torch.triu_indices(5, 5, 1, device=unit.device)
    return (unit[:, first] + unit[:, second]) * math.sqrt(0.5)


def _by_direction(path: Callable[[Tensor], Tensor]) -> Rows:
    """Cosines, sharpened, through torch's cross-entropy in fp32 or wider."""

    def rows(embeddings: Tensor, target: Tensor) -> Tensor:
        cosines = _similarity(path(embeddings))
        wide = cosines if cosines.dtype == torch.float64 else cosines.float()
        return functional.cross_entropy(_SHARPNESS * wide, target, reduction="none")

    return rows


NORMALIZE: Mapping[str, Rows] = {
    "naive": _by_direction(vectors.naive),
    "epsilon": _by_direction(vectors.epsilon),
    "torch": _by_direction(vectors.torch_native),
    "stable": _by_direction(lambda x: kernels.normalize(x, dim=-1)),
    "triton": _by_direction(lambda x: kernels.normalize(x, dim=-1)),
}


def right_class(logits: Tensor, target: Tensor) -> Tensor:
    """1 where the largest logit is the target's."""
    return (logits.argmax(dim=-1) == target).double()


def right_side(logits: Tensor, target: Tensor) -> Tensor:
    """1 where the logit's sign is the target's."""
    return ((logits[:, 0] > 0) == (target > 0)).double()


def right_axis(embeddings: Tensor, target: Tensor) -> Tensor:
    """1 where the target's direction is the nearest; a vector of zeros is wrong."""
    nearest = _similarity(embeddings).argmax(dim=-1) == target
    return (nearest & (embeddings != 0).any(dim=-1)).double()


def stable_direction(embeddings: Tensor, target: Tensor) -> Tensor:
    """The evaluator's own x / ||x|| in fp64, scaled by the largest element; 0 at zero."""
    largest = embeddings.abs().amax(dim=-1, keepdim=True)
    scaled = embeddings / torch.where(largest == 0, 1.0, largest)
    length = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    unit = scaled / torch.where(length == 0, 1.0, length)
    return functional.cross_entropy(_SHARPNESS * _similarity(unit), target, reduction="none")


def absent(path: str, device: str) -> str | None:
    """Why a path cannot be had here."""
    if path == "triton" and device == "cpu" and not launch.INTERPRETED:
        return "Triton needs a CUDA device, or TRITON_INTERPRET=1 before triton is imported"
    if path == "stable" and device != "cpu":
        return "the stable PyTorch formula is what CPU tensors take; on a GPU there is triton"
    return None


def context(setting: Setting) -> AbstractContextManager[None]:
    """`triton` runs the kernels, under the interpreter where there is no GPU; nothing else does."""
    return contextlib.nullcontext() if setting.path == "triton" else launch.without_interpreter()
