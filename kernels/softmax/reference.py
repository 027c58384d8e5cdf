"""softmax as people write it, and the stable formula that stands in for the kernel on a plain CPU.

The first ones compute along `dim`, in the input's own dtype. Each says where it breaks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import launch


def naive(input: Tensor, dim: int = -1) -> Tensor:  # (..., K, ...) -> the same
    """exp(x) / sum exp(x).

    Breaks above ln(max): exp overflows, and inf / inf is NaN (11.09 in fp16, 88.7 in fp32). A row
    far below zero underflows to 0 / 0.
    """
    exponentials = torch.exp(input)
    return exponentials / exponentials.sum(dim=dim, keepdim=True)


def shifted(input: Tensor, dim: int = -1) -> Tensor:  # (..., K, ...) -> the same
    """The textbook guard: exp(x - max) / sum exp(x - max).

    Never overflows. In the input's own dtype the rounding of x - max counts as an error of the
    exponent: |x - max| / 2 units in the last place. In half precision a long row's sum is coarse.
    """
    exponentials = torch.exp(input - input.amax(dim=dim, keepdim=True))
    return exponentials / exponentials.sum(dim=dim, keepdim=True)


def torch_native(input: Tensor, dim: int = -1) -> Tensor:  # (..., K, ...) -> the same
    """torch.softmax: the shifted formula, in fp32 for half precision.

    Small probabilities lose some |x - max| / 2 units in the last place in fp32 and fp64. The
    gradient is formed from the rounded result: where that is 0 it is 0 for every upstream scale,
    and in half precision the rounding of each probability enters the sum.
    """
    return torch.softmax(input, dim=dim)


def log_naive(input: Tensor, dim: int = -1) -> Tensor:  # (..., K, ...) -> the same
    """log(exp(x) / sum exp(x)): NaN where `naive` is."""
    return torch.log(naive(input, dim))


def softmax_log(input: Tensor, dim: int = -1) -> Tensor:  # (..., K, ...) -> the same
    """log(softmax(x)).

    Softmax itself is safe, but a probability that rounds to 0 (a gap of 17.3 in fp16, 103 in fp32)
    has log -inf, and the gradient through it is NaN. One that rounds to 1 has log 0.
    """
    return torch.log(torch.softmax(input, dim=dim))


def log_epsilon(input: Tensor, dim: int = -1) -> Tensor:  # (..., K, ...) -> the same
    """The quick fix: log(softmax(x) + 1e-9).

    Finite but wrong where the probability is near 1e-9 or below: the result sticks at -20.7, and
    the gradient vanishes. In fp16 1e-9 is itself 0 and nothing is fixed.
    """
    return torch.log(torch.softmax(input, dim=dim) + 1e-9)


def log_of_sum(input: Tensor, dim: int = -1) -> Tensor:  # (..., K, ...) -> the same
    """x - logsumexp(x).

    Not invariant under a common offset: where that is large, the two cancel and the result's
    absolute error is half a unit in the last place of the offset.
    """
    return input - torch.logsumexp(input, dim=dim, keepdim=True)


def log_torch_native(input: Tensor, dim: int = -1) -> Tensor:  # (..., K, ...) -> the same
    """torch.log_softmax: (x - max) - log sum exp(x - max).

    The maximum's own 1 is in the sum: where the others are small beside it, the logarithm of a
    confident row's largest probability loses its accuracy, and is 0 in the end.
    """
    return torch.log_softmax(input, dim=dim)


# --- the stable formula ---------------------------------------------------------------------------
# In fp64 for every dtype: what `kernels.softmax.fused` and `.fused_backward` do for fp64.

_BOOST_FORWARD, _BOOST_BACKWARD = 64, 1023
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_FACTORIALS = (
    6227020800.0,
    479001600.0,
    39916800.0,
    3628800.0,
    362880.0,
    40320.0,
    5040.0,
    720.0,
    120.0,
    24.0,
    6.0,
    2.0,
)


def _power_of_two(exponent: Tensor) -> Tensor:
    return ((exponent.to(torch.int64) + 1023) << 52).view(torch.float64)


def _times_power_of_two(value: Tensor, exponent: Tensor) -> Tensor:
    """value * 2**exponent, in two steps in the same direction."""
    exponent = exponent.clamp(-2044, 2044)
    half = exponent >> 1
    return value * _power_of_two(half) * _power_of_two(exponent - half)


def _scale_down(value: Tensor, exponent: Tensor) -> Tensor:
    return value * _power_of_two(exponent.clamp(min=-1022))


def _exponent_of(value: Tensor) -> Tensor:
    bits = value.contiguous().view(torch.int64)
    return (((bits >> 52) & 0x7FF) - 1023).clamp(-1022, 1022)


def _split(value: Tensor) -> tuple[Tensor, Tensor]:
    """value as mantissa * 2**exponent."""
    exponent = _exponent_of(value)
    return value * _power_of_two(-exponent), exponent


def _two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a + b, and what that rounds away (Knuth)."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def _exp_difference(x: Tensor, reference: Tensor, correction: Tensor | float, boost: int) -> Tensor:
    """exp(x - reference + correction) * 2**boost, see `kernels.softmax.exponential`."""
    far = x < reference - 1460
    near = torch.where(far | (x > reference), reference, x)
    difference, lost = _two_sum(near, -reference)
    n = torch.round(difference * 1.4426950408889634)
    high = difference - n * _LN2_HIGH
    low = (lost + correction) - n * _LN2_LOW
    r = high + low
    low = (high - r) + low
    series = torch.full_like(r, 1 / _FACTORIALS[0])
    for factorial in _FACTORIALS[1:]:
        series = series * r + 1 / factorial
    value = 1 + (r + (r * r * series + low))
    exponent = torch.nan_to_num(n).to(torch.int64) + boost
    return torch.where(far, 0.0, _times_power_of_two(value, exponent))


def _finite(maximum: Tensor) -> Tensor:
    return torch.where(torch.isfinite(maximum), maximum, 0.0)[..., None]


def _split_sum(terms: Tensor, spacing: float) -> tuple[Tensor, Tensor]:
    """The sum over the last dimension as a pair: multiples of spacing / 2**52 exactly, the rest."""
    coarse = (terms + 1.5 * spacing) - 1.5 * spacing
    fine = torch.where(torch.isfinite(terms), terms - coarse, 0.0)
    return _two_sum(coarse.sum(dim=-1), fine.sum(dim=-1))


def stable_forward(
    x: Tensor,  # (..., K)
    log: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """What the forward kernel computes: softmax or log-softmax in `dtype`, m and d."""
    statistics, sums = launch.statistics_dtype(x.dtype), launch.sum_dtype(dtype)
    if x.numel() == 0:
        rows = x.shape[:-1]
        empty = x.new_zeros(rows, dtype=statistics), x.new_zeros(rows, dtype=sums)
        return x.new_empty(x.shape, dtype=dtype), *empty
    wide = x.double()
    m = torch.where(wide.isnan(), -torch.inf, wide).amax(dim=-1)
    counted = (wide == m[..., None]) & (wide > -torch.inf)
    terms = _exp_difference(wide, _finite(m), 0.0, _BOOST_FORWARD)
    high, low = _split_sum(torch.where(counted, 0.0, terms), 2.0**86)
    others = (counted.sum(dim=-1) - 1).clamp(min=0).double()
    rest, lost = _two_sum(others, high * 2.0**-_BOOST_FORWARD)
    rest, rest_low = _two_sum(rest, lost + low * 2.0**-_BOOST_FORWARD)
    rest = torch.where(torch.isfinite(m), rest, torch.nan)
    d, d_low = _two_sum(torch.ones_like(rest), rest)
    d_low = d_low + rest_low
    if log:
        y = _logarithm(wide, m, torch.log1p(rest), rest_low / d)
    else:
        correction = (-d_low / d)[..., None]
        terms = _exp_difference(wide, _finite(m), correction, _BOOST_FORWARD)
        y = terms / d[..., None] * 2.0**-_BOOST_FORWARD
    return y.to(dtype), m.to(statistics), d.to(sums)


def _logarithm(x: Tensor, m: Tensor, log_d: Tensor, log_d_low: Tensor) -> Tensor:
    gap, lost = _two_sum(x, -m[..., None])
    result, more = _two_sum(gap, -log_d[..., None])
    correction = lost + more - log_d_low[..., None]
    return result + torch.where(torch.isfinite(correction), correction, 0.0)


def stable_backward(
    upstream: Tensor,  # (..., K)
    x: Tensor,  # (..., K)
    maximum: Tensor,  # (...,)
    normalizer: Tensor,  # (...,)
    log: bool,
) -> Tensor:
    """What the backward kernel computes: the gradient of x from m and d."""
    if x.numel() == 0:
        return x.clone()
    power = _exp_difference(x.double(), _finite(maximum.double()), 0.0, _BOOST_BACKWARD)
    part, exponent = _split(power)
    own, own_exponent = _split(upstream.double())
    d = normalizer.double()[..., None]
    # The row's sum, of y g or of g: total * 2**t.
    term, shift = (own, own_exponent) if log else (own * part, own_exponent + exponent)
    shift = torch.where(term == 0, -5000, shift)
    t = shift.amax(dim=-1, keepdim=True)
    high, low = _split_sum(_scale_down(term, shift - t), 2.0**35)
    total = (high + torch.where(torch.isfinite(high), low, 0.0))[..., None]
    if not log:
        total = total / d
        t = t - _BOOST_BACKWARD
    total, more = _split(total)
    t = t + more
    exponent = exponent - _BOOST_BACKWARD
    if log:
        total = total * part / d
        t = t + exponent
    top = torch.maximum(own_exponent, t)
    out = _scale_down(own, own_exponent - top) - _scale_down(total, t - top)
    if not log:
        out = out * part / d
        top = top + exponent
    return _times_power_of_two(out, top).to(x.dtype)
