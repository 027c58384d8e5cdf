"""y = g (x . v) / ||v|| + bias and its gradients, from given norms; no normalised weight is made.

A row of v is 2**e times a row of moderate size, and ||v|| = 2**e r; a row of x is 2**t times one
whose products with any v cannot overflow. With n = x.v / (2**t 2**e r), at most 1 in size,

    y  = 2**t n g + bias,          dbias = sum_k G,        dg = sum_k G 2**t n,
    dx = sum_i G g / (2**e r) v,
    dv = 2**(m - e) (u - (sum_k a n) / r * v / 2**e),      u = sum_k a x / 2**t

for the upstream gradient G, sums over the batch being sum_k, and a = G g 2**t / r / 2**m with m the
exponent that makes the largest a of a row at most 1 / batch. (Salimans & Kingma 2016, equation 3:
dv = g / ||v|| (dw - w' (w'.dw)) for the direction w'.) A zero row has direction zero, and by policy
so has its gradient.

What is left out of range: rows of one v whose sizes lie more than about 2**100 apart (fp64: 2**900)
share a matrix product, and the small ones lose bits there.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .. import launch
from .fused import project
from .scaling import exponents, log2_above, power_of_two, shifted


class GradientFactors(NamedTuple):
    """dv = 2**(m - e) (u - along * v / 2**e) and what its dot products need."""

    weights: Tensor  # (B, N) a, in the statistics' dtype
    x: Tensor  # (B, K) x / 2**t
    gradient: Tensor  # (N, K) dv itself
    size_exponent: Tensor  # (N,) m
    exponent: Tensor  # (N,) e
    along: Tensor  # (N,) (sum_k a n) / r
    dot: Tensor  # (N,) sum_k a n
    squares: Tensor  # (N,) the sum of squares of dv / 2**(m - e), where it was asked for


class Monitor(Protocol):
    """Whoever supplies the norms of one forward pass and watches its backward."""

    def product(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x.v / 2**e (B, N), e (N,) and the square of r (N,), for x / 2**t (B, K) and v (N, K)."""
        ...

    def wants_squares(self, x: Tensor, v: Tensor) -> bool:
        """Whether `GradientFactors.squares` is to be computed for this batch."""
        ...

    def observe(self, factors: GradientFactors) -> None:
        """Take note of a gradient of v."""
        ...


def matrix_product(a: Tensor, b: Tensor, statistics: torch.dtype) -> Tensor:
    """a (M, K) times b (K, N), accumulated and returned in the statistics' dtype."""
    if torch.is_autocast_enabled(a.device.type):
        with torch.autocast(a.device.type, enabled=False):
            return matrix_product(a, b, statistics)
    if a.dtype == b.dtype == statistics:
        return a @ b
    if a.is_cuda and a.dtype == b.dtype and not torch.is_grad_enabled():
        return torch.mm(a, b, out_dtype=statistics)
    return a.to(statistics) @ b.to(statistics)


def as_factor(value: Tensor, operand: torch.dtype) -> Tensor:
    """What multiplies a tensor of the dtype `operand`: rounded to it for a GPU's half-precision
    units, as it is on a CPU, which has none.
    """
    return value.to(operand) if value.is_cuda else value


def scaled_rows(x: Tensor, operand: torch.dtype) -> tuple[Tensor, Tensor]:
    """x (B, K) / 2**t in the dtype `operand`, and t (B, 1).

    The sum of a row's sizes is then at most 1, so a product with finite v is finite. fp16 needs no
    such room in its fp32 accumulation, and its short range would lose the small elements.
    """
    if x.dtype == torch.float16 or not x.shape[1]:
        return x.to(operand), x.new_zeros(x.shape[0], 1, dtype=torch.int32)
    t = exponents(x).amax(dim=1, keepdim=True)
    t = torch.where(t <= -10_000, 0, t).to(torch.int32)
    if operand != torch.float16:
        t = t + log2_above(x.shape[1]) + 1
    return shifted(x.to(launch.statistics_dtype(x.dtype)), -t).to(operand), t


def operand_of(v: Tensor, exponent: Tensor, operand: torch.dtype) -> tuple[Tensor, Tensor]:
    """v itself and e; where autocast asks for another dtype, v / 2**e in that and 0."""
    if v.dtype == operand:
        return v, exponent
    return (v * power_of_two(-exponent, v.dtype)[:, None]).to(operand), torch.zeros_like(exponent)


