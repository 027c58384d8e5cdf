"""A linear layer with weight normalisation, the norms computed at every forward pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .. import launch
from .fused import row_squares
from .product import Monitor, WeightNormProduct
from .scaling import shifted

# torch 2.11 compiles `WeightNormProduct` to gradients that are all zero; 2.13 to the right ones.
COMPILES = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 13)


class WeightNormLinear(nn.Module):
    """y = x w^T + bias with rows w = g v / ||v||; the normalised weight itself is never made.

    Args:
        in_features, out_features: K and N.
        bias: whether to add one.
        device, dtype: of the parameters; fp16, bf16, fp32 or fp64.

    Parameters, named and shaped as torch.nn.utils.weight_norm does: `weight_g` (N, 1), `weight_v`
    (N, K), `bias` (N,). They start as nn.Linear's would from the same seed: v is its weight and g
    its row norms.

    Rows of v may have any size that the dtype holds (rows of one layer within 2**100 of each other,
    see `kernels.weight_norm.product`): norms are taken after scaling by powers of two, so no square
    overflows or vanishes. A zero row's direction is zero, its output the bias, and by policy the
    gradient of its v zero. Norms are held in fp32 (fp64 for fp64). Under autocast the product is in
    autocast's dtype and the norm is still the stored weight's.

    >>> layer = WeightNormLinear(3, 2, bias=False)
    >>> _ = layer.weight_v.data.copy_(torch.tensor([[3e30, 0.0, 4e30], [0.0, 0.0, 0.0]]))
    >>> _ = layer.weight_g.data.fill_(10.0)
    >>> layer(torch.tensor([1.0, 1.0, 0.0])).detach()
    tensor([6., 0.])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not launch.is_supported(dtype or torch.get_default_dtype()):
            raise TypeError(f"dtype must be fp16, bf16, fp32 or fp64, got {dtype}")
        self.in_features = in_features
        self.out_features = out_features
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight_g = nn.Parameter(torch.empty(out_features, 1, **options))
        self.weight_v = nn.Parameter(torch.empty(out_features, in_features, **options))
        self.bias = nn.Parameter(torch.empty(out_features, **options)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """nn.Linear's initial values, split into direction and norm."""
        bound = 1.0 / math.sqrt(self.in_features) if self.in_features else 0.0
        # kaiming_uniform_ with a = sqrt(5) is this uniform draw, and divides by zero without inputs
        nn.init.uniform_(self.weight_v, -bound, bound)
        with torch.no_grad():
            self.weight_g.copy_(exact_norms(self.weight_v)[:, None])
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    @property
    def weight(self) -> Tensor:
        """The normalised weight (N, K), for reading; no forward pass makes it."""
        identity = torch.eye(
            self.in_features, dtype=self.weight_v.dtype, device=self.weight_v.device
        )
        with torch.no_grad():
            exponent, square = row_squares(self.weight_v)
            return self._product(identity, exponent, square, None, bias=False).t().contiguous()

    def forward(self, input: Tensor) -> Tensor:  # (..., K) -> (..., N)
        exponent, square = row_squares(self.weight_v.detach())
        return self._product(input, exponent, square, None)

    def _product(
        self,
        input: Tensor,
        exponent: Tensor | None,
        square: Tensor | None,
        monitor: Monitor | None,
        bias: bool = True,
    ) -> Tensor:
        """The layer's output for norms that are given, or that a monitor supplies."""
        if torch.compiler.is_compiling() and not COMPILES:
            raise RuntimeError(
                "under torch.compile a weight-normalised layer needs torch 2.13 or newer: older "
                "ones were seen to compile its gradients to zero"
            )
        operand = self._operand(input)
        rows = input.reshape(-1, self.in_features) if self.in_features else input.flatten(0, -2)
        y = WeightNormProduct.apply(
            rows,
            self.weight_v,
            self.weight_g[:, 0],
            self.bias if bias else None,
            exponent,
            square,
            operand,
            monitor,
        )[0]
        return y.reshape(*input.shape[:-1], self.out_features)

    def _operand(self, input: Tensor) -> torch.dtype:
        """The dtype that x and v are multiplied in and y is returned in."""
        if input.shape[-1:] != (self.in_features,):
            raise ValueError(
                f"input must have {self.in_features} features in its last dimension, got shape "
                f"{tuple(input.shape)}"
            )
        kind = input.device.type
        if torch.is_autocast_enabled(kind) and self.weight_v.dtype != torch.float64:
            return torch.get_autocast_dtype(kind)
        if input.dtype != self.weight_v.dtype:
            raise TypeError(
                f"input is {input.dtype} but the weight {self.weight_v.dtype}; convert one, or use "
                "torch.autocast"
            )
        return input.dtype

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


def exact_norms(v: Tensor) -> Tensor:  # (N, K) -> (N,)
    """The norm of every row, in fp32 (fp64 for fp64 rows)."""
    exponent, square = row_squares(v.detach())
    return shifted(square.sqrt(), exponent)
