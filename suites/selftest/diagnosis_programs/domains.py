"""Functions outside their domain, cancellation under a root, degenerate matrices."""

import torch
from torch import nn

from suites.selftest.diagnosis_programs.program import fit, linear, normal, program

X = normal(12, 4)


@program("aten.sqrt", "cancellation")
def spread_as_difference_of_means(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        z = z * 0.001 + 1000
        if broken:
            v = (z * z).mean(0) - z.mean(0) ** 2
        else:
            v = (z - z.mean(0)).pow(2).mean(0) + 1e-6
        return torch.sqrt(v).mean()

    fit(linear(4, 16), cost, X)


@program("aten.sqrt", "domain_error")
def root_of_a_negative(broken: bool) -> None:
    fit(linear(4, 3), lambda z: torch.sqrt(z if broken else z.abs() + 1e-3).mean(), X)


@program("aten.log", "domain_error")
def logarithm_of_a_prediction(broken: bool) -> None:
    fit(linear(4, 3), lambda z: torch.log(z if broken else z.exp()).pow(2).mean(), X)


@program("aten.pow", "domain_error")
def power_of_a_negative(broken: bool) -> None:
    fit(linear(4, 3), lambda z: (z if broken else z.abs() + 0.1).pow(1.5).mean(), X)


@program("aten.acos", "domain_error")
def cosine_beyond_one(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        u = z / z.norm(dim=1, keepdim=True)
        c = (u * u).sum(1) * (1 + 1e-6)
        return torch.acos(c if broken else c * 0.999).mean()

    fit(linear(4, 3), cost, X)


@program("aten.linalg_inv_ex aten.inverse aten._linalg_slogdet", "degenerate_linalg")
def log_determinant_of_rank_one(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        v = z[:3]
        gram = v[:1].T @ v[:1] * 0 + (0.0 if broken else 1.0) * torch.eye(3)
        return torch.linalg.slogdet(gram + 0 * v.T @ v)[1] + z.mean()

    fit(linear(4, 3), cost, X)


@program("aten._linalg_eigh aten._linalg_svd", "degenerate_linalg")
def eigenvectors_of_equal_eigenvalues(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        a = torch.diag(torch.tensor([1.0, 1.0, 2.0]) if broken else torch.tensor([1.0, 1.5, 2.0]))
        _, vectors = torch.linalg.eigh(a + 0 * z[:3].T @ z[:3])
        return vectors[:, 0].pow(4).sum() + (vectors[0, 1] * vectors[1, 1]) + z.mean()

    fit(linear(4, 3), cost, X)


@program("aten._linalg_svd", "degenerate_linalg")
def singular_vectors_of_a_projection(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        a = torch.eye(3) if broken else torch.diag(torch.tensor([1.0, 2.0, 3.0]))
        u, _, _ = torch.linalg.svd(a + 0 * z[:3].T @ z[:3])
        return (u @ torch.arange(9.0).reshape(3, 3)).pow(2)[0, 1] + z.mean()

    fit(nn.Sequential(linear(4, 3)), cost, X)
