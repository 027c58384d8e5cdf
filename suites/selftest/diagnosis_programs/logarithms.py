"""Logarithms of zero: probabilities that rounded away."""

import torch
import torch.nn.functional as F

from suites.selftest.diagnosis_programs.program import fit, linear, normal, program

X = normal(16, 4) * 40
LABELS = (X[:, 0] > 0).long()
WRONG = 1 - LABELS
SIDE = (X[:, :1] > 0).float()


@program("aten.log", "log_of_zero")
def softmax_then_log(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(16)
        if broken:
            return -torch.log(torch.softmax(z, 1)[rows, WRONG]).mean()
        return -torch.log_softmax(z, 1)[rows, WRONG].mean()

    fit(linear(4, 2, 2.0), cost, X)


@program("aten.log", "log_of_zero")
def hand_written_binary_cross_entropy(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        if not broken:
            return F.binary_cross_entropy_with_logits(z, 1 - SIDE)
        p = torch.sigmoid(z)
        return -((1 - SIDE) * torch.log(p) + SIDE * torch.log(1 - p)).mean()

    fit(linear(4, 1, 5.0), cost, X)


@program("aten.log", "log_of_zero")
def entropy_of_a_sure_policy(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        p = torch.softmax(z, 1)
        return (p * (torch.log(p) if broken else torch.log_softmax(z, 1))).sum(1).mean()

    fit(linear(4, 3, 3.0), cost, X)


@program("aten.log", "epsilon_underflow")
def epsilon_lost_in_half_precision(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        p = torch.softmax(z, 1)
        chosen = p[torch.arange(16), WRONG]
        return -torch.log(chosen + (1e-9 if broken else 1e-4)).mean()

    fit(linear(4, 2, 1.0, torch.float16), cost, X.half())


@program("aten.log", "epsilon_underflow")
def clamp_lost_in_half_precision(broken: bool) -> None:
    def cost(z: torch.Tensor) -> torch.Tensor:
        p = torch.sigmoid(-z.abs())
        return -torch.log(p.clamp(min=1e-9 if broken else 1e-4)).mean()

    fit(linear(4, 1, 1.0, torch.float16), cost, X.half())


@program("aten.log", "log_of_zero")
def squashed_log_probability(broken: bool) -> None:
    """The correction of a tanh-squashed Gaussian policy, log(1 - tanh²)."""

    def cost(u: torch.Tensor) -> torch.Tensor:
        if broken:
            return torch.log(1 - torch.tanh(u) ** 2).mean()
        return (2 * (0.6931471805599453 - u - F.softplus(-2 * u))).mean()

    fit(linear(4, 2, 1.0), cost, X)


@program("aten.atanh", "domain_error log_of_zero")
def inverse_of_a_saturated_tanh(broken: bool) -> None:
    def cost(u: torch.Tensor) -> torch.Tensor:
        t = torch.tanh(u)
        return torch.atanh(t if broken else t.clamp(-1 + 1e-6, 1 - 1e-6)).pow(2).mean()

    fit(linear(4, 2, 1.0), cost, X)


@program("aten.xlogy aten.log", "log_of_zero")
def divergence_to_a_zero(broken: bool) -> None:
    """Kullback-Leibler divergence by hand, against a probability that rounded to 0."""
    target = torch.softmax(normal(16, 3, seed=2), 1)

    def cost(z: torch.Tensor) -> torch.Tensor:
        if broken:
            return (target * (target.log() - torch.softmax(z, 1).log())).sum(1).mean()
        return F.kl_div(torch.log_softmax(z, 1), target, reduction="batchmean")

    fit(linear(4, 3, 3.0), cost, X)
