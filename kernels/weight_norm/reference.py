"""Weight normalisation as people write it, and the stable formulas that stand in for the kernels on
a plain CPU.

Each of the first three computes y = x w^T + b with rows w = g v / ||v||; they say where they break.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import launch
from .scaling import halves, power_of_two

# --- as people write it ---------------------------------------------------------------------------


def naive(
    x: Tensor,  # (..., K)
    v: Tensor,  # (N, K)
    g: Tensor,  # (N, 1)
    bias: Tensor | None = None,  # (N,)
) -> Tensor:  # (..., N)
    """g v / sqrt(sum v**2), materialised.

    From sqrt(max / K) on (1.8e19 in fp32 for one element, 256 in fp16) the squares overflow and the
    weight is silently 0, gradient and all; where they underflow it is infinite, and a zero row is
    0 / 0. The norm of every row is computed again at every forward pass.
    """
    w = g * v / torch.sqrt((v * v).sum(dim=1, keepdim=True))
    return torch.nn.functional.linear(x, w, bias)


def textbook(x: Tensor, v: Tensor, g: Tensor, bias: Tensor | None = None) -> Tensor:
    """w = g v / ||v|| by torch's norm (Salimans & Kingma 2016, equation 2); shapes as in `naive`.

    Half precision accumulates in fp32, but the norm is rounded to the weight's dtype: in fp16 it is
    infinite above 65504 and the weight 0. fp32 breaks where `naive` does.
    """
    w = g * v / torch.linalg.vector_norm(v, dim=1, keepdim=True)
    return torch.nn.functional.linear(x, w, bias)


def torch_native(x: Tensor, v: Tensor, g: Tensor, bias: Tensor | None = None) -> Tensor:
    """What torch.nn.utils.parametrizations.weight_norm computes; shapes as in `naive`.

    Its operator breaks as `textbook` does: the norm overflows with the squares, the zero row is
    NaN.
    """
    w = torch._weight_norm(v, g, 0)
    return torch.nn.functional.linear(x, w, bias)


# --- the stable formulas --------------------------------------------------------------------------


def update_row_squares(v: Tensor, selected: Tensor, exponent: Tensor, square: Tensor) -> None:
    """What the kernel computes: the selected rows' exponent and square, in place."""
    rows = torch.nonzero(selected)[:, 0]  # a CPU tensor: nobody waits for a device
    if rows.numel() == 0:
        return
    wide = v[rows].to(launch.statistics_dtype(v.dtype))
    finite = torch.isfinite(wide)
    clean = torch.where(finite, wide, 0.0)
    largest = clean.abs().amax(dim=1) if v.shape[1] else clean.sum(dim=1)
    limit = 1022 if wide.dtype == torch.float64 else 126
    new = torch.where(largest == 0, -limit, torch.frexp(largest).exponent - 1)
    new = new.clamp(-limit, limit).to(torch.int32)
    z = (clean * power_of_two(-new, wide.dtype)[:, None]).to(launch.sum_dtype(v.dtype))
    total = z.square().sum(dim=1)
    odd = torch.where(wide.isnan().any(dim=1), torch.nan, torch.inf).to(total.dtype)
    exponent[rows] = new
    square[rows] = torch.where(finite.all(dim=1), total, odd).to(square.dtype)


def project(
    u: Tensor, v: Tensor, exponent: Tensor, along: Tensor, shift: Tensor, squared: bool
) -> tuple[Tensor, Tensor]:
    """What the kernel computes: d * 2**shift for d = u - along * v / 2**exponent, and the sums of
    d**2 where they are asked for.
    """
    scaled = v.to(u.dtype) * power_of_two(-exponent, u.dtype)[:, None]
    d = torch.addcmul(u, scaled, along[:, None], value=-1)
    squares = d.square().sum(dim=1) if squared else torch.zeros_like(along)
    first, second = halves(shift, d.dtype)
    d.mul_(first[:, None]).mul_(second[:, None])  # in place: d is of the weight's size
    return d.to(v.dtype), squares
