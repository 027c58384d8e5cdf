"""Rows in, per-row statistics out: the kernels' launches, or the PyTorch formulas in their stead.

Plain functions on tensors, without autograd: the operators of `kernels.cross_entropy` are made of
them, and so may be others that compute logits piece by piece. Rows that come in pieces are reduced
at the end, by `reduce_rows` of all their statistics.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import launch
from . import dense, dense_backward, fused, stable
from .options import Options, bits

_BOOST = {torch.float16: 100, torch.bfloat16: 100, torch.float32: 127, torch.float64: 960}


class Statistics(NamedTuple):
    """What forward knows of each row, all (N,)."""

    loss: Tensor  # fp64
    excess: Tensor  # fp64: what of the loss is beyond 2**928, in units of 2**1024; (0,) if nothing
    maximum: Tensor  # m
    others: Tensor  # 2**boost times the sum of exponentials but the target's, or but one maximum's
    log_sum: Tensor  # fp64: log D; the log-sum-exp is m + log D
    mass: Tensor  # the factor of log D in the loss: the row's weight, or the coefficients' sum
    row_weight: Tensor  # what the row counts for in a mean's denominator


def boost(dtype: torch.dtype) -> int:
    """Exponentials are held as 2**boost times themselves: a confident row's are subnormal, and
    would lose their bits before the rest of the row, or the upstream gradient, makes up for it.

    A sum of fp16's or bf16's is held in fp32, 2**27 columns wide; a sum in fp64 has room for more.
    """
    return _BOOST[dtype]


def is_dense(target: Tensor, options: Options) -> bool:
    """Whether every column has a coefficient of its own: probabilities, or smoothed indices."""
    return target.is_floating_point() or options.label_smoothing > 0.0


def mass_dtype(logits: Tensor, target: Tensor, weight: Tensor | None, options: Options) -> Any:
    """The dtype of `Statistics.mass`, which in dense rows is that of sums of coefficients.

    Weights may span the range of fp32 and more with it: products of them are held in fp64.
    """
    if not is_dense(target, options):
        return launch.statistics_dtype(logits.dtype)
    return launch.sum_dtype(logits.dtype) if weight is None else torch.float64


def empty_statistics(
    logits: Tensor, target: Tensor, weight: Tensor | None, options: Options
) -> Statistics:
    """The outputs of the forward kernels for logits (..., C), not yet written."""
    rows = logits.shape[:-1]
    statistics = launch.statistics_dtype(logits.dtype)
    beyond = rows if logits.dtype == torch.float64 else torch.Size([0])
    mass = logits.new_empty(rows, dtype=mass_dtype(logits, target, weight, options))
    return Statistics(
        loss=logits.new_empty(rows, dtype=torch.float64),
        excess=logits.new_empty(beyond, dtype=torch.float64),
        maximum=logits.new_empty(rows, dtype=statistics),
        others=logits.new_empty(rows, dtype=launch.sum_dtype(logits.dtype)),
        log_sum=logits.new_empty(rows, dtype=torch.float64),
        mass=mass,
        row_weight=logits.new_empty(rows, dtype=statistics),
    )


def forward_rows(
    logits: Tensor,  # (N, C), any strides
    target: Tensor,  # (N,) int64, or (N, C) probabilities, any strides
    weight: Tensor | None,  # (C,) contiguous
    options: Options,
) -> Statistics:
    """The statistics of each row; no option but the reduction is left to do."""
    if not launch.uses_triton(logits):
        return stable.forward_rows(logits, target, weight, options)
    out = empty_statistics(logits, target, weight, options)
    if not is_dense(target, options):
        out = out._replace(row_weight=out.mass)
    if logits.shape[0] == 0:
        return out
    tensors = (logits, target, logits if weight is None else weight)
    results = (out.loss, out.excess, out.maximum, out.others, out.log_sum, out.mass)
    sizes = (*logits.shape, options.ignore_index, *logits.stride())
    switches = {"HAS_WEIGHT": weight is not None, "HAS_Z": options.z_loss != 0.0}
    with launch.on_device(logits):
        if is_dense(target, options):
            grid, common = _grid_and_constants(logits, options, "forward")
            dense._forward_kernel[grid](
                *tensors, *results, out.row_weight, *sizes, *_target_strides(target),
                *_smoothing(logits, options), bits(options.z_loss), bits(options.softcap),
                PROBABILITIES=target.is_floating_point(),
                SUMS=tl.float64,
                ACCUMULATE=launch.triton_dtype(out.mass.dtype), **switches, **common,
            )  # fmt: skip
        else:
            grid, common = _grid_and_constants(logits, options, "forward")
            fused._forward_kernel[grid](
                *tensors, *results, *sizes, bits(options.z_loss), bits(options.softcap),
                SUMS=tl.float64, **switches, **common,
            )  # fmt: skip
    if target.is_floating_point():
        out.row_weight.fill_(1.0)
    return out


def backward_rows(
    upstream: Tensor,  # (N,) of the loss; any stride
    upstream_z: Tensor | None,  # (N,) of the log-sum-exp
    logits: Tensor,  # (N, C), any strides
    target: Tensor,  # (N,) int64, or (N, C) probabilities, any strides
    weight: Tensor | None,  # (C,) contiguous
    maximum: Tensor,  # (N,)
    others: Tensor,  # (N,)
    mass: Tensor,  # (N,); unused for plain rows
    options: Options,
) -> Tensor:
    """The gradient of (N, C) logits: `upstream` times that of sum a_c (log D + m - x_c), with a_c
    the dense rows' coefficients and, in plain rows, 1 at the target; and `upstream_z` times the
    probabilities.
    """
    arguments = (upstream, upstream_z, logits, target, weight, maximum, others, mass, options)
    if not launch.uses_triton(logits):
        return stable.backward_rows(*arguments)
    gradient = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    if logits.shape[0] == 0:
        return gradient
    dtype = launch.sum_dtype(logits.dtype)
    if is_dense(target, options):
        dtype = mass.dtype
    upstream = upstream.to(dtype)
    second = upstream if upstream_z is None else upstream_z.to(dtype).contiguous()
    sizes = (*logits.shape, options.ignore_index, upstream.stride(0), *logits.stride())
    grid, common = _grid_and_constants(logits, options, "backward")
    common["HAS_Z"] = upstream_z is not None
    with launch.on_device(logits):
        if is_dense(target, options):
            dense_backward._backward_kernel[grid](
                upstream, second, logits, target, logits if weight is None else weight,
                maximum, others, mass, gradient, *sizes, *_target_strides(target),
                *_smoothing(logits, options), bits(options.softcap),
                PROBABILITIES=target.is_floating_point(), HAS_WEIGHT=weight is not None,
                ACCUMULATE=launch.triton_dtype(dtype), **common,
            )  # fmt: skip
        else:
            fused._backward_kernel[grid](
                upstream, second, logits, target, maximum, others, gradient, *sizes,
                bits(options.softcap), SUMS=launch.triton_dtype(dtype), **common,
            )  # fmt: skip
    return gradient


def target_rows(
    upstream: Tensor,  # (N,), any stride
    logits: Tensor,  # (N, C), any strides
    weight: Tensor | None,  # (C,) contiguous
    maximum: Tensor,  # (N,)
    others: Tensor,  # (N,)
    log_sum: Tensor,  # (N,)
    options: Options,
    dtype: torch.dtype,
) -> Tensor:
    """The gradient of (N, C) class probabilities, in their dtype."""
    if not launch.uses_triton(logits):
        return stable.target_rows(
            upstream, logits, weight, maximum, others, log_sum, options, dtype
        )
    gradient = torch.empty(logits.shape, dtype=dtype, device=logits.device)
    if logits.shape[0] == 0:
        return gradient
    wide = launch.sum_dtype(logits.dtype) if weight is None else torch.float64
    upstream = upstream.to(wide)
    grid, common = _grid_and_constants(logits, options, "target")
    with launch.on_device(logits):
        dense_backward._target_kernel[grid](
            upstream, logits, logits if weight is None else weight,
            maximum, others, log_sum, gradient, *logits.shape, upstream.stride(0), *logits.stride(),
            bits(1.0 - options.label_smoothing), bits(options.softcap),
            HAS_WEIGHT=weight is not None, ACCUMULATE=launch.triton_dtype(wide), **common,
        )  # fmt: skip
    return gradient


def _grid_and_constants(
    logits: Tensor, options: Options, pass_: str
) -> tuple[tuple[int], dict[str, Any]]:
    n_rows, n_columns = logits.shape
    family = f"cross_entropy_{pass_}"
    shape = launch.shape(family, logits, n_columns)
    block_m, block_n = launch.tile(n_rows, n_columns, shape)
    constants = {
        "HAS_CAP": options.softcap != 0.0,
        "STATISTICS": launch.triton_dtype(launch.statistics_dtype(logits.dtype)),
        "BOOST": boost(logits.dtype),
        "BLOCK_M": block_m,
        "BLOCK_N": block_n,
        "STATIC_BLOCKS": launch.static_blocks(n_columns, block_n),
        "UNIT": launch.unit(logits, n_columns, logits.stride(0)),
    }
    compiler = launch.options(family, logits, n_columns, block_m * block_n)
    return (triton.cdiv(n_rows, block_m),), constants | compiler


def _target_strides(target: Tensor) -> tuple[int, int]:
    return (target.stride(0), target.stride(1)) if target.is_floating_point() else (0, 0)


def _smoothing(logits: Tensor, options: Options) -> tuple[int, int]:
    """The bits of 1 - s and of s / C."""
    s = options.label_smoothing
    return bits(1.0 - s), bits(s / max(logits.shape[1], 1))


# --- reductions -----------------------------------------------------------------------------------


def reduce_rows(
    loss: Tensor,  # (B, N)
    excess: Tensor,  # (B, N), or (0,) where there is none
    row_weight: Tensor,  # (B, N)
    options: Options,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """The reduced loss, (B,) or (B, N), and the denominator, see `denominator_of`.

    Finite whenever the true value is: fp64 has room for a sum of any fp32 rows; of fp64 rows what
    is beyond it comes as `excess`. No step waits for the device.
    """
    wide = excess.numel() > 0
    denominator = denominator_of(row_weight, options)
    if options.reduction == "none":
        if wide:
            loss = loss + excess * 2.0**512 * 2.0**512
        return loss.to(dtype), denominator
    total = loss.sum(dim=-1)
    beyond = excess.sum(dim=-1) if wide else torch.zeros_like(total)
    if options.reduction == "sum":
        total = total + beyond * 2.0**512 * 2.0**512
        return total.to(dtype), denominator
    counted, unit = denominator.unbind(dim=-1)
    mean = total / counted
    if wide:
        mean = mean * unit
        shifted = (loss * 2.0**-512 * 2.0**-512).sum(dim=-1) + beyond
        shifted = shifted / counted * unit * 2.0**512 * 2.0**512
        mean = torch.where((beyond != 0) | (total.isinf() & shifted.isfinite()), shifted, mean)
    return mean.to(dtype), denominator


def denominator_of(row_weight: Tensor, options: Options) -> Tensor:
    """A mean's denominator of rows (B, N), as (B, 2): itself, and the power of two that it was
    multiplied by to stay finite. Ones for other reductions. In fp64.
    """
    if options.reduction != "mean":
        return row_weight.new_ones(*row_weight.shape[:-1], 2, dtype=torch.float64)
    counted = row_weight.sum(dim=-1, dtype=torch.float64)
    unit = torch.ones_like(counted)
    if row_weight.dtype == torch.float64:
        scaled = (row_weight * 2.0**-64).sum(dim=-1)
        unit = torch.where(counted.isinf() & scaled.isfinite(), 2.0**-64, 1.0)
        counted = torch.where(unit < 1.0, scaled, counted)
    if options.all_ignored == "zero":
        counted = torch.where(counted == 0, torch.inf, counted)
    return torch.stack([counted, unit], dim=-1)


def upstream_rows(
    upstream: Tensor,  # (B,), or (B, N) without a reduction; statistics dtype
    target: Tensor,  # (B, N) class indices, or (B, N, C) probabilities
    maximum: Tensor,  # (B, N)
    log_sum: Tensor,  # (B, N)
    mass: Tensor,  # (B, N)
    denominator: Tensor,  # (B, 2)
    has_weight: bool,
    options: Options,
) -> tuple[Tensor, Tensor | None]:
    """The upstream gradients, (B, N), that `backward_rows` takes: of the loss and the log-sum-exp.

    In fp64, whatever the dtype, but for a gradient that goes through as it is.
    """
    shape = maximum.shape
    if options.reduction == "none":
        share = scale = upstream
    else:
        scale = upstream.unsqueeze(-1)
        share = scale
    plain = not is_dense(target, options)
    unit = denominator[..., 1:]
    if plain and has_weight:
        share = share.double() * (mass.double() * unit)
    elif options.reduction == "mean":
        share = share.double() * unit
    if options.reduction == "mean":
        # Where nothing counts the mean is NaN, and so is its gradient.
        counted = torch.where(denominator[..., :1] == 0, torch.nan, denominator[..., :1])
        share = share / counted
        scale = scale.double() * unit / counted
    if options.z_loss == 0.0:
        return share.expand(shape), None
    normalizer = maximum.double() + log_sum
    of_z = (2.0 * options.z_loss * normalizer) * scale.double()
    return share.expand(shape), of_z.expand(shape)
