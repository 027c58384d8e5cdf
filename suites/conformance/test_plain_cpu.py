"""On a plain CPU, without Triton's interpreter, the PyTorch formulas keep every promise, too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CALLS = {
    "cross_entropy": "lambda x, t: kernels.cross_entropy(x, t, reduction='none')",
    "binary_cross_entropy_with_logits": (
        "lambda x, t: kernels.binary_cross_entropy_with_logits(x, t, reduction='none')"
    ),
    "linear_cross_entropy": (
        "lambda x, w, t: kernels.linear_cross_entropy(x, w, t, reduction='none')"
    ),
    "normalize": "lambda x: kernels.normalize(x, dim=-1, eps=0.0)",
    "rms_norm": "lambda x, w, eps: kernels.rms_norm(x, x.shape[-1:], w, eps)",
    "layer_norm": "lambda x, w, b, eps: kernels.layer_norm(x, x.shape[-1:], w, b, eps)",
    "softmax": "lambda x: kernels.softmax(x)",
    "log_softmax": "lambda x: kernels.log_softmax(x)",
}


# A whole sweep each: of softmax and one norm in `make test`.
@pytest.mark.parametrize(
    "operation",
    [
        each if each in {"softmax", "normalize"} else pytest.param(each, marks=pytest.mark.full)
        for each in CALLS
    ],
)
def test_the_formula_keeps_every_claim(operation: str) -> None:
    """All regimes, dtypes and magnitudes of the sweep, forward and backward, with no Triton."""
    code = (
        "import kernels\n"  # before the harness, which would switch the interpreter on
        "from kernels import launch\n"
        "assert not launch.INTERPRETED\n"
        "import harness\n"
        f"harness.assert_stable({CALLS[operation]}, {operation!r})\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
