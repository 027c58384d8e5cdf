"""Numbers about tensors: ranges, kinds of what is not finite, and the entries where it happened."""

import math
from typing import Any

import torch

from harness.diagnosis.finding import TensorRange
from harness.diagnosis.tape import is_checked

_SHORT = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
}


def short(dtype: torch.dtype) -> str:
    """ "fp16" for torch.float16; other dtypes by torch's name."""
    return _SHORT.get(dtype, str(dtype).removeprefix("torch."))


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all entries are finite; true of an empty tensor."""
    return bool(torch.isfinite(tensor.detach()).all())


def kinds(tensor: torch.Tensor) -> set[str]:
    """Which of "nan", "+inf", "-inf" occur."""
    tensor = tensor.detach()
    found = set()
    if bool(tensor.isnan().any()):
        found.add("nan")
    infinite = tensor[tensor.isinf()]
    if infinite.numel():
        found |= {"+inf"} if bool((infinite > 0).any()) else set()
        found |= {"-inf"} if bool((infinite < 0).any()) else set()
    return found


def range_of(tensor: torch.Tensor) -> TensorRange:
    """The tensor's numbers; waits for the device."""
    tensor = tensor.detach()
    finite = tensor[tensor.isfinite()]
    nonzero = finite[finite != 0].abs()
    return TensorRange(
        shape=tuple(tensor.shape),
        dtype=short(tensor.dtype),
        min=float(finite.min()) if finite.numel() else None,
        max=float(finite.max()) if finite.numel() else None,
        absmin_nonzero=float(nonzero.min()) if nonzero.numel() else None,
        zeros=int((tensor == 0).sum()),
        nonfinite=tensor.numel() - finite.numel(),
    )


def absmax(tensor: Any) -> float:
    """Largest finite magnitude; 0 for what has none."""
    if not isinstance(tensor, torch.Tensor):
        return abs(float(tensor)) if isinstance(tensor, (int, float)) else 0.0
    if not is_checked(tensor):
        return 0.0
    tensor = tensor.detach()
    finite = tensor[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def at_bad(
    value: Any,  # a tensor that broadcasts with `out`, or a number
    out: torch.Tensor,
) -> torch.Tensor | None:
    """The entries of `value`, in fp64, where `out` is not finite; None if shapes do not match."""
    bad = ~out.detach().isfinite()
    if isinstance(value, (int, float)):
        return torch.full((int(bad.sum()),), float(value), dtype=torch.float64)
    if not isinstance(value, torch.Tensor) or value.is_complex():
        return None
    try:
        spread = value.detach().to(torch.float64).expand(out.shape)
    except RuntimeError:
        return None
    return spread[bad]


def rounds_to_zero(number: float, dtype: torch.dtype) -> bool:
    """Whether a constant that is not zero is zero in the dtype."""
    return number != 0 and math.isfinite(number) and float(torch.tensor(number).to(dtype)) == 0
