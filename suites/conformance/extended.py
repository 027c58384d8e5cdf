"""Numbers with more bits and a wider exponent than fp64, as arrays: what truth is computed in.

numpy.longdouble is the x87 format of 64 significant bits on x86-64 and IEEE binary128 on AArch64,
both with 15 exponent bits: no square or product of two doubles overflows or underflows there, and a
truth is 2**11 times finer than what it judges. It is vectorised; ball arithmetic, against which the
formulas here are verified on samples, is a thousand times slower.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.operation import Expected

Array = np.ndarray  # of longdouble, unless said otherwise

_LIMITS = np.finfo(np.longdouble)
if _LIMITS.nmant < 63 or _LIMITS.maxexp < 16384:
    raise RuntimeError(
        f"numpy.longdouble has {_LIMITS.nmant + 1} significant bits and exponents up to"
        f" {_LIMITS.maxexp} here; truth needs at least 64 and 16384"
    )


_SMALLEST = np.longdouble(2) ** -1074


def extend(values: Tensor) -> Array:
    """The same values, exactly; integers stay int64."""
    host = values.detach().cpu()
    if not host.is_floating_point():
        return host.numpy()
    return host.double().numpy().astype(np.longdouble)


def difference(x: Array, reference: Array) -> tuple[Array, Array]:
    """x - reference, and what that rounding lost (Knuth's TwoSum); 0 lost where it is infinite."""
    high = x - reference
    back = high - x
    low = (x - (high - back)) - (reference + back)
    return high, np.where(np.isfinite(high), low, 0)


def exp_difference(x: Array, reference: Array) -> Array:
    """exp(x - reference), for reference >= x; relatively accurate however far apart they lie."""
    high, low = difference(x, reference)
    # The lost part counts for |high| units in the last place of the exponential. It may be large
    # only where the exponential is 0.
    return np.exp(high) * (1 + np.where(np.exp(high) == 0, 0, low))


def expected(value: Array, allowance: Array) -> Expected:
    """A truth as the harness's judge takes it: the nearest double, what is left, the allowance."""
    high = value.astype(np.float64)
    # Below the smallest subnormal a double says 0 or twice as much: 0, which either rounding is
    # within a unit in the last place of.
    high = np.where(np.abs(value) < _SMALLEST, 0.0, high)
    finite = np.isfinite(high)
    low = np.where(finite, value - np.where(finite, high, 0), 0).astype(np.float64)
    overflows = np.isfinite(value) & ~finite
    largest = np.finfo(np.float64).max
    slack = np.minimum(np.nan_to_num(allowance, nan=0.0), largest).astype(np.float64)
    return Expected(
        *(torch.from_numpy(np.ascontiguousarray(v)) for v in (high, low, slack, overflows))
    )
