"""torch.compile: what Inductor makes of a formula, in Triton on a GPU and in C++ on a CPU.

Inductor keeps half precision in fp32 between the operations that it fuses, so a compiled formula
need not break where the same formula breaks eagerly. A dtype of an operation takes some seconds to
compile, once a machine: Inductor keeps what it compiled. So on a CPU it runs where
STABILITY_COMPILED is 1, and elsewhere unless that is 0.
"""

import importlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from suites.catalog.peers.imports import quiet

SWITCH = "STABILITY_COMPILED"  # 0: not now; 1: on a CPU, too

# As they were before anybody wrapped them, the harness included, which fills what they allocate
# with garbage: Inductor allocates while it compiles, and would trace the wrapping as well.
_ALLOCATORS = {
    (owner, name): getattr(owner, name)
    for owner, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (torch, "empty_strided"),
        (Tensor, "new_empty"),
    )
}


def of(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A formula as torch.compile runs it: whole, with dynamic shapes, compiled once a dtype.

    The result raises NotImplementedError where Inductor cannot compile: on a CPU without a C++
    compiler.
    """
    ready: set[object] = set()

    @wraps(formula)  # the harness reads the roles and options off the signature
    def run(*roles: Tensor, **options: Any) -> Tensor:
        _require_compiler(roles[0].device.type)
        dynamo = importlib.import_module("torch._dynamo")  # takes seconds, so not before
        kind = (*((role.dtype, role.dim()) for role in roles), *sorted(options.items()))
        # A dtype or an option is a new graph, and past a limit dynamo takes eager code instead.
        with quiet(), _allocating(), dynamo.config.patch(recompile_limit=1024):
            if kind not in ready:  # forward and backward, so that both are compiled in here
                trial = [role.detach().clone() for role in roles]
                loss = _compiled(formula)(trial[0].requires_grad_(), *trial[1:], **options)
                loss.sum().backward()
                ready.add(kind)
            return _compiled(formula)(*roles, **options)

    return run


@cache
def _compiled(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
    # dynamic=True: a bisection changes the number of rows with every launch. fullgraph=True: what
    # cannot be compiled is an error, never eager code under this name.
    return torch.compile(formula, dynamic=True, fullgraph=True)


@contextmanager
def _allocating() -> Iterator[None]:
    """torch's own allocating functions, whatever has been put in their place."""
    found = {key: getattr(*key) for key in _ALLOCATORS}
    try:
        for key, original in _ALLOCATORS.items():
            setattr(*key, original)
        yield
    finally:
        for key, replaced in found.items():
            setattr(*key, replaced)


def absent() -> bool:
    """Whether nothing is compiled on this machine, since it has no GPU and nobody asked."""
    return os.environ.get(SWITCH, "1" if torch.cuda.is_available() else "0") != "1"


def _require_compiler(device: str) -> None:
    if os.environ.get(SWITCH) == "0":
        raise NotImplementedError(f"switched off with {SWITCH}=0")
    if device != "cpu":
        return
    if absent():
        raise NotImplementedError(f"compiling for a CPU takes minutes: {SWITCH}=1 asks for it")
    named = os.environ.get("CXX")
    if not any(shutil.which(each) for each in ((named,) if named else ("g++", "clang++", "c++"))):
        raise NotImplementedError(
            "torch.compile needs a C++ compiler on the CPU: install g++ or name one in CXX"
        )


@of
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """torch.nn.functional.cross_entropy, compiled."""
    return F.cross_entropy(input, target, weight, reduction="none", label_smoothing=label_smoothing)


@of
def linear_cross_entropy(input: Tensor, linear_weight: Tensor, target: Tensor) -> Tensor:
    """The logits and torch's cross-entropy of them, compiled together."""
    return F.cross_entropy(F.linear(input, linear_weight), target, reduction="none")


@of
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
) -> Tensor:
    """torch.nn.functional.binary_cross_entropy_with_logits, compiled."""
    return F.binary_cross_entropy_with_logits(
        input, target, weight, reduction="none", pos_weight=pos_weight
    )


@of
def softmax(input: Tensor) -> Tensor:
    """torch.nn.functional.softmax along the last dimension, compiled."""
    return F.softmax(input, dim=-1)


@of
def log_softmax(input: Tensor) -> Tensor:
    """torch.nn.functional.log_softmax along the last dimension, compiled."""
    return F.log_softmax(input, dim=-1)


@of
def normalize(input: Tensor) -> Tensor:
    """torch.nn.functional.normalize along the last dimension, compiled."""
    return F.normalize(input, dim=-1)


@of
def rms_norm(input: Tensor, weight: Tensor, *, eps: float | None = None) -> Tensor:
    """torch.nn.functional.rms_norm over the last dimension, compiled."""
    return F.rms_norm(input, input.shape[-1:], weight, eps)


@of
def layer_norm(input: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5) -> Tensor:
    """torch.nn.functional.layer_norm over the last dimension, compiled."""
    return F.layer_norm(input, input.shape[-1:], weight, bias, eps)
