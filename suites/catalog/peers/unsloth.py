"""unsloth: Triton kernels in a package whose import patches torch, triton and transformers.

The patches would change the paths that are measured beside it, so it is imported only where it is
asked for: with STABILITY_UNSLOTH=1, best in a run of its own (`stability run --path unsloth`). On
a CPU it wants UNSLOTH_ALLOW_CPU=1 as well, its own switch; its norms and its cross-entropy then run
in the interpreter.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kernels import launch
from suites.catalog.peers.imports import function, require, triton_adapter

SWITCH = "STABILITY_UNSLOTH"


@triton_adapter
def cross_entropy(
    input: Tensor,  # (N, C)
    target: Tensor,  # (N,)
    *,
    softcap: float | None = None,
) -> Tensor:  # (N,)
    """Fast_CrossEntropyLoss, below fast_cross_entropy_loss, which returns only the mean."""
    apply = _apply("unsloth.kernels.cross_entropy_loss", "Fast_CrossEntropyLoss")
    return apply(input, target, softcap or 0, 0)


@triton_adapter
def rms_norm(input: Tensor, weight: Tensor, *, eps: float | None = None) -> Tensor:
    """Fast_RMS_Layernorm; `eps=None` is the input dtype's, as in torch."""
    epsilon = torch.finfo(input.dtype).eps if eps is None else eps
    return _apply("unsloth.kernels.rms_layernorm", "Fast_RMS_Layernorm")(
        input, weight, epsilon, False
    )


@triton_adapter
def layer_norm(input: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Fast_Layernorm over the last dimension."""
    return _apply("unsloth.kernels.layernorm", "Fast_Layernorm")(input, weight, bias, eps)


def _apply(module: str, name: str) -> Callable[..., Any]:
    require("unsloth")
    if os.environ.get(SWITCH) != "1":
        raise NotImplementedError(
            "importing unsloth patches torch for the whole process; to measure it, set"
            f" {SWITCH}=1 and run it alone with --path unsloth"
        )
    fused = function(module, name)
    if launch.INTERPRETED:
        _let_interpreter_cast(fused)
    return fused.apply  # type: ignore[attr-defined,no-any-return]


def _let_interpreter_cast(fused: Callable[..., Any]) -> None:
    """Its alias of tl.cast, made at import, escapes the interpreter, which replaces tl's own."""
    names = vars(__import__(fused.__module__, fromlist=["*"]))
    if "triton_cast" in names:
        names["triton_cast"] = lambda value, dtype: (
            value if isinstance(value, int) else value.to(dtype)
        )
