"""What a run was measured on and with: enough to know whether two runs may be compared."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.errors import InputError

# Packages whose version can change a number in a record.
_PACKAGES = ("torch", "triton", "numpy", "python-flint", "liger-kernel", "pytest")
# Switches that change numerics or how kernels are built; recorded when set.
_SWITCHES = ("TRITON_", "TORCH_", "NVIDIA_TF32_OVERRIDE", "CUDA_VISIBLE_DEVICES", "CUBLAS_")


def choose_device(asked: str | None) -> str:
    """Settle on "cuda" or "cpu", and on the CPU switch Triton's interpreter on.

    Must run before triton is imported: the interpreter is chosen when a kernel is defined.

    Raises:
        InputError: for CUDA where there is none, a device that is neither, or when triton was
            already imported for a GPU.
    """
    import torch

    if asked not in (None, "cpu", "cuda"):
        raise InputError(f"unknown device {asked!r}; choose from: cpu, cuda")
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise InputError(
            "CUDA was asked for, but torch sees no CUDA device; check nvidia-smi and the torch"
            " build, or use --device cpu (Triton's interpreter)"
        )
    device = asked or ("cuda" if available else "cpu")
    if device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
        knobs = sys.modules.get("triton.knobs")
        if knobs is not None and not knobs.runtime.interpret:  # pragma: no cover - order of imports
            raise InputError(
                "triton was imported before the harness could switch its interpreter on;"
                " set TRITON_INTERPRET=1 in the environment"
            )
    return device


def device_name(device: str) -> str:
    """A short name for directories: `cpu-interpreter`, or as in `nvidia-h200`."""
    if device == "cpu":
        return "cpu-interpreter"
    import torch

    words = torch.cuda.get_device_name().lower().split()
    return "-".join(["nvidia", *[word for word in words if word != "nvidia"]][:2])


def describe(device: str, packages: Iterable[str] = ()) -> dict[str, Any]:
    """Versions, device, driver, switches, git commit: everything but what was asked of the run.

    `packages` are distributions whose paths the run measures, beside those that are always named.
    """
    import torch

    named = dict.fromkeys((*_PACKAGES, *packages))
    environment: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "node": platform.node(),
        "versions": {name: version for name in named if (version := _version(name))},
        "device": {"kind": device, "name": device_name(device)},
        "switches": {
            "allow_tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "flush_denormal": _flushes_denormals(),
            **{key: os.environ[key] for key in sorted(os.environ) if key.startswith(_SWITCHES)},
        },
        "git": _git(),
    }
    if device == "cuda":
        environment["device"] |= _cuda_device()
    else:
        environment["device"] |= {"model": _cpu_model(), "threads": torch.get_num_threads()}
    return environment


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _flushes_denormals() -> bool:
    import torch

    return bool((torch.tensor(1e-40) * 1.0 == 0.0).item())


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cuda_device() -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(0)
    found: dict[str, Any] = {
        "model": properties.name,
        "uuid": str(getattr(properties, "uuid", "")),
        "capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
    }
    query = "driver_version,clocks.sm,clocks.mem,clocks.max.sm"
    answer = _output(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "--id=0"])
    if answer:
        names = ("driver", "clock_sm", "clock_memory", "clock_sm_max")
        found |= dict(zip(names, (part.strip() for part in answer.split(",")), strict=False))
    return found


def _git() -> dict[str, Any]:
    here = str(Path(__file__).resolve().parent)
    commit = _output(["git", "-C", here, "rev-parse", "HEAD"])
    if not commit:
        return {}
    dirty = _output(["git", "-C", here, "status", "--porcelain", "--untracked-files=no"])
    return {"commit": commit, "dirty": bool(dirty)}


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