def lift_of(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """The exponent to raise one factor by, so that products with a v that is small throughout are
    not subnormal.
    """
    if dtype == torch.float16 or not exponent.numel():
        return exponent.new_zeros(())
    return (-exponent.max()).clamp(0, 900 if dtype == torch.float64 else 100)


def scaled_product(x: Tensor, v: Tensor, exponent: Tensor, lift: Tensor) -> Tensor:
    """x.v / 2**e (B, N), for x of the dtype that is to be multiplied."""
    statistics = launch.statistics_dtype(v.dtype)
    factor, units = operand_of(v, exponent, x.dtype)
    lifted = x if x.dtype == torch.float16 else x * power_of_two(lift, statistics).to(x.dtype)
    raised = lift if x.dtype != torch.float16 else torch.zeros_like(lift)
    return shifted(matrix_product(lifted, factor.t(), statistics), -units - raised)


def _inverse(square: Tensor) -> Tensor:
    """1 / r, and 0 for a zero row; differentiable there, too."""
    zero = square == 0
    return torch.where(zero, 0.0, 1.0 / torch.where(zero, 1.0, square).sqrt())


class WeightNormProduct(torch.autograd.Function):
    """y (B, N), and what backward needs: n, e, r's square and t; x (B, K), v (N, K), g (N,)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        v: Tensor,
        g: Tensor,
        bias: Tensor | None,
        exponent: Tensor | None,
        square: Tensor | None,
        operand: torch.dtype,
        monitor: Monitor | None,
    ) -> tuple[Tensor, ...]:
        x_scaled, t = scaled_rows(x, operand)
        if monitor is not None:
            z, exponent, square = monitor.product(x_scaled, v)
        else:
            assert exponent is not None
            assert square is not None
            z = scaled_product(x_scaled, v, exponent, lift_of(exponent, operand))
            exponent, square = exponent.clone(), square.clone()
        n = z * _inverse(square)
        y = shifted(n * g.to(n.dtype), t)
        if bias is not None:
            y = y + bias.to(n.dtype)
        return y.to(operand), n, exponent, square, t

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, v, g, bias, _, _, ctx.operand, ctx.monitor = inputs
        ctx.has_bias = bias is not None
        ctx.bias_dtype = None if bias is None else bias.dtype
        _, n, exponent, square, t = output
        ctx.mark_non_differentiable(n, exponent, square, t)
        ctx.save_for_backward(x, v, g, n, exponent, square, t)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, v, g, n, exponent, square, t = ctx.saved_tensors
        again = torch.is_grad_enabled()  # a second derivative may be asked for
        if again:
            units = v * power_of_two(-exponent, n.dtype).to(v.dtype)[:, None]
            square = units.to(n.dtype).square().sum(dim=1)
        inverse = _inverse(square)
        if again:
            raised = scaled_rows_like(x, t, ctx.operand)
            lift = lift_of(exponent, ctx.operand)
            n = scaled_product(raised, v, exponent, lift) * inverse
        given = upstream.to(n.dtype)
        g_exponent = exponents(g.to(n.dtype))
        g_exponent = torch.where(g_exponent < -10_000, 0, g_exponent).to(torch.int32)
        c = given * (shifted(g.to(n.dtype), -g_exponent) * inverse)  # (B, N)
        c_exponent = exponents(c)

        dx = dv = dg = dbias = None
        if ctx.needs_input_grad[0]:
            dx = _input_gradient(c, c_exponent, v, exponent, g_exponent, ctx.operand).to(x.dtype)
        if ctx.needs_input_grad[1]:
            m = _largest(c_exponent + t, 0) + log2_above(c.shape[0]) + 1 + g_exponent
            a = as_factor(shifted(c, t + g_exponent - m), ctx.operand)
            x_scaled = scaled_rows_like(x, t, ctx.operand)
            u = matrix_product(a.t(), x_scaled, n.dtype)
            a = a.to(n.dtype)
            dot = (a * n).sum(dim=0)
            along = dot * inverse
            if again:
                d = u - along[:, None] * units.to(n.dtype)
                dv = shifted(d, (m - exponent)[:, None]).to(v.dtype)
            else:
                monitor = ctx.monitor
                squared = monitor is not None and monitor.wants_squares(x, v)
                dv, squares = project(u, v, exponent, along, m - exponent, squared)
                if monitor is not None:
                    monitor.observe(
                        GradientFactors(a, x_scaled, dv, m, exponent, along, dot, squares)
                    )
        if ctx.needs_input_grad[2]:
            p = _largest(exponents(given) + t, 0)
            dg = shifted((shifted(given, t - p) * n).sum(dim=0), p).to(g.dtype)
        if ctx.has_bias and ctx.needs_input_grad[3]:
            dbias = given.sum(dim=0).to(ctx.bias_dtype)
        return dx, dv, dg, dbias, None, None, None, None


def _largest(exponent: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    """The largest exponent along a dimension; 0 where nothing has one."""
    if not exponent.shape[dim]:
        return exponent.sum(dim=dim, keepdim=keepdim).to(torch.int32)
    largest = exponent.amax(dim=dim, keepdim=keepdim)
    return torch.where(largest < -10_000, 0, largest).to(torch.int32)


def scaled_rows_like(x: Tensor, t: Tensor, operand: torch.dtype) -> Tensor:
    """x / 2**t as `scaled_rows` makes it, for the t it gave; differentiable."""
    if x.dtype == torch.float16 or not x.shape[1]:
        return x.to(operand)
    return shifted(x.to(launch.statistics_dtype(x.dtype)), -t).to(operand)


def _input_gradient(
    c: Tensor,  # (B, N)
    c_exponent: Tensor,  # (B, N)
    v: Tensor,  # (N, K)
    exponent: Tensor,  # (N,)
    g_exponent: Tensor,  # (N,)
    operand: torch.dtype,
) -> Tensor:  # (B, K)
    """sum_i c 2**(g's exponent - e) v, each sample's factors scaled to at most 1 / N."""
    factor, units = operand_of(v, exponent, operand)
    lift = lift_of(units, operand)
    scale = g_exponent - units
    largest = _largest(c_exponent + scale, 1, keepdim=True)
    if operand != torch.float16:
        largest = largest + log2_above(c.shape[1]) + 1
    scaled = as_factor(shifted(c, scale - largest + lift), operand)
    return shifted(matrix_product(scaled, factor, c.dtype), largest - lift)
