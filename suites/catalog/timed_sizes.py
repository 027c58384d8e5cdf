"""The shapes that people train with, an operation a line: what `stability run speed` times.

Rows are batch times sequence, 4k to 64k tokens. Columns are vocabularies in use (32,000 Llama 2,
50,257 GPT-2, 128,256 Llama 3, 151,936 Qwen, 262,144 Gemma) for losses, hidden widths from 1k to 64k
for norms. The `quick` size of each is the one that its kernels were tuned for. On a CPU sizes are
small: they compare torch's formulas with each other.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from harness.operation import Draws, Operation, Regime
from harness.timing.workload import Size, Workload
from suites.catalog import layouts

# Does a kernel slow down on large, peaked, masked or NaN-laden input? `normal` at 1 is measured
# anyway. 1e4 is finite in every dtype, and far beyond where the naive formulas break.
_LOSS_SLICE = (("normal", 1e4), ("peak", 1e4), ("masked", 1.0), ("nonfinite", 1.0))
_NORM_SLICE = (("normal", 1e4), ("peak", 1e4), ("nonfinite", 1.0))

LOSS = Workload(
    cuda=(
        Size(8192, 128_256, "quick"),
        Size(16_384, 32_000),
        Size(4096, 151_936),
        Size(4096, 262_144),
        Size(65_536, 50_257, "full"),
        Size(65_536, 128_256, "full"),
        Size(65_536, 262_144, "full"),
    ),
    cpu=(Size(64, 32_000, "quick"), Size(16, 128_256)),
    slice=_LOSS_SLICE,
)
NORM = Workload(
    cuda=(
        Size(16_384, 4096, "quick"),
        Size(65_536, 1024),
        Size(8192, 16_384),
        Size(4096, 65_536),
        Size(4096, 2048, "full"),
        Size(65_536, 8192, "full"),
        Size(16_384, 65_536, "full"),
    ),
    cpu=(Size(512, 4096, "quick"), Size(16, 65_536)),
    slice=_NORM_SLICE,
)
# Attention scores and a classifier's scores.
SOFTMAX = Workload(
    cuda=(
        Size(65_536, 4096, "quick"),
        Size(65_536, 1024),
        Size(8192, 128_256),
        Size(16_384, 32_000, "full"),
        Size(4096, 262_144, "full"),
    ),
    cpu=(Size(512, 4096, "quick"), Size(16, 128_256)),
    slice=_LOSS_SLICE,
)
# Element by element: width does not matter, size does.
ELEMENTWISE = Workload(
    cuda=(Size(65_536, 4096, "quick"), Size(4096, 4096), Size(65_536, 16_384, "full")),
    cpu=(Size(512, 4096, "quick"),),
    slice=(("normal", 1e4), ("nonfinite", 1.0)),
)


def _with_classes(operation: Operation, size: Size) -> Operation:
    """Linear cross-entropy with the size's vocabulary, judged by the bound for its width."""
    hidden, classes = size.columns, dict(size.options)["classes"]
    regime = Regime("normal", "Gaussian rows", _drawing(classes), shared=("linear_weight",))
    # As in the operation, whose factor is for 64: twice the (H + 1) u of a logit, and 2u.
    return replace(operation, regimes=(regime,), slack_factor=2.0 * (hidden + 1) + 2.0)


def _drawing(classes: int) -> Callable[[Draws], dict[str, np.ndarray]]:
    def draw(draws: Draws) -> dict[str, np.ndarray]:
        rows, hidden = draws.shape
        # 256 different classes, repeated: drawing half a billion would take longer than timing.
        some = draws.generator("linear_weight").standard_normal((min(classes, 256), hidden))
        some /= np.sqrt(hidden)  # logits of the size of 1
        return {
            "input": layouts.gaussian(draws),
            "linear_weight": some[np.arange(classes) % len(some)],
            "target": draws.generator("target").integers(0, classes, size=rows),
        }

    return draw


# Columns are the hidden width here.
LINEAR = Workload(
    cuda=(
        Size(8192, 4096, "quick", (("classes", 32_000),)),
        Size(8192, 2048, "default", (("classes", 128_256),)),
        Size(16_384, 4096, "full", (("classes", 128_256),)),
    ),
    cpu=(Size(64, 512, "quick", (("classes", 8000),)),),
    adapted=_with_classes,
)

speed_workloads = {
    "cross_entropy": LOSS,
    "linear_cross_entropy": LINEAR,
    "binary_cross_entropy_with_logits": ELEMENTWISE,
    "normalize": NORM,
    "rms_norm": NORM,
    "layer_norm": NORM,
    "softmax": SOFTMAX,
    "log_softmax": SOFTMAX,
}
