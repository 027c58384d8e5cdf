"""Numbers beyond the largest of their format."""

import torch
from torch import nn

from suites.selftest.diagnosis_programs.program import fit, linear, normal, program

X = normal(16, 8)


@program("aten.exp", "overflow")
def softmax_without_the_maximum(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        e = torch.exp(z if broken else z - z.max(1, keepdim=True).values)
        return (e / e.sum(1, keepdim=True))[:, 0].mean()

    fit(linear(8, 3, 0.5), cost, X * 100)


@program("aten.exp", "overflow")
def softplus_by_hand(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        return (torch.log(1 + torch.exp(z)) if broken else nn.functional.softplus(z)).mean()

    fit(linear(8, 1, 0.5), cost, X * 200)


@program("aten.exp", "overflow")
def variance_from_its_logarithm(broken: bool) -> None:
    """The Kullback-Leibler term of a variational autoencoder in half precision."""

    def cost(z: torch.Tensor) -> torch.Tensor:
        s = z if broken else z.clamp(max=10)
        return (torch.exp(s) - s - 1).mean()

    fit(linear(8, 2, 0.5, torch.float16), cost, (X * 20).half())


@program("aten.pow", "overflow")
def squares_in_half_precision(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        z = z if broken else z.float() / 256
        return (z**2).mean()

    fit(linear(8, 4, 0.35, torch.float16), cost, (X * 900).half())


@program("aten.sum", "overflow")
def sum_in_half_precision(broken: bool) -> None:
    x = torch.ones(64, 8, dtype=torch.float16) * 64
    layer = linear(8, 256, dtype=torch.float16)
    nn.init.constant_(layer.weight, 0.05)

    def cost(z: torch.Tensor) -> torch.Tensor:
        return z.sum() if broken else z.mean()

    fit(layer, cost, x, lr=1e-2)


@program("aten.bmm aten.mm aten.matmul", "overflow")
def attention_scores_in_half_precision(broken: bool) -> None:
    layer = linear(64, 64, 0.125, torch.float16)
    x = (normal(2, 8, 64) * 60).half()

    def cost(q: torch.Tensor) -> torch.Tensor:
        scores = (q if broken else q / 4096) @ x.transpose(1, 2)
        return torch.softmax(scores, -1).pow(2).mean()

    fit(layer, cost, x)


@program("aten.prod aten.cumprod", "overflow")
def product_of_many(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        a = z.abs() + 3
        return torch.log(a.prod(1)).mean() if broken else torch.log(a).sum(1).mean()

    fit(linear(8, 120, 0.1), cost, X)


@program("aten.mul", "overflow")
def cubes_in_half_precision(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        z = z if broken else z.float() / 256
        return ((z * z) * z).abs().mean()

    fit(linear(8, 4, 0.35, torch.float16), cost, (X * 50).half(), lr=0.1)


@program("aten.mul", "overflow")
def gradient_beyond_half_precision(broken: bool) -> None:
    """The loss fits fp16, its gradient does not."""

    def cost(z: torch.Tensor) -> torch.Tensor:
        factor = 30000.0 if broken else 30.0
        return (z * factor).float().sum() * 8

    fit(linear(8, 2, 0.001, torch.float16), cost, (X * 1e-3).half(), lr=1e-2)
