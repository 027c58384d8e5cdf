"""The face of the library: its names, its examples, its light imports, and CPU use without the
interpreter.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import subprocess
import sys

import pytest
import torch

import kernels

# The function of each package, under its public name.
OPERATIONS = {
    "cross_entropy": ("cross_entropy", "cross_entropy_with_gradient"),
    "linear_cross_entropy": ("linear_cross_entropy",),
    "binary_cross_entropy": ("binary_cross_entropy_with_logits",),
    "softmax": ("softmax", "log_softmax"),
    "normalize": ("normalize",),
    "rms_norm": ("rms_norm",),
    "layer_norm": ("layer_norm",),
}
LAYERS = ("FastNormLinear", "WeightNormLinear")


def _python(code: str, **environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | environment
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_public_names() -> None:
    """The names of the contract are there, functions beside the packages of the same name."""
    assert kernels.__version__ == "0.1.0"
    for package, names in OPERATIONS.items():
        assert all(inspect.isfunction(getattr(kernels, name)) for name in names)
        assert inspect.ismodule(sys.modules[f"kernels.{package}"])
    assert all(issubclass(getattr(kernels, name), torch.nn.Module) for name in LAYERS)
    functions = {name for names in OPERATIONS.values() for name in names}
    assert set(kernels.__all__) == {"__version__", "attach_fastnorm", *LAYERS, *functions}


@pytest.mark.parametrize("package", list(OPERATIONS))
def test_docstring_examples(package: str) -> None:
    """The examples in the docstrings run and print what they say."""
    if torch.cuda.is_available():
        pytest.skip("the examples use CPU tensors")
    result = doctest.testmod(importlib.import_module(f"kernels.{package}"))
    assert result.attempted >= 3
    assert result.failed == 0


def test_reductions_follow_torch() -> None:
    """Parameters that torch has too come in torch's order with torch's defaults."""
    for name in (name for names in OPERATIONS.values() for name in names):
        if not hasattr(torch.nn.functional, name):
            continue  # linear_cross_entropy is younger than the oldest torch
        ours = inspect.signature(getattr(kernels, name)).parameters
        theirs = dict(inspect.signature(getattr(torch.nn.functional, name)).parameters)
        theirs.pop("_stacklevel", None)  # private
        if name.endswith("softmax"):  # a default that torch deprecates: it depends on the shape
            theirs["dim"] = ours["dim"]
        for parameter in ours.keys() & theirs.keys():
            assert ours[parameter].default == theirs[parameter].default, (name, parameter)
        shared = [p for p, v in ours.items() if p in theirs and v.kind is v.POSITIONAL_OR_KEYWORD]
        assert shared == list(theirs)[: len(shared)]


def test_imports_are_light() -> None:
    """`import kernels` brings neither pandas nor scipy, scikit-learn, matplotlib, ray or the
    harness.
    """
    code = "import sys, kernels; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = _python(code)
    for heavy in ("pandas", "scipy", "sklearn", "matplotlib", "ray", "harness", "suites", "pytest"):
        assert f"'{heavy}'" not in loaded


def test_plain_cpu_without_the_interpreter() -> None:
    """Without TRITON_INTERPRET, CPU tensors take the stable formula and give the same mean and
    gradient.
    """
    code = (
        "import torch, kernels\n"
        "from kernels import launch\n"
        "assert not launch.INTERPRETED\n"
        "x = torch.tensor([[0.0, 30.0], [1.0, -1.0]], requires_grad=True)\n"
        "loss = kernels.cross_entropy(x, torch.tensor([1, 0]), reduction='none')\n"
        "loss.sum().backward()\n"
        "print(*loss.tolist(), x.grad[0, 0].item())\n"
        "print(kernels.normalize(torch.full((1, 4), 1e38)).tolist())"
    )
    first, second = _python(code).splitlines()
    values = [float(v) for v in first.split()]
    assert values == pytest.approx(
        [9.357622968839299e-14, 0.1269280110429725, 9.3576e-14], rel=1e-4
    )
    assert second == "[[0.5, 0.5, 0.5, 0.5]]"
