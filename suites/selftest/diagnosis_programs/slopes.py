"""Finite values with infinite slopes, and masks that hide them in forward only."""

import torch

from suites.selftest.diagnosis_programs.program import fit, linear, normal, program

X = normal(12, 4)
WITH_ZERO_ROW = torch.cat([torch.zeros(1, 4), X[1:]])


def bare(inputs: int, outputs: int) -> torch.nn.Linear:
    """A layer that maps 0 to 0."""
    layer = linear(inputs, outputs)
    layer.bias = None
    return layer


@program("aten.sqrt", "singular_gradient")
def length_of_a_zero_vector(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(z.pow(2).sum(1) + (0.0 if broken else 1e-12)).mean()

    fit(bare(4, 3), cost, WITH_ZERO_ROW)


@program("aten.sqrt", "singular_gradient")
def distance_to_oneself(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        d = (z[:, None] - z[None]).pow(2).sum(-1)
        return (d + (0.0 if broken else 1e-9)).sqrt().mean()

    fit(linear(4, 3), cost, X)


@program("aten.pow", "singular_gradient")
def small_power_of_zero(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        return (z.pow(2) + (0.0 if broken else 1e-6)).pow(0.25).mean()

    fit(bare(4, 3), cost, WITH_ZERO_ROW)


@program("aten.acos", "singular_gradient domain_error")
def angle_to_oneself(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        u = torch.nn.functional.normalize(z, dim=1)
        c = (u * u.detach()).sum(1).clamp(-1, 1)
        return torch.acos(c if broken else c * (1 - 1e-4)).mean()

    fit(linear(4, 3), cost, X)


@program("aten.sqrt", "singular_gradient")
def spread_of_equal_numbers(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        v = (z - z.mean(1, keepdim=True)).pow(2).mean(1)
        return (v + (0.0 if broken else 1e-8)).sqrt().mean()

    fit(bare(4, 3), cost, WITH_ZERO_ROW)


@program("aten.log", "masked_branch_gradient")
def logarithm_behind_where(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        p = z.pow(2)
        inner = p if broken else torch.where(p > 0, p, 1.0)
        return torch.where(p > 0, torch.log(inner), 0.0).mean()

    fit(bare(4, 3), cost, WITH_ZERO_ROW)


@program("aten.sqrt", "masked_branch_gradient")
def root_behind_indexing(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        s = z.pow(2).sum(1)
        keep = s > 0
        return (torch.sqrt(s)[keep] if broken else torch.sqrt(s[keep])).mean()

    fit(bare(4, 3), cost, WITH_ZERO_ROW)


@program("aten.exp", "masked_branch_gradient")
def exponential_behind_where(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        inner = z if broken else z.clamp(max=0)
        return torch.where(z > 0, z, torch.exp(inner) - 1).mean()

    fit(linear(4, 3, 100.0), cost, X, lr=1e-4)


@program("aten.div", "masked_branch_gradient")
def quotient_behind_where(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        d = z.pow(2)
        inner = d if broken else torch.where(d > 0, d, 1.0)
        return torch.where(d > 0, z / inner, 0.0).tanh().mean()

    fit(bare(4, 3), cost, WITH_ZERO_ROW)
