"""IEEE 754 rounding in exact arithmetic: what the theory of a formula is computed with.

Knows nothing of torch or of the harness's own judging: a rational number goes in, the nearest float
of a format comes out, ties to even, overflow to infinity.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import flint

from harness.formats import Format

_BITS = 300  # working precision of exp and log: far beyond any tie between floats


def nearest(fmt: Format, value: Fraction) -> float:
    """Round a rational to the format: nearest, ties to even, gradual underflow, overflow to inf."""
    if value == 0:
        return 0.0
    if value < 0:
        return -nearest(fmt, -value)
    exponent = max(_floor_log2(value), fmt.min_exponent)
    spacing = Fraction(2) ** (exponent - fmt.precision + 1)
    steps, rest = divmod(value, spacing)
    steps += 1 if 2 * rest > spacing or (2 * rest == spacing and steps % 2) else 0
    rounded = steps * spacing
    return math.inf if rounded > Fraction(fmt.largest) else float(rounded)


def _floor_log2(value: Fraction) -> int:
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if Fraction(2) ** guess <= value else guess - 1


def exponential(x: float) -> Fraction:
    """exp(x), to about 300 bits."""
    return _fraction(lambda: flint.arb(x).exp())


def logarithm(value: Fraction) -> Fraction:
    """log(value), to about 300 bits."""
    return _fraction(lambda: (flint.arb(value.numerator) / value.denominator).log())


def square_root(value: float) -> Fraction:
    """sqrt(value), to about 300 bits."""
    return _fraction(lambda: flint.arb(value).sqrt())


def _fraction(compute: Callable[[], Any]) -> Fraction:
    before, flint.ctx.prec = flint.ctx.prec, _BITS
    try:
        mantissa, exponent = compute().mid().man_exp()
    finally:
        flint.ctx.prec = before
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def first_above(fmt: Format, holds: Callable[[float], bool]) -> float:
    """The smallest float of at least 1 at which a condition holds that holds from there on."""
    return fmt.from_ordinal(_bisect(fmt.ordinal(1.0), fmt.ordinal(fmt.largest), fmt, holds))


def first_below(fmt: Format, holds: Callable[[float], bool]) -> float:
    """The largest float of at most 1 at which a condition holds that holds from there down."""
    return fmt.from_ordinal(_bisect(fmt.ordinal(1.0), 1, fmt, holds))


def _bisect(fails: int, holds_at: int, fmt: Format, holds: Callable[[float], bool]) -> int:
    assert not holds(fmt.from_ordinal(fails))
    assert holds(fmt.from_ordinal(holds_at))
    while abs(holds_at - fails) > 1:
        middle = (holds_at + fails) // 2
        if holds(fmt.from_ordinal(middle)):
            holds_at = middle
        else:
            fails = middle
    return holds_at
