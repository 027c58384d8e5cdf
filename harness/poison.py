"""Memory as a kernel finds it: every torch.empty filled with a bit pattern no computation gives."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# Quiet NaNs with a payload of our own. An element that still holds these very bits was never
# written; an element computed from them is NaN and is judged as such. Two patterns, so that a
# second run starts from different garbage.
PATTERNS: dict[torch.dtype, tuple[int, int]] = {
    torch.float16: (0x7E5A, 0x7EA5),
    torch.bfloat16: (0x7FDA, 0x7FE5),
    torch.float32: (0x7FDEAD5A, 0x7FDEADA5),
    torch.float64: (0x7FFDEADBEEF05A5A, 0x7FFDEADBEEF0A5A5),
}
_VIEW = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits_of(value: Tensor) -> Tensor:
    """The bit patterns of a floating or integer tensor, as signed integers."""
    value = value.detach().contiguous()
    if not value.is_floating_point():
        return value
    return value.view(_VIEW[value.element_size()])


def fill(value: Tensor, which: int) -> Tensor:
    """Poison a float tensor in place and return it; other dtypes are left alone."""
    if value.dtype in PATTERNS and value.numel():
        pattern = torch.tensor(PATTERNS[value.dtype][which], dtype=_VIEW[value.element_size()])
        with torch.no_grad():
            value.copy_(pattern.view(value.dtype).to(value.device).expand_as(value))
    return value


def unwritten(value: Tensor, which: int) -> Tensor:
    """Which elements still hold the poison: a bool tensor of the same shape."""
    if value.dtype not in PATTERNS:
        return torch.zeros_like(value, dtype=torch.bool)
    return bits_of(value) == PATTERNS[value.dtype][which]


@contextmanager
def poisoned(which: int) -> Iterator[None]:
    """Within, memory that Python code asks of torch uninitialised comes poisoned.

    Covers torch.empty, empty_like, empty_strided and Tensor.new_empty, which is how Triton kernels
    get their outputs, on every thread (CUDA's backward runs on its own). Not covered: allocations
    inside torch's compiled operators, and names bound with `from torch import empty`.
    """
    saved: list[tuple[Any, str, Callable[..., Tensor]]] = []

    def patch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def allocate(*args: Any, **kwargs: Any) -> Tensor:
            return fill(original(*args, **kwargs), which)

        saved.append((owner, name, original))
        setattr(owner, name, allocate)

    for owner, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (torch, "empty_strided"),
        (torch.Tensor, "new_empty"),
    ):
        patch(owner, name)
    try:
        yield
    finally:
        for owner, name, original in saved:
            setattr(owner, name, original)
