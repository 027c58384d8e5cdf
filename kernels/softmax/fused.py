"""softmax and log-softmax of the rows of a matrix: the Triton kernel of the forward pass.

With m the row's maximum, n the number of entries equal to it, and S the sum of exp(x_j - m) over
the entries below it,

    softmax_i = exp(x_i - m) / d,    log_softmax_i = (x_i - m) - log1p((n - 1) + S),

    d = 1 + (n - 1) + S.

Nothing cancels: d is a sum of positive terms, and both terms of the logarithm are at most 0. With
the maximum itself left out of S a row that is nearly certain keeps its relative accuracy.

A row that fits on chip is read once. A wider one carries (m, n, S) from block to block, S brought
to the new maximum where that has grown, and is read again to be written. In fp64, where nothing is
wider, S is held as a pair of doubles, and the maximum is found first: each change of it would cost
a rounding.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .. import launch
from ..convert import narrow, widen
from ..elementary import divide, log1p, power_of_two
from ..row import load_row, store_piece
from .exponential import exp_difference

# Exponentials and S are held as 2**64 times themselves: those that matter may be subnormal.
_BOOST = tl.constexpr(64)


@triton.jit
def finite_reference(maximum):
    """What to subtract: the maximum, or 0 where it is infinite (-inf minus -inf would be NaN)."""
    return tl.where(tl.abs(maximum) < float("inf"), maximum, 0.0)


@triton.jit
def add_to_pair(high, low, value):
    """The sum high + low with a value added, what high rounds away kept in low (Knuth's TwoSum)."""
    new = high + value
    back = new - high
    return new, low + ((high - (new - back)) + (value - back))


@triton.jit
def raise_maximum(x, m):
    """The maximum so far after one more tile; NaN, which reductions drop or not, is taken out, and
    the sum carries it.
    """
    return tl.maximum(m, tl.max(tl.where(x == x, x, float("-inf")), axis=1))


@triton.jit
def is_maximum(x, m):
    """The entries that are counted, not summed."""
    return (x == m[:, None]) & (x > float("-inf"))


@triton.jit
def _power(x, m):
    """A tile of 2**64 exp(x - m)."""
    return exp_difference(x, finite_reference(m)[:, None], 0.0, _BOOST, x.dtype)


@triton.jit
def _take_in(x, terms, m, n, high, low, SUMS: tl.constexpr):
    """(n, 2**64 S) of each row after one more tile and its exponentials."""
    counted = is_maximum(x, m)
    n += tl.sum(counted.to(tl.int32), axis=1)
    below = tl.where(counted, 0.0, terms)
    if x.dtype == tl.float64:
        # The parts that are multiples of 2**(64 - 30) add up exactly, the rest is small.
        spacing = tl.full(below.shape, 1.5 * 2.0**86, tl.float64)
        coarse = (below + spacing) - spacing
        high, low = add_to_pair(high, low, tl.sum(coarse, axis=1))
        low += tl.sum(below - coarse, axis=1)
    else:
        high, low = add_to_pair(high, low, tl.sum(below.to(SUMS), axis=1))
    return n, high, low


@triton.jit
def _rescale(m, new_m, n, high, low, SUMS: tl.constexpr):
    """(n, 2**64 S) relative to a new maximum; if it has grown, what was counted is now summed."""
    grown = new_m > m
    high += tl.where(grown, n.to(SUMS) * 18446744073709551616.0, 0.0)
    n = tl.where(grown, 0, n)
    factor = exp_difference(m.to(SUMS), finite_reference(new_m).to(SUMS), 0.0, _BOOST, SUMS)
    # Both carry 2**64: one is taken out first where the product would overflow, else last.
    unboost = power_of_two(tl.full(high.shape, -_BOOST, tl.int32), SUMS)
    before = tl.where(high >= 1.0, unboost, 1.0)
    after = tl.where(high >= 1.0, 1.0, unboost)
    return n, high * before * factor * after, low * before * factor * after


@triton.jit
def _beyond_one(m, n, high, low, SUMS: tl.constexpr):
    """d - 1 as a pair; NaN for a row whose maximum is infinite, as in torch."""
    unboost = power_of_two(tl.full(high.shape, -_BOOST, tl.int32), SUMS)
    high, low = add_to_pair(tl.maximum(n - 1, 0).to(SUMS), low * unboost, high * unboost)
    rest = high + low
    low = (high - rest) + low
    return tl.where(tl.abs(m) < float("inf"), rest, float("nan")), low


@triton.jit
def _logarithm(x, m, log_d, log_d_low, SUMS: tl.constexpr):
    """A tile of (x - m) - log d."""
    gap = x.to(SUMS) - finite_reference(m).to(SUMS)[:, None]
    result = gap - log_d[:, None]
    if x.dtype == tl.float64:
        # What the two subtractions round away. Next to the largest value finding it overflows, and
        # the result stays within half a unit in the last place without it.
        reference = finite_reference(m)[:, None]
        near = tl.where(x > float("-inf"), x, reference)
        difference = near - reference
        back = difference - near
        lost = (near - (difference - back)) - (reference + back)
        total = difference - log_d[:, None]
        back = total - difference
        lost += (difference - (total - back)) - (log_d[:, None] + back)
        lost -= log_d_low[:, None]
        result += tl.where(tl.abs(lost) < float("inf"), lost, 0.0)
    return result


@triton.jit
def _quotient(x, terms, m, d, inverse, correction, SUMS: tl.constexpr):
    """A tile of exp(x - m) / d, from its exponentials but in fp64."""
    if x.dtype == tl.float64:
        # Once more, with what d itself has rounded away in the argument.
        reference = finite_reference(m)[:, None]
        terms = exp_difference(x, reference, correction[:, None], _BOOST, tl.float64)
        unboost = power_of_two(tl.full(terms.shape, -_BOOST, tl.int32), SUMS)
        return divide(terms, tl.broadcast_to(d[:, None], terms.shape)) * unboost
    else:
        return terms.to(SUMS) * inverse[:, None]


@triton.jit
def _forward_kernel(
    x_ptr,  # (N, K) contiguous
    y_ptr,  # (N, K) out
    maximum_ptr,  # (N,) out: m
    normalizer_ptr,  # (N,) out: d; NaN for a row without a result
    n_rows,
    n_columns,
    LOG: tl.constexpr,
    STATISTICS: tl.constexpr,
    SUMS: tl.constexpr,
    PIECES: tl.constexpr,  # of a row that is held on chip, else ()
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STATIC_BLOCKS: tl.constexpr,
    UNIT: tl.constexpr,  # what n_columns is a multiple of
):
    n_columns = launch.known_multiple(n_columns, UNIT)
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = rows < n_rows
    m = tl.full([BLOCK_M], float("-inf"), STATISTICS)
    n = tl.zeros([BLOCK_M], tl.int32)
    high = tl.zeros([BLOCK_M], SUMS)
    low = tl.zeros([BLOCK_M], SUMS)
    if len(PIECES) > 0:
        row = load_row(x_ptr, rows, inside, n_columns, n_columns, float("-inf"), PIECES)
        for i in tl.static_range(len(PIECES)):
            m = raise_maximum(widen(row[i], STATISTICS), m)
        terms = ()
        for i in tl.static_range(len(PIECES)):
            x = widen(row[i], STATISTICS)
            terms = terms + (_power(x, m),)  # type: ignore[assignment]
            n, high, low = _take_in(x, terms[i], m, n, high, low, SUMS)
    else:
        if STATISTICS == tl.float64:
            for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
                columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
                mask = inside[:, None] & (columns < n_columns)[None, :]
                offsets = rows[:, None] * n_columns + columns[None, :]
                m = raise_maximum(tl.load(x_ptr + offsets, mask=mask, other=float("-inf")), m)
        for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
            columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
            mask = inside[:, None] & (columns < n_columns)[None, :]
            offsets = rows[:, None] * n_columns + columns[None, :]
            x = widen(tl.load(x_ptr + offsets, mask=mask, other=float("-inf")), STATISTICS)
            if STATISTICS != tl.float64:
                new_m = raise_maximum(x, m)
                n, high, low = _rescale(m, new_m, n, high, low, SUMS)
                m = new_m
            power = _power(x, m)
            n, high, low = _take_in(x, power, m, n, high, low, SUMS)

    rest, rest_low = _beyond_one(m, n, high, low, SUMS)
    d, d_low = add_to_pair(tl.full([BLOCK_M], 1.0, SUMS), rest_low, rest)
    tl.store(maximum_ptr + rows, m, mask=inside)
    tl.store(normalizer_ptr + rows, d, mask=inside)
    log_d = log1p(rest)
    log_d_low = rest_low / d
    inverse = power_of_two(tl.full([BLOCK_M], -_BOOST, tl.int32), SUMS) / d
    correction = (-d_low / d).to(STATISTICS)
    if len(PIECES) > 0:
        start = 0
        for i in tl.static_range(len(PIECES)):
            x = widen(row[i], STATISTICS)
            if LOG:
                y = _logarithm(x, m, log_d, log_d_low, SUMS)
            else:
                y = _quotient(x, terms[i], m, d, inverse, correction, SUMS)
            y = narrow(y, y_ptr.dtype.element_ty)
            store_piece(y_ptr, rows, inside, n_columns, n_columns, y, start)
            start += PIECES[i]
    else:
        for block in range(launch.block_count(n_columns, BLOCK_N, STATIC_BLOCKS)):
            columns = block * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
            mask = inside[:, None] & (columns < n_columns)[None, :]
            offsets = rows[:, None] * n_columns + columns[None, :]
            x = widen(tl.load(x_ptr + offsets, mask=mask, other=float("-inf")), STATISTICS)
            if LOG:
                y = _logarithm(x, m, log_d, log_d_low, SUMS)
            else:
                power = _power(x, m)
                y = _quotient(x, power, m, d, inverse, correction, SUMS)
            tl.store(y_ptr + offsets, narrow(y, y_ptr.dtype.element_ty), mask=mask)
