"""The models, as modules that torch.func.vmap can stack: no statistics that change in place."""

import functools
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

import kernels
from suites.training.fastnorm import REFRESH


def _product(function: Callable[..., Tensor], *operands: Tensor | None) -> Tensor:
    """A linear or convolution of half-precision operands, on a CPU by way of fp32.

    Each operand is rounded to the half format, products are summed in fp32 and the result is
    rounded once: what a GPU's matrix units do, and faster than a CPU's own loops over halves.
    Under autocast it also stands in for autocast itself: torch.func takes a layer apart before
    autocast sees it, and a lane would be more precise than the same run alone.
    """
    first = next(each for each in operands if each is not None)
    kind = first.device.type
    casts = torch.is_autocast_enabled(kind)
    narrow = torch.get_autocast_dtype(kind) if casts else first.dtype
    if narrow not in (torch.float16, torch.bfloat16) or first.dtype == torch.float64:
        return function(*operands)
    wide = torch.float32 if kind == "cpu" else narrow
    rounded = [None if each is None else each.to(narrow).to(wide) for each in operands]
    with torch.autocast(kind, enabled=False):
        return function(*rounded).to(narrow)


class Linear(nn.Linear):
    """nn.Linear by way of `_product`."""

    def forward(self, input: Tensor) -> Tensor:
        return _product(nn.functional.linear, input, self.weight, self.bias)


class Convolution(nn.Conv2d):
    """nn.Conv2d, likewise."""

    def forward(self, input: Tensor) -> Tensor:
        function = functools.partial(nn.functional.conv2d, stride=self.stride, padding=self.padding)
        return _product(function, input, self.weight, self.bias)


# Layers with real state, which lanes cannot stack.
MODULES = ("weight", *REFRESH)
# Normalisations of a perceptron.
NORMALIZATIONS = ("none", "input_batch", "batch", "layer", "rms", *MODULES)
_LINEAR: dict[str, Callable[..., nn.Module]] = {
    "weight": kernels.WeightNormLinear,
    **dict.fromkeys(REFRESH, kernels.FastNormLinear),
}
_BETWEEN: dict[str, Callable[[int], nn.Module]] = {
    # Batch statistics in evaluation, too: running ones would change in place.
    "batch": lambda width: nn.BatchNorm1d(width, track_running_stats=False),
    "layer": nn.LayerNorm,
    "rms": nn.RMSNorm,
}


def perceptron(
    widths: Sequence[int], activation: type[nn.Module], normalization: str, *, embeds: bool = False
) -> nn.Sequential:
    """Linear layers of these widths with an activation between them.

    An embedding (`embeds`) has an activation after the last layer too, and no biases.

    batch, layer and rms stand between a hidden layer and its activation; input_batch before the
    first layer; weight and fastnorm replace every linear layer.
    """
    linear = _LINEAR.get(normalization, Linear)
    layers: list[nn.Module] = []
    if normalization == "input_batch":
        layers.append(nn.BatchNorm1d(widths[0], track_running_stats=False))
    for place, (inner, outer) in enumerate(itertools.pairwise(widths)):
        hidden = place < len(widths) - 2
        layers.append(linear(inner, outer, bias=not embeds))
        if hidden and normalization in _BETWEEN:
            layers.append(_BETWEEN[normalization](outer))
        if hidden or embeds:
            layers.append(activation())
    return nn.Sequential(*layers)


def convolutional(normalization: str) -> nn.Sequential:
    """8 x 8 images: two 3 x 3 convolutions of 8 and 16 channels with ReLU, one linear layer."""

    def between(channels: int) -> list[nn.Module]:
        if normalization == "batch":
            return [nn.BatchNorm2d(channels, track_running_stats=False)]
        return [nn.GroupNorm(1, channels)] if normalization == "layer" else []

    first = [nn.BatchNorm2d(1, track_running_stats=False)] * (normalization == "input_batch")
    return nn.Sequential(
        *first,
        Convolution(1, 8, 3, padding=1),
        *between(8),
        nn.ReLU(),
        Convolution(8, 16, 3, stride=2, padding=1),
        *between(16),
        nn.ReLU(),
        nn.Flatten(-3),
        Linear(256, 10),
    )


class Block(nn.Module):
    """Causal self-attention and a perceptron of four times the width, each after a norm."""

    def __init__(self, width: int, heads: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = norm(width)
        self.to_heads = Linear(width, 3 * width)
        self.from_heads = Linear(width, width)
        self.before_perceptron = norm(width)
        self.perceptron = nn.Sequential(
            Linear(width, 4 * width), nn.GELU(), Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, T, D)
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.to_heads(self.before_attention(x)).chunk(3, dim=-1)
        )
        scores = q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        weights = torch.softmax(scores.masked_fill(later, -torch.inf), dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.from_heads(mixed)
        return x + self.perceptron(self.before_perceptron(x))


class Transformer(nn.Module):
    """Decoder of two blocks, width 64, two heads, learned positions; no norm where `none`."""

    def __init__(self, vocabulary: int, context: int, normalization: str) -> None:
        super().__init__()
        norms: dict[str, Callable[[int], nn.Module]] = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}
        norm = norms.get(normalization, lambda width: nn.Identity())
        width = 64
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(torch.randn(context, width) * 0.02)
        self.blocks = nn.Sequential(Block(width, 2, norm), Block(width, 2, norm))
        self.last = norm(width)
        self.head = Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:  # (B, T) -> (B, T, vocabulary)
        return self.head(self.last(self.blocks(self.words(tokens) + self.places)))
