"""Every operation as a function of a few tensors, beside PyTorch's own: what the derivative tests
sweep.

A case is small, in fp64 exact enough for finite differences, and away from kinks. `ours` and
`theirs` take the tensors of `inputs`, all differentiable, and return one tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import kernels


@dataclass(frozen=True)
class Case:
    """One operation, or one with its options."""

    ours: Callable[..., Tensor]
    theirs: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...] = ((3, 5),)  # of the differentiable inputs


def _classes(x: Tensor) -> Tensor:
    return torch.arange(1, 4, device=x.device)


def _weight(x: Tensor) -> Tensor:
    return (torch.arange(5, device=x.device) % 3 + 0.5).to(x.dtype)


def _rows(x: Tensor) -> Tensor:
    """Rows of which no gradient is asked."""
    return ((torch.arange(15, device=x.device) * 7 % 11 - 4.5) / 3).to(x.dtype).reshape(3, 5)


def _pair(name: str, **options: object) -> Case:
    """kernels.name and torch.nn.functional.name on the same tensor and options."""
    return Case(
        lambda x: getattr(kernels, name)(x, **options), lambda x: getattr(F, name)(x, **options)
    )


def _cross_entropy(**options: object) -> Case:
    def of(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def loss(x: Tensor) -> Tensor:
            given = {k: v(x) if callable(v) else v for k, v in options.items()}
            return function(x, **({"target": _classes(x)} | given))

        return loss

    return Case(of(kernels.cross_entropy), of(F.cross_entropy))


def _capped_cross_entropy(x: Tensor) -> Tensor:
    """softcap and z-loss as the documentation writes them."""
    capped = 2.0 * torch.tanh(x / 2.0)
    normalizer = torch.logsumexp(capped, dim=-1)
    return F.cross_entropy(capped, _classes(x)) + 0.1 * normalizer.square().mean()


def _weighted_binary_cross_entropy(x: Tensor, y: Tensor, w: Tensor, p: Tensor) -> Tensor:
    """PyTorch's function has no gradient for the weight: its documented formula instead."""
    target = y.sigmoid()
    slope = 1 + (p.exp() - 1) * target
    return (w.exp() * ((1 - target) * x + slope * F.softplus(-x))).sum()


CASES: dict[str, Case] = {
    "cross_entropy": _cross_entropy(),
    "cross_entropy_none": _cross_entropy(reduction="none"),
    "cross_entropy_sum": _cross_entropy(reduction="sum"),
    "cross_entropy_weight": _cross_entropy(weight=_weight),
    "cross_entropy_smoothing": _cross_entropy(label_smoothing=0.2, weight=_weight),
    "cross_entropy_probabilities": Case(
        lambda x, t: kernels.cross_entropy(x, t.softmax(dim=1), _weight(x)),
        lambda x, t: F.cross_entropy(x, t.softmax(dim=1), _weight(x)),
        shapes=((3, 5), (3, 5)),
    ),
    "cross_entropy_additions": Case(
        lambda x: kernels.cross_entropy(x, _classes(x), z_loss=0.1, softcap=2.0),
        _capped_cross_entropy,
    ),
    "linear_cross_entropy": Case(
        lambda x, w, b: kernels.linear_cross_entropy(
            x, w, _classes(x), linear_bias=b, label_smoothing=0.1, chunk_rows=2
        ),
        lambda x, w, b: F.cross_entropy(F.linear(x, w, b), _classes(x), label_smoothing=0.1),
        shapes=((3, 4), (5, 4), (5,)),
    ),
    "binary_cross_entropy": Case(
        lambda x, y: kernels.binary_cross_entropy_with_logits(x, y.sigmoid()),
        lambda x, y: F.binary_cross_entropy_with_logits(x, y.sigmoid()),
        shapes=((3, 5), (3, 5)),
    ),
    "binary_cross_entropy_weighted": Case(
        lambda x, y, w, p: kernels.binary_cross_entropy_with_logits(
            x, y.sigmoid(), w.exp(), pos_weight=p.exp(), reduction="sum"
        ),
        _weighted_binary_cross_entropy,
        shapes=((3, 5), (3, 5), (3, 1), (5,)),
    ),
    "binary_cross_entropy_none": Case(
        lambda x, y: kernels.binary_cross_entropy_with_logits(x, y.sigmoid(), reduction="none"),
        lambda x, y: F.binary_cross_entropy_with_logits(x, y.sigmoid(), reduction="none"),
        shapes=((3, 5), (3, 5)),
    ),
    "softmax": _pair("softmax", dim=-1),
    "log_softmax": _pair("log_softmax", dim=0),
    "rms_norm": Case(
        lambda x, w: kernels.rms_norm(x, (5,), w, 1e-3),
        lambda x, w: F.rms_norm(x, (5,), w, 1e-3),
        shapes=((3, 5), (5,)),
    ),
    "rms_norm_alone": _pair("rms_norm", normalized_shape=(5,)),
    "rms_norm_weight": Case(
        lambda w: kernels.rms_norm(_rows(w), (5,), w, 1e-3).square(),
        lambda w: F.rms_norm(_rows(w), (5,), w, 1e-3).square(),
        shapes=((5,),),
    ),
    "layer_norm": Case(
        lambda x, w, b: kernels.layer_norm(x, (5,), w, b),
        lambda x, w, b: F.layer_norm(x, (5,), w, b),
        shapes=((3, 5), (5,), (5,)),
    ),
    "layer_norm_alone": _pair("layer_norm", normalized_shape=(5,)),
    "layer_norm_parameters": Case(
        lambda w, b: kernels.layer_norm(_rows(w), (5,), w, b).square(),
        lambda w, b: F.layer_norm(_rows(w), (5,), w, b).square(),
        shapes=((5,), (5,)),
    ),
    # The weight takes part in the input's gradient, and wants none.
    "layer_norm_bias": Case(
        lambda x, b: kernels.layer_norm(x, (5,), _weight(x), b),
        lambda x, b: F.layer_norm(x, (5,), _weight(x), b),
        shapes=((3, 5), (5,)),
    ),
    "normalize": _pair("normalize"),
    "normalize_p3": _pair("normalize", p=3.0),
}


def draw(case: Case, dtype: torch.dtype, device: torch.device, *lead: int) -> list[Tensor]:
    """The case's inputs, normally distributed, with extra leading dimensions."""
    generator = torch.Generator().manual_seed(7)
    values = [
        torch.randn(*lead, *shape, generator=generator, dtype=torch.float64)
        for shape in case.shapes
    ]
    return [value.to(dtype).to(device) for value in values]
