"""Log-softmax: y_i = x_i - log sum_j exp(x_j) along the last dimension."""

import math
from typing import Any

import torch
from torch import Tensor

import kernels
from harness.operation import ALL_CLAIMS, UPSTREAM, Operation, Path, Roles
from kernels.softmax import reference
from suites.catalog import peers
from suites.catalog.softmax import REGIMES, certified_powers, powers_and_rest
from suites.catalog.triton_path import on_triton


def _truth(roles: Roles) -> dict[str, Tensor]:
    """y = (x - m) - log1p(rest), of which no term is positive, and dx = g - softmax(x) sum g.

    `rest` is the sum of exp(x_j - m) but for one entry at the maximum, see `powers_and_rest`.
    """
    logits, g = roles["input"], roles[UPSTREAM]
    powers, top, rest = powers_and_rest(logits)
    return {
        "forward": (logits - top) - torch.log1p(rest),
        "backward": g - powers / (1 + rest) * g.sum(dim=1, keepdim=True),
    }


def _certified(row: dict[str, Any]) -> dict[str, list[Any]]:
    """The same formulas in ball arithmetic; a masked column (-inf) is -inf by definition."""
    from flint import arb

    powers, top, rest = certified_powers(row["input"])
    normalizer = rest.log1p()
    forward = [x if x == -math.inf else (arb(x) - top) - normalizer for x in row["input"]]
    g = [arb(v) for v in row[UPSTREAM]]
    total = sum(g, arb(0))
    backward = [v - p / (1 + rest) * total for v, p in zip(g, powers, strict=True)]
    return {"forward": forward, "backward": backward}


def _slack(roles: Roles) -> dict[str, Tensor]:
    """The terms that cancel in the gradient: |g| + softmax(x) sum |g|. Forward has none."""
    powers, _, rest = powers_and_rest(roles["input"])
    size = roles[UPSTREAM].abs()
    terms = size + powers / (1 + rest) * size.sum(dim=1, keepdim=True)
    return {"forward": torch.zeros_like(terms), "backward": terms}


def _triton(input: Tensor) -> Tensor:
    return kernels.log_softmax(on_triton(input))


LOG_SOFTMAX = Operation(
    name="log_softmax",
    meaning="logarithms of probabilities: x_i - log sum exp(x)",
    truth=_truth,
    certified=_certified,
    slack=_slack,
    # Backward only: g_i - p_i sum g, in u of the statistics. p errs by 4.2 (see `softmax`), the
    # sum, their product and the difference by 1 each: 7.2, of which the 2 ULP cover 0.2.
    slack_factor=7.0,
    regimes=REGIMES,
    paths=(
        Path("naive", reference.log_naive, note="exp, divide, log"),
        Path("softmax_log", reference.softmax_log, note="torch.softmax, then log"),
        Path("epsilon", reference.log_epsilon, note="log(softmax + 1e-9), the quick fix"),
        Path("logsumexp", reference.log_of_sum, note="x - torch.logsumexp(x)"),
        Path("torch", reference.log_torch_native, note="torch.log_softmax"),
        Path("triton", _triton, claims=ALL_CLAIMS, note="kernels.log_softmax"),
        *peers.paths("log_softmax"),
    ),
)
