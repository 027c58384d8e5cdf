"""The kernels that the interpreter runs also compile for real GPUs, with none present."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KERNELS = {
    f"kernels.{operation}.{kernel}"
    for operation in ("cross_entropy", "binary_cross_entropy", "normalize")
    for kernel in ("_forward_kernel", "_backward_kernel")
}


def compiled(target: str, dtypes: str) -> list[dict[str, object]]:
    """What compiling everything for a target printed, a line a kernel and launch shape."""
    # Without the interpreter's switch: there, kernels are Python and cannot be compiled.
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "suites.conformance.compile_all", target, dtypes],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    # Hopper in the sample, one dtype of each kind of statistics (fp32, fp64); every dtype on every
    # architecture that the project names in the nightly run.
    ("target", "dtypes"),
    [
        ("cuda:90", "bf16,fp64"),
        *(
            pytest.param(target, "fp16,bf16,fp32,fp64", marks=pytest.mark.full)
            for target in ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")
        ),
    ],
)
def test_every_kernel_compiles(target: str, dtypes: str) -> None:
    """Forward and backward of every operation become machine code for the target."""
    found = compiled(target, dtypes)
    for dtype in dtypes.split(","):
        assert {line["kernel"] for line in found if line["dtype"] == dtype} == KERNELS
    assert all(int(str(line["bytes"])) > 1000 for line in found)
