"""A linear layer's cross-entropy as people write it, and the formula that second derivatives are
taken from.

The first two take input (N, H), weight (C, H) and class indices (N,), and return one loss a row, 0
where the target is -100. Each says where it breaks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import launch
from ..cross_entropy import reference as cross_entropy
from ..cross_entropy.options import Options


def naive(input: Tensor, linear_weight: Tensor, target: Tensor) -> Tensor:
    """Logits in the input's dtype, exp, divide by the sum, log, pick.

    The logits, (N, C), are held whole, and rounded to the input's dtype: in bf16 a logit of 30 is
    off by up to 0.06, and so is the loss. Breaks where naive cross-entropy breaks, at logits of
    11.09 in fp16.
    """
    return cross_entropy.naive(torch.nn.functional.linear(input, linear_weight), target)


def torch_native(input: Tensor, linear_weight: Tensor, target: Tensor) -> Tensor:
    """F.linear, then F.cross_entropy.

    The logits are held whole and rounded to the input's dtype, as are their gradients. In fp16 they
    overflow at 65504.
    """
    return cross_entropy.torch_native(torch.nn.functional.linear(input, linear_weight), target)


def plain(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    positions: int,
    options: Options,
) -> Tensor:
    """The loss in operations that torch differentiates any number of times, logits held whole."""
    wide = launch.statistics_dtype(x.dtype)
    logits = x.to(wide) @ weight.to(wide).t()
    if bias is not None:
        logits = logits + bias.to(wide)
    rows = logits.reshape(x.shape[0], -1, positions).movedim(1, 2)
    rows = rows.reshape(x.shape[0] * positions, -1)
    return cross_entropy.plain(rows, target, class_weight, options)
