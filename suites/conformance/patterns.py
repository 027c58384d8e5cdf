"""Floats by their bits: every 16-bit pattern, a sample of them, and a float of any exponent.

A sample is stratified and drawn from a fixed seed: it holds every exponent with the mantissas at
which rounding and classification change, so that infinities, NaNs with a payload, subnormals and
both zeros are always among it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.formats import Format, format_of

SAMPLE = 1024


def every_pattern(dtype: torch.dtype) -> Tensor:  # (65536,)
    """All values of a 16-bit dtype in the order of their bits."""
    return torch.arange(65536, dtype=torch.int32).to(torch.int16).view(dtype)


def sample_patterns(dtype: torch.dtype, size: int = SAMPLE) -> Tensor:  # (size,)
    """Both signs of every exponent with boundary mantissas, and random patterns up to `size`.

    The mantissas: 0 (powers of two, zero, infinity), 1 (the smallest subnormal, a signalling NaN),
    the two around one half (ties; the quiet bit of a NaN), and the last (where rounding carries).
    Where all of them are more than `size`, the subnormal, the smallest, the largest and the
    non-finite exponents have all, and the others one or two, in turn.
    """
    bits = format_of(dtype).precision - 1
    half = 1 << (bits - 1)
    mantissas = torch.tensor([0, 1, half - 1, half, 2 * half - 1], dtype=torch.int32)
    heads = torch.arange(1 << (16 - bits), dtype=torch.int32)  # sign and exponent
    strata = (heads[:, None] << bits) | mantissas
    if strata.numel() > size:
        exponent = heads & (len(heads) // 2 - 1)
        ends = (exponent < 2) | (exponent > len(heads) // 2 - 3)
        column = torch.arange(len(mantissas))
        turn = heads[:, None] % len(mantissas)
        kept = ends[:, None] | (column == turn)
        # A second one for as many exponents as there is room for, spread evenly.
        room = size - int(kept.sum())
        second = (column == (turn + 2) % len(mantissas)) & ~kept
        places = second.nonzero()
        places = places[torch.linspace(0, len(places) - 1, max(room, 0)).long()]
        kept[places[:, 0], places[:, 1]] = True
        chosen = strata[kept]
    else:
        chosen = strata.reshape(-1)
    generator = torch.Generator().manual_seed(16)
    rest = torch.randint(65536, (size - len(chosen),), generator=generator, dtype=torch.int32)
    return torch.cat([chosen, rest]).to(torch.int16).view(dtype)


def exponents(fmt: Format) -> Tensor:  # int64
    """All exponents of a format's finite values, those of its subnormals included; the first stands
    for zero.
    """
    lowest = fmt.min_exponent - fmt.precision + 1
    return torch.arange(lowest - 1, fmt.max_exponent + 1)


def sample_exponents(fmt: Format, size: int = 48) -> Tensor:  # (size,) int64, sorted
    """Zero, both ends of the subnormal and of the normal range, those around which squares,
    exponentials and units in the last place of 1 change regime, and random others.
    """
    every = exponents(fmt)
    zero, lowest, top = int(every[0]), int(every[1]), fmt.max_exponent
    known = [zero, lowest, lowest + 1, fmt.min_exponent - 1, fmt.min_exponent, top - 1, top]
    # Where squares underflow and overflow; where exp does (ln(max) lies just below 2**k).
    known += [lowest // 2 - 1, lowest // 2, fmt.min_exponent // 2, top // 2, top // 2 + 1]
    overflow = top.bit_length() - 1
    known += [overflow - 1, overflow, overflow + 1]
    known += [-fmt.precision - 1, -fmt.precision, 1 - fmt.precision, -1, 0, 1, fmt.precision]
    generator = torch.Generator().manual_seed(3)
    others = every[torch.randperm(len(every), generator=generator)].tolist()
    chosen = list(dict.fromkeys(known + others))[:size]
    return torch.tensor(sorted(chosen))


def of_exponents(
    exponent: Tensor,  # int64, any shape
    fmt: Format,
    generator: torch.Generator,
) -> Tensor:  # the format's dtype, same shape
    """A float of random sign and mantissa for each exponent; one mantissa in four is all zeros or
    all ones.
    """
    lowest = fmt.min_exponent - fmt.precision + 1
    width = fmt.precision - 1  # stored bits of the mantissa
    free = (exponent - lowest).clamp(0, width)  # bits below the leading one
    span = torch.ones_like(free) << free
    high, low = (
        torch.randint(1 << 26, exponent.shape, generator=generator, dtype=torch.int64)
        for _ in range(2)
    )
    mantissa = ((high << 26) | low) & (span - 1)
    kind = torch.randint(8, exponent.shape, generator=generator)
    mantissa = torch.where(kind == 0, 0, torch.where(kind == 1, span - 1, mantissa))
    # A subnormal's leading one is an ordinary bit; a normal's carries into the exponent field,
    # which is one too small before it does.
    field = (exponent - fmt.min_exponent).clamp(min=0) << width
    bits = torch.where(exponent < lowest, 0, field + span + mantissa)
    negative = torch.randint(2, exponent.shape, generator=generator).bool()
    top_bit = -(1 << (fmt.bits - 1))
    return torch.where(negative, bits | top_bit, bits).to(fmt.bit_dtype).view(fmt.dtype)


def exponent_pairs(
    fmt: Format,
    chosen: Tensor,  # (E,) int64
    part: int,
    parts: int,
) -> tuple[Tensor, Tensor]:  # (about E * E / parts,) each
    """Floats for every pair of the chosen exponents; `part` of `parts` has every parts-th first
    exponent.
    """
    first = chosen[part::parts]
    generator = torch.Generator().manual_seed(1000 + part)
    left = first[:, None].expand(-1, len(chosen)).reshape(-1)
    right = chosen[None, :].expand(len(first), -1).reshape(-1)
    return of_exponents(left, fmt, generator), of_exponents(right, fmt, generator)
