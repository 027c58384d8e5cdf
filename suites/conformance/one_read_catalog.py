"""A catalog of one path: cross-entropy with its gradient in one launch, for the inspection."""

from dataclasses import replace

from torch import Tensor

import kernels
from harness.operation import Path
from suites.catalog.cross_entropy import CROSS_ENTROPY
from suites.catalog.shaping import shaped_as


def _one_read(input: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    loss, _ = kernels.cross_entropy_with_gradient(
        input, target, weight, reduction="none", upstream=2.0**16
    )
    return loss


OPERATIONS = (replace(CROSS_ENTROPY, paths=(Path("one_read", _one_read),)),)

__all__ = ["OPERATIONS", "shaped_as"]
