"""Kernels that nobody here wrote, side by side with ours: `peers.paths("cross_entropy")`.

A library a file, a function an operation, under the signature of the operation's roles. Nothing is
imported before a path runs. What is not installed, or cannot run on this device, is recorded as
`unsupported` with the reason.
"""

from collections.abc import Callable
from functools import partial, wraps
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from torch import Tensor

from harness.operation import Path
from suites.catalog.peers import (
    apex,
    compiled,
    flag_gems,
    flash_attention,
    liger,
    quack,
    transformer_engine,
    unsloth,
)

# Path name -> where its functions are, the distribution that has them, and what it is.
LIBRARIES: dict[str, tuple[ModuleType, str, str]] = {
    "compiled": (compiled, "torch", "torch's own, through torch.compile"),
    "liger": (liger, "liger-kernel", "Liger's fused Triton kernel"),
    "flash_attn": (flash_attention, "flash-attn", "flash-attn's Triton kernel"),
    "te": (transformer_engine, "transformer-engine", "TransformerEngine's Triton kernel"),
    "flag_gems": (flag_gems, "flag-gems", "FlagGems' Triton kernel"),
    "quack": (quack, "quack-kernels", "quack's CuTe kernel"),
    "apex": (apex, "apex", "apex's CUDA kernel"),
    "unsloth": (unsloth, "unsloth", "unsloth's Triton kernel"),
}
# Known to write over the logits it is given; recorded, and no verdict.
_OVERWRITES = {("liger", "cross_entropy")}
# A program a row: a millisecond each in the interpreter, so bisections take one magnitude a launch.
_ROW_BY_ROW = {"liger", "flash_attn", "te", "unsloth"}


def _declining(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same function; what Triton's interpreter itself cannot run, a GPU may: unsupported."""

    @wraps(function)  # the harness reads the roles and options off the signature
    def run(*roles: Tensor, **options: Any) -> Tensor:
        try:
            return function(*roles, **options)
        except Exception as error:
            if type(error).__name__ != "InterpreterError":
                raise
            told = f"Triton's interpreter cannot run it: {error}"
            raise NotImplementedError(told) from error

    return run


def _absent(package: str) -> bool:
    """Whether a library is not there at all."""
    module = {"quack-kernels": "quack"}.get(package, package.replace("-", "_"))
    return find_spec(module) is None


def paths(operation: str) -> tuple[Path, ...]:
    """One path for each library that has the operation, to stand beside the catalog's own."""
    found = []
    for name, (module, package, note) in LIBRARIES.items():
        function: Callable[..., Tensor] | None = getattr(module, operation, None)
        if function is not None:
            found.append(
                Path(
                    name,
                    _declining(function),
                    overwrites_input=(name, operation) in _OVERWRITES,
                    launch_magnitudes=1 if name in _ROW_BY_ROW else 31,
                    note=note,
                    package=package,
                    absent=compiled.absent if module is compiled else partial(_absent, package),
                )
            )
    return tuple(found)
