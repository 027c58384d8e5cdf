"""Cross-entropy: L = log sum_j exp(x_j - x_y), one loss a row; and with every option of it."""

from torch import Tensor

import kernels
from harness.operation import ALL_CLAIMS, Operation, Path
from kernels.cross_entropy import reference
from suites.catalog import peers
from suites.catalog.cross_entropy_regimes import REGIMES
from suites.catalog.cross_entropy_truth import certified, slack, truth
from suites.catalog.triton_path import on_triton


def _triton(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> Tensor:
    return kernels.cross_entropy(
        on_triton(input),
        target,
        weight,
        reduction="none",
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap,
    )


CROSS_ENTROPY = Operation(
    name="cross_entropy",
    meaning="log-softmax and negative log-likelihood of one class a row, or of probabilities",
    truth=truth,
    certified=certified,
    slack=slack,
    slack_factor=1.0,  # the multiples are derived where the slack is, option by option
    regimes=REGIMES,
    paths=(
        Path("naive", reference.naive, note="exp, divide by the sum, log, pick"),
        Path("softmax_log", reference.softmax_log, note="torch.softmax, then log"),
        Path("clamped", reference.clamped, note="log(max(p, 1e-9)), the quick fix"),
        Path("epsilon", reference.epsilon, note="log(p + 1e-8), the other quick fix"),
        Path("nan_to_num", reference.nan_to_num, note="the naive loss, NaN replaced by 0"),
        Path("torch", reference.torch_native, note="torch.nn.functional.cross_entropy"),
        Path("triton", _triton, claims=ALL_CLAIMS, note="kernels.cross_entropy"),
        *peers.paths("cross_entropy"),
    ),
)
