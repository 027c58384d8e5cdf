"""Capturing Triton launches without a GPU: each is compiled for a named target, and nothing runs.

Triton's own front end does the work, told by a stand-in driver which GPU is there. So a kernel is
specialised as on that GPU: by the constants, the dtypes, the divisibility by 16 of its integers and
the alignment of its pointers (torch aligns CPU allocations to 64 bytes, CUDA ones to 512).
"""

import importlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from harness.errors import InputError

DEFAULT_TARGETS = ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942")


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch: what was asked of the GPU and the code it would have run."""

    kernel: str  # module and name, as `kernels.normalize.fused._forward_kernel`
    grid: tuple[int, ...]  # programs
    constants: dict[str, Any]  # the kernel's tl.constexpr parameters
    binary: Any  # triton's CompiledKernel: `asm` by language, `metadata`

    @property
    def key(self) -> tuple[object, ...]:
        """Launches of the same key run the same code over the same grid."""
        return self.kernel, self.grid, self.binary.hash


@dataclass(frozen=True, slots=True)
class Failure:
    """One launch whose kernel does not compile for the target."""

    kernel: str
    constants: dict[str, Any]
    reason: str


def target_named(text: str) -> Any:
    """Triton's GPUTarget for `cuda:90` or `hip:gfx942`.

    Raises:
        InputError: for any other form, an architecture that triton does not know, or where triton
            itself is missing.
    """
    backend, _, arch = text.partition(":")
    if backend == "cuda" and arch.isdecimal() and 70 <= int(arch) <= 150:
        return _gpu_target("cuda", int(arch), 32)
    if backend == "hip" and arch.startswith("gfx") and arch[3:].isalnum():
        # Wavefronts of 64 on gfx9 (CDNA), of 32 on the later ones that triton compiles for.
        return _gpu_target("hip", arch, 64 if arch.startswith("gfx9") else 32)
    raise InputError(
        f"unknown target {text!r}; a target is cuda:CAPABILITY or hip:ARCHITECTURE, such as "
        + ", ".join(DEFAULT_TARGETS)
    )


def _gpu_target(backend: str, arch: int | str, warp: int) -> Any:
    try:
        from triton.backends.compiler import GPUTarget
    except ImportError as error:
        raise InputError(f"kernels cannot be compiled: triton is missing ({error})") from error
    return GPUTarget(backend, arch, warp)


class _StandIn:
    """What triton's launch code asks of a driver, answered for a GPU that need not be there."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def get_current_device(self) -> str:
        # Triton keeps compiled kernels by device: another target must be another device.
        return f"{self.target.backend}:{self.target.arch}"

    def get_current_stream(self, device: object) -> int:
        return 0

    def get_current_target(self) -> Any:
        return self.target

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


@contextmanager
def compiled_launches(target: Any) -> Iterator[list[Launch | Failure]]:
    """Within this context every launch compiles its kernel for the target, and is listed once.

    Outputs stay as they were allocated. Of an autotuned kernel every candidate is listed.

    Raises:
        InputError: in Triton's interpreter, where kernels are Python functions.
    """
    import triton
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.jit import JITFunction

    if triton.knobs.runtime.interpret:
        raise InputError("kernels cannot be compiled with TRITON_INTERPRET set; unset it")
    # The submodule: `triton.runtime.driver`, as an attribute, is the object inside it.
    driver = importlib.import_module("triton.runtime.driver").driver
    found: list[Launch | Failure] = []
    seen: set[object] = set()
    run, bench, active = JITFunction.run, Autotuner._bench, driver._active

    def compile_instead(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        name = f"{kernel.fn.__module__}.{kernel.__name__}"
        bound = _bound(kernel, args, kwargs)
        constants = {p.name: bound[p.name] for p in kernel.params if p.is_constexpr}
        try:
            binary = run(kernel, *args, grid=grid, warmup=True, **kwargs)
        except Exception as error:  # noqa: BLE001 - a compiler's refusal is what we report
            found.append(Failure(name, constants, _sentence(error)))
            return None
        launch = Launch(name, _numbers(grid(bound) if callable(grid) else grid), constants, binary)
        if launch.key not in seen:
            seen.add(launch.key)
            found.append(launch)
        return binary

    def each_candidate(self: Any, *args: Any, config: Any, **meta: Any) -> list[float]:
        self.fn.run(*args, **dict(meta, **config.all_kwargs()))
        return [1.0, 1.0, 1.0]

    try:
        driver.set_active(_StandIn(target))
        JITFunction.run, Autotuner._bench = compile_instead, each_candidate
        yield found
    finally:
        JITFunction.run, Autotuner._bench, driver._active = run, bench, active


def _bound(kernel: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The kernel's parameters by name; what else was given are the compiler's options."""
    signature: inspect.Signature = kernel.signature
    named = {name: value for name, value in kwargs.items() if name in signature.parameters}
    bound = signature.bind(*args, **named)
    bound.apply_defaults()
    return dict(bound.arguments)


def _numbers(grid: Any) -> tuple[int, ...]:
    return tuple(int(each) for each in (grid if isinstance(grid, (tuple, list)) else (grid,)))


def _sentence(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]
