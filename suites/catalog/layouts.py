"""Layouts that several operations share: (rows, columns) float64 arrays at magnitude 1."""

import numpy as np

from harness.formats import Format
from harness.operation import Draws

WEAK = 2.0**-10  # how much smaller the crowd is than the one entry that stands out


def gaussian(draws: Draws) -> np.ndarray:
    """Independent standard normal entries."""
    return draws.generator("input").standard_normal(draws.shape)


def columns(draws: Draws, role: str = "target") -> np.ndarray:
    """One column a row, (rows,) int64."""
    rows, width = draws.shape
    return draws.generator(role).integers(0, width, size=rows)


def one_entry(draws: Draws, where: np.ndarray) -> np.ndarray:
    """Zeros with a single 1 a row, in the given column."""
    base = np.zeros(draws.shape)
    base[np.arange(len(where)), where] = 1.0
    return base


def outlier(draws: Draws) -> np.ndarray:
    """A weak Gaussian crowd and one entry a row, 2**10 times larger, of random sign."""
    base = WEAK * gaussian(draws)
    where = columns(draws, "outlier")
    sign = draws.generator("sign").choice([-1.0, 1.0], size=len(where))
    base[np.arange(len(where)), where] = sign
    return base


def uniform(draws: Draws) -> np.ndarray:
    """Uniform in (-1, 1): at the smallest normal magnitude every entry is subnormal."""
    return draws.generator("input").uniform(-1.0, 1.0, size=draws.shape)


def no_magnitude(fmt: Format) -> tuple[float, float]:
    """For layouts that a magnitude cannot change."""
    return 0.0, 0.0


def subnormal_range(fmt: Format) -> tuple[float, float]:
    """From the smallest subnormal to the smallest normal number."""
    return fmt.smallest, fmt.smallest_normal


def only_one(fmt: Format) -> tuple[float, float]:
    """For layouts whose point is not their size: magnitude 1 alone."""
    return 1.0, 1.0


def below_the_last_binades(fmt: Format) -> tuple[float, float]:
    """For sums whose rounding, at the very end of the range, makes them infinite a few units in the
    last place before their truth is: all but the last three binades.
    """
    return fmt.smallest, fmt.largest / 8


def beside(where: np.ndarray, width: int) -> np.ndarray:
    """Another column in each row: the next one, around the end."""
    return (where + 1) % width
