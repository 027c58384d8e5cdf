"""Compile every kernel that the library launches, for a GPU that need not be there.

    python -m suites.conformance.compile_all cuda:90 fp16,fp32

Calls the user's functions on CPU tensors with launches diverted into `triton.compile`, so that what
is compiled is what a GPU would be given: the same kernel, constants, tile and options. Prints one
JSON line a kernel: name, dtype, target, size of the binary.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

import kernels
from kernels import launch

_DTYPES = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp64": torch.float64,
}
_POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.bool: "*i1",
}
_BINARIES = {"cuda": "cubin", "hip": "hsaco"}


def target_named(text: str) -> GPUTarget:
    """`cuda:90`, `hip:gfx942`."""
    backend, _, arch = text.partition(":")
    return GPUTarget(
        backend, int(arch) if arch.isdecimal() else arch, 64 if backend == "hip" else 32
    )


def divert(target: GPUTarget, report: Callable[[str, Any], None]) -> None:
    """From here on a launch compiles its kernel for the target and runs nothing."""

    def launcher(kernel: Any, grid: Any) -> Callable[..., None]:
        def compile_instead(*args: Any, **kwargs: Any) -> None:
            where = kernel.fn.__module__.removesuffix(".fused")
            report(f"{where}.{kernel.__name__}", compiled(kernel, target, args, kwargs))

        return compile_instead

    JITFunction.__getitem__ = launcher  # type: ignore[method-assign]
    launch.uses_triton = lambda tensor: True


def compiled(kernel: Any, target: GPUTarget, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`triton.compile` of a kernel for the arguments of one launch."""
    given = dict(zip(kernel.arg_names, args, strict=False))
    given |= {name: value for name, value in kwargs.items() if name in kernel.arg_names}
    options = {name: value for name, value in kwargs.items() if name not in kernel.arg_names}
    constants = {p.name for p in kernel.params if p.is_constexpr}
    signature = {
        name: "constexpr" if name in constants else _type_of(given[name])
        for name in kernel.arg_names
    }
    constexprs = {(kernel.arg_names.index(name),): given[name] for name in constants}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs)
    return triton.compile(source, target=target, options=options)


def _type_of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return _POINTERS[value.dtype]
    if isinstance(value, bool):
        return "i1"
    if isinstance(value, int):
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    return "fp32"


def call_everything(dtype: torch.dtype) -> None:
    """Each function forward and backward: a short row and one wider than a tile."""
    for columns in (64, 50_257):
        logits = torch.zeros(8, columns, dtype=dtype, requires_grad=True)
        target = torch.zeros(8, dtype=torch.int64)
        kernels.cross_entropy(logits, target, reduction="none").sum().backward()
        kernels.normalize(logits, dim=-1).sum().backward()
    flat = torch.zeros(10_000, dtype=dtype, requires_grad=True)
    kernels.binary_cross_entropy_with_logits(flat, torch.zeros_like(flat)).backward()


def main() -> None:
    """Compile for the target and dtypes named on the command line."""
    target_name, dtypes = sys.argv[1], sys.argv[2].split(",")
    target = target_named(target_name)
    current = ""

    def report(name: str, binary: Any) -> None:
        size = len(binary.asm[_BINARIES[target.backend]])
        line = {"kernel": name, "dtype": current, "target": target_name, "bytes": size}
        print(json.dumps(line), flush=True)

    divert(target, report)
    for dtype in dtypes:
        current = dtype
        call_everything(_DTYPES[dtype])


if __name__ == "__main__":
    main()
