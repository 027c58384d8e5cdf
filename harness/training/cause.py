"""Why a run went bad, as far as numbers of that step alone tell; the words are the diagnosis's."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Evidence:
    """The step at which a run first went bad. A number is None where it could not be had."""

    phase: str  # "forward", "backward", "optimizer"
    outputs_finite: bool  # what the model handed to the cost
    loss_nan: bool
    largest_output: float | None  # of the logits, by absolute value
    exponentials: bool  # the cost may take exp of them: several classes, where sigmoid is safe
    zero_targets: int  # rows whose target has a probability of exactly 0
    zero_others: int  # rows where another class has, and the cost multiplies its logarithm by 0
    zero_vectors: int  # rows of length exactly 0, where the cost divides by the length
    gradient_nan: bool
    weight_growth: float  # norm of the parameters over that at the start
    storage: torch.dtype
    logits: torch.dtype
    adaptive: bool  # the optimiser divides by a root and an epsilon


# Weights that grew this much carry the rest with them: the rate is too high, not the formula wrong.
_GREW = 30.0


def cause_of(seen: Evidence) -> str:
    """One word of the contract's list.

    A probability of exactly 0 at the target is log_of_zero. A logit above ln(largest float) makes
    exp overflow. Of two outcomes, where people write y log(p) + (1 - y) log(1 - p), the other one's
    exact 0 is masked_times_zero. NaN from finite outputs without these is a domain_error.
    """
    if seen.phase == "optimizer":
        # The squared gradient rounds to 0, eps = 1e-8 with it, and 0 / 0 is NaN.
        if seen.adaptive and seen.storage == torch.float16:
            return "epsilon_underflow"
        return "divergence"
    if seen.phase == "forward" and not seen.outputs_finite:
        return "divergence" if seen.weight_growth > _GREW else "overflow"
    if seen.zero_vectors:
        return "division_by_zero" if seen.phase == "forward" else "singular_gradient"
    limit = math.log(torch.finfo(seen.logits).max) if seen.exponentials else math.inf
    beyond = (seen.largest_output or 0.0) > limit
    if seen.phase == "forward":
        if seen.loss_nan and beyond:
            return "overflow"
        if seen.zero_targets:
            return "log_of_zero"
        if seen.zero_others:
            return "masked_times_zero"
        return "overflow" if beyond or not seen.loss_nan else "domain_error"
    if beyond:
        return "overflow"
    return "singular_gradient" if seen.gradient_nan or seen.zero_targets else "overflow"
