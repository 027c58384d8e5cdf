"""Binary cross-entropy with logits, element by element: the Triton kernels.

With e = exp(-|x|), a weight w and a weight p of the positive class,

    loss = w (|x| (1 - y if x > 0 else p y) + (1 - y + p y) log1p(e))
    dx = g w ((1 - y) sigmoid(x) - p y sigmoid(-x))

For targets within [0, 1] and weights of at least 0 all terms of the loss are nonnegative, so
nothing cancels. The sigmoids come from e as 1 / (1 + e) and e / (1 + e), each accurate relatively.

Without weights e is held as 2**64 times itself, so that a small e keeps its bits until the upstream
gradient has entered. With weights everything after e is computed in fp64, which holds any product
of three fp32 factors (fp16 makes do with fp32); where nothing is wider, as for fp64 itself, what is
multiplied carries its exponent beside it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..convert import narrow, widen
from ..elementary import (
    divide,
    exp_difference,
    exponent_of,
    log1p,
    power_of_two,
    residual,
    times_power_of_two,
    unboosting_factors,
)

_BOOST = tl.constexpr(64)
# Below 2**-60 log1p is the identity.
_FAINT = tl.constexpr(2.0**-60)


@triton.jit
def _load_weight(pointer, index, period, mask, STATISTICS: tl.constexpr):
    """A weight that repeats every `period` elements."""
    return widen(tl.load(pointer + index % period, mask=mask, other=1.0), STATISTICS)


@triton.jit
def _product(a, b, c):
    """a b c of nonnegative b, with c within [0, 1]: no intermediate overflows or underflows unless
    the result does, c subnormal apart.
    """
    both = (tl.abs(a) >= 1.0) & (tl.abs(b) >= 1.0)
    return tl.where(both, (a * c) * b, (a * b) * c)


@triton.jit
def _times_scales(value, first, second, exponent):
    """value * first * second * 2**exponent, rounded to a subnormal at the end only."""
    k, n = exponent_of(tl.abs(first)), exponent_of(tl.abs(second))
    large = tl.abs(value) >= 1.0
    value = tl.where(large, value * 0.0625, value)  # times mantissas up to 2 each
    exponent = exponent + tl.where(large, 4, 0)
    value = value * (first * power_of_two(-k, first.dtype))
    value = value * (second * power_of_two(-n, second.dtype))
    limit = 2044 if value.dtype == tl.float64 else 252
    exponent = tl.minimum(tl.maximum(k + n + exponent, -limit), limit)
    return times_power_of_two(value, exponent)


@triton.jit
def _infinite_loss(x, y, slope, w):
    """w times the loss at an infinite logit: torch's (1 - y) x + slope softplus(-x), where
    inf - inf and 0 inf are NaN; 0 elsewhere.
    """
    first = tl.where((x > 0.0) == (y < 1.0), 1.0, -1.0)
    second = tl.where(slope > 0.0, 1.0, -1.0)
    undefined = (y != y) | (y == 1.0) | (slope != slope) | (w == 0.0)
    undefined = undefined | ((x > 0.0) & (tl.abs(slope) == float("inf")))
    undefined = undefined | ((x < 0.0) & ((slope == 0.0) | (first != second)))
    out = tl.where(first > 0.0, float("inf"), float("-inf")) * tl.where(w == 0.0, 1.0, w)
    return tl.where(tl.abs(x) < float("inf"), 0.0, tl.where(undefined, float("nan"), out))


@triton.jit
def _forward_kernel(
    logits,  # (N,) contiguous
    target,  # (N,) contiguous
    weight,  # (period_weight,) or nothing
    pos_weight,  # (period_pos,) or nothing
    loss,  # (N,) out
    n_elements,
    period_weight,
    period_pos,
    WEIGHTED: tl.constexpr,
    STATISTICS: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < n_elements
    x = widen(tl.load(logits + index, mask=mask, other=0.0), STATISTICS)
    y = widen(tl.load(target + index, mask=mask, other=0.0), STATISTICS)
    size = tl.abs(x)
    finite = tl.where(size < float("inf"), size, 0.0)
    # exp(-|x|) as a difference from 0: underflow and infinity are dealt with there. NaN comes back
    # as NaN.
    if WEIGHTED:
        w = _load_weight(weight, index, period_weight, mask, STATISTICS).to(WIDE)
        p = _load_weight(pos_weight, index, period_pos, mask, STATISTICS).to(WIDE)
        boosted = exp_difference(-size, tl.zeros_like(size), _BOOST).to(WIDE)
        e = boosted * power_of_two(tl.full(size.shape, -_BOOST, tl.int32), WIDE)
        tail = tl.where(e < _FAINT, e, log1p(e.to(STATISTICS)).to(WIDE))
        x, y, finite = x.to(WIDE), y.to(WIDE), finite.to(WIDE)
        slope = (1.0 - y) + p * y
        # Where p could overflow it, a large |x| lends its exponent, and two more for the sum, until
        # the weight has entered.
        most = 1020 if WIDE == tl.float64 else 124  # 2**-exponent is to be normal
        exponent = tl.minimum(tl.maximum(exponent_of(finite), 0), most) + 2
        exponent = tl.where(tl.abs(p) >= 1.0, exponent, 0)
        down = power_of_two(-exponent, WIDE)
        finite = finite * down
        linear = tl.where(x > 0.0, finite * (1.0 - y), _product(finite, p, y))
        usual = tl.abs(w) < float("inf")
        safe = tl.where(usual, w, 1.0)
        one = tl.full(x.shape, 1.0, WIDE)
        out = _times_scales(linear + slope * (tail * down), safe, one, exponent)
        faint = _times_scales(slope, boosted, safe, -_BOOST)
        out = tl.where((linear == 0.0) & (e < _FAINT), faint, out)
        out = out * tl.where(usual, 1.0, w)
        out = tl.where(size == float("inf"), _infinite_loss(x, y, slope, w), out)
        out = narrow(out, STATISTICS)
    else:
        linear = finite * tl.where(x > 0.0, 1.0 - y, y)
        out = linear + log1p(exp_difference(-size, tl.zeros_like(size)))
        one = tl.full(x.shape, 1.0, STATISTICS)
        out = tl.where(size == float("inf"), _infinite_loss(x, y, one, one), out)
    tl.store(loss + index, out, mask=mask)


@triton.jit
def _backward_kernel(
    upstream,  # (N,) statistics dtype, stride 0 allowed
    logits,  # (N,) contiguous
    target,  # (N,) contiguous
    weight,  # (period_weight,) or nothing
    pos_weight,  # (period_pos,) or nothing
    gradient,  # (N,) out
    n_elements,
    period_weight,
    period_pos,
    stride_upstream,
    WEIGHTED: tl.constexpr,
    STATISTICS: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < n_elements
    g = widen(tl.load(upstream + index * stride_upstream, mask=mask, other=0.0), STATISTICS)
    x = widen(tl.load(logits + index, mask=mask, other=0.0), STATISTICS)
    y = widen(tl.load(target + index, mask=mask, other=0.0), STATISTICS)
    size = tl.abs(x)
    e = exp_difference(-size, tl.zeros_like(size), _BOOST).to(WIDE)
    x, y, g = x.to(WIDE), y.to(WIDE), g.to(WIDE)
    unboost = power_of_two(tl.full(size.shape, -_BOOST, tl.int32), WIDE)
    denominator = 1.0 + e * unboost
    bounded = tl.where(tl.abs(y) < float("inf"), y, 0.0)
    if WEIGHTED:
        p = _load_weight(pos_weight, index, period_pos, mask, STATISTICS).to(WIDE)
        one, other = 1.0 - bounded, p * bounded
    else:
        one, other = 1.0 - bounded, bounded
    # Coefficients far outside [0, 1] would overflow times 2**64, and need no such care: there both
    # terms are held as a quarter of themselves, for they add up to twice the larger one.
    far = (tl.abs(one) > 1024.0) | (tl.abs(other) > 1024.0)
    one, other = tl.where(far, one * 0.25, one), tl.where(far, other * 0.25, other)
    one_e = tl.where(far, (one * unboost) * e, one * e)
    other_e = tl.where(far, (other * unboost) * e, other * e)
    boost = tl.where(far, 1.0, power_of_two(tl.full(size.shape, _BOOST, tl.int32), WIDE))
    # The larger sigmoid, of |x|, is 1 / (1 + e), the smaller e / (1 + e).
    slope = tl.where(x > 0.0, one * boost - other_e, one_e - other * boost)
    quotient = divide(slope, denominator)
    if STATISTICS == tl.float64:
        # Of 1 + e what the sum rounded away: four roundings in all would be 2.1 ULP at worst.
        lost = e * unboost - (denominator - 1.0)
        quotient += (residual(slope, quotient, denominator) - quotient * lost) / denominator
    slope = quotient
    if WEIGHTED:
        w = _load_weight(weight, index, period_weight, mask, STATISTICS).to(WIDE)
        usual = (tl.abs(g) < float("inf")) & (tl.abs(w) < float("inf"))
        exact = _times_scales(
            slope, tl.where(usual, g, 1.0), tl.where(usual, w, 1.0), tl.where(far, 2, -_BOOST)
        )
        strange = (slope * tl.where(usual, 0.0, g)) * tl.where(usual, 0.0, w)
        out = tl.where(usual, exact, strange)
        out = tl.where(tl.abs(p) == float("inf"), float("nan"), out)
    else:
        # As torch has it, which stays within the range up to its very end.
        larger = divide(tl.where(x > 0.0, 1.0, e * unboost), denominator)
        slope = tl.where(far, larger - bounded, slope)
        before, after = unboosting_factors(g, _BOOST)
        out = slope * tl.where(far, g, before) * tl.where(far, 1.0, after)
        w = tl.full(x.shape, 1.0, WIDE)
    # torch has (sigmoid(x) - y) g: an infinite target outdoes any sigmoid, and NaN stays.
    endless = (tl.abs(y) == float("inf")) & (x == x)
    scale = tl.where(endless, g, 0.0) * tl.where(endless, w, 0.0)
    out = tl.where(endless, -tl.where(endless, y, 0.0) * scale, out)
    out = tl.where(y == y, out, y)
    tl.store(gradient + index, narrow(out, gradient.dtype.element_ty), mask=mask)
