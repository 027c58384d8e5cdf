"""Masks: rows with nothing left, infinities times zero."""

import torch
import torch.nn.functional as F

from suites.selftest.diagnosis_programs.program import fit, linear, normal, program

X = normal(6, 8)
NONE_LEFT = torch.zeros(6, 5, dtype=torch.bool)
NONE_LEFT[2] = True  # this row is masked wholly
SOME_LEFT = NONE_LEFT.clone()
SOME_LEFT[2, 0] = False
INF = float("inf")


@program("aten._softmax", "fully_masked")
def attention_with_an_empty_row(broken: bool) -> None:
    mask = NONE_LEFT if broken else SOME_LEFT
    fit(linear(8, 5), lambda z: torch.softmax(z.masked_fill(mask, -INF), 1).pow(2).mean(), X)


@program("aten._softmax", "fully_masked")
def empty_row_thrown_away_later(broken: bool) -> None:
    """The rows are dropped in forward, and come back in backward."""

    def cost(z: torch.Tensor) -> torch.Tensor:
        bias = torch.zeros(6, 5).masked_fill(NONE_LEFT, -INF if broken else -1e4)
        p = torch.softmax(z + bias, 1)
        return torch.nan_to_num(p).pow(2).mean() if broken else p.pow(2).mean()

    fit(linear(8, 5), cost, X)


@program("aten._softmax", "fully_masked")
def lowest_number_plus_a_score(broken: bool) -> None:
    lowest = torch.finfo(torch.float16).min

    def cost(z: torch.Tensor) -> torch.Tensor:
        bias = NONE_LEFT.half() * (lowest if broken else lowest / 2)
        return torch.softmax(z.half() + bias + bias * 0.01, 1).float().pow(2).mean()

    fit(linear(8, 5), cost, X - 40)


@program("aten.logsumexp", "fully_masked")
def log_sum_of_nothing(broken: bool) -> None:
    mask = NONE_LEFT if broken else SOME_LEFT
    fit(linear(8, 5), lambda z: torch.logsumexp(z.masked_fill(mask, -INF), 1).mean(), X)


@program("aten.mul", "masked_times_zero")
def soft_target_against_a_mask(broken: bool) -> None:
    """0 · log(0): the target gives the masked class no weight, and that is not enough."""
    mask = torch.zeros(6, 5, dtype=torch.bool)
    mask[:, 4] = True
    target = torch.tensor([0.25, 0.25, 0.25, 0.25, 0.0])

    def cost(z: torch.Tensor) -> torch.Tensor:
        q = torch.log_softmax(z.masked_fill(mask, -INF), 1)
        return -(target * q if broken else (target * q.masked_fill(mask, 0.0))).sum(1).mean()

    fit(linear(8, 5), cost, X)


@program("aten.nll_loss_forward", "bad_target")
def label_of_a_masked_class(broken: bool) -> None:
    mask = torch.zeros(6, 5, dtype=torch.bool)
    mask[:, 4] = True
    labels = torch.tensor([0, 1, 2, 3, 4 if broken else 3, 0])
    fit(linear(8, 5), lambda z: F.cross_entropy(z.masked_fill(mask, -INF), labels), X)


@program("aten.sub", "fully_masked")
def softmax_by_hand_with_an_empty_row(broken: bool) -> None:
    mask = NONE_LEFT if broken else SOME_LEFT

    def cost(z: torch.Tensor) -> torch.Tensor:
        z = z.masked_fill(mask, -INF)
        e = torch.exp(z - z.amax(1, keepdim=True))
        return (e / e.sum(1, keepdim=True)).pow(2).mean()

    fit(linear(8, 5), cost, X)
