"""Timing a call on the GPU: CUDA events around it, the L2 cache flushed before."""

from __future__ import annotations

from collections.abc import Callable

import torch

from harness.errors import InputError

# Twice the largest L2 that these GPUs have (H200 50 MB, B200 126 MB), written over before each run.
_FLUSH_BYTES = 256 * 2**20


def require_gpu() -> None:
    """Raise InputError, in words, where there is no GPU to time on."""
    if not torch.cuda.is_available():
        raise InputError(
            "launch shapes are chosen by measuring them, which needs a GPU, and torch sees none;"
            " without one the built-in table applies; `stability inspect` shows what it compiles to"
        )


def timer() -> Callable[[Callable[[], object]], float]:
    """A function that runs a call once on the current GPU and returns its seconds there."""
    require_gpu()
    cache = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device="cuda")

    def seconds(call: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        cache.zero_()
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000.0

    return seconds
