"""A FastNorm layer in training: what the tests of its accounting start from."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.weight_norm import FastNormLinear, attach_fastnorm, reference

fastnorm = importlib.import_module("kernels.weight_norm.fastnorm")

K, N, BATCH = 40, 12, 6


@dataclass
class Training:
    """One attached layer, its optimizer, and a stream of batches."""

    layer: FastNormLinear
    optimizer: torch.optim.Optimizer
    generator: torch.Generator

    def batch(self, rows: int = BATCH) -> Tensor:
        v = self.layer.weight_v
        x = torch.randn(rows, K, generator=self.generator, dtype=torch.float64)
        return x.to(v.device, v.dtype)

    def loss(self) -> Tensor:
        """Large enough gradients that an unnoticed step shows."""
        y = self.layer(self.batch())
        return (y - 1.0).square().mean()

    def backward(self) -> None:
        self.optimizer.zero_grad()
        self.loss().backward()

    def step(self, times: int = 1) -> None:
        """Plain steps."""
        for _ in range(times):
            self.backward()
            self.optimizer.step()

    def error(self) -> float:
        """The larger of the relative errors of the norms and of the output of a forward pass."""
        layer = self.layer
        x = self.batch()
        with torch.no_grad():
            y = layer(x).double()
        parts = (layer.weight_v, layer.weight_g, layer.bias)
        v, g, bias = (p.detach().double() for p in parts)
        true = reference.textbook(x.double(), v, g, bias)
        terms = x.double().norm(dim=1, keepdim=True) * g[:, 0].abs() + bias.abs()
        held = layer.inferred_norms
        assert held is not None
        norms = (held.double() / v.norm(dim=1) - 1).abs().max()
        return max(float(norms), float(((y - true).abs() / terms).max()))


def start(
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    make: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    refresh_every: int | None = None,
    infer_half: bool = False,
    **options: object,
) -> Training:
    """A new layer and its optimizer, attached."""
    torch.manual_seed(5)
    layer = FastNormLinear(K, N, dtype=dtype).to(device or torch.device("cpu"))
    optimizer = make(layer.parameters(), **{"lr": 0.5, **options})
    attach_fastnorm(optimizer, layer, refresh_every=refresh_every, infer_half=infer_half)
    return Training(layer, optimizer, torch.Generator().manual_seed(6))
