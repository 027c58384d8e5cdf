"""The norms' state: how a step of known form moves them, and how a wrong one is noticed.

For a step v' = a v - f d with d orthogonal to v (every gradient of a weight-normalised row is),

    ||v'||**2 = a**2 ||v||**2 + f**2 ||d||**2,    ||d||**2 = ||u||**2 - (u.v)**2 / ||v||**2,

where u = sum_k a_k x_k is of the batch's rank: u.v comes from the pre-activations z = x.v, and
||u||**2 = a (x x^T) a^T from the batch's Gram matrix (Malladi & Sharapov 2018 infer the norms from
the low-rank update in this way). That is B**2 (K + N) multiplications where computing the norms
again reads N K weights. Where the batch is too large for that to pay, ||d||**2 is summed where the
gradient is written.

**Checksums.** Nothing sees every edit of a tensor from outside: `.data`, fused optimizers,
GradScaler and raw pointers move no version counter. So each row has a checksum, its product with
two fixed random vectors p. What it must be after a step is inferred like the norm, p.v' = a p.v - f
p.d; what it is comes with the next forward, whose matrix product takes p as two more samples and so
reads no weight again. A row whose checksum differs by more than rounding explains is computed
again, that row alone, without the host asking which. Elements of p are ±(1 + random mantissa), so
that no simple edit (doubled rows, exchanged elements) is orthogonal to both.

A row's sum is never set to the measured one while its norm is inferred, so small unaccounted
changes add up until they show. What remains unseen is a change by less than `tolerance`, relatively
about 1e-5 in fp32 (1e-13 in fp64, some units in the last place in half precision), or one that is
nearly orthogonal to both vectors by accident (a random change of relative size s: with probability
about (tolerance / s)**2); both until the next refresh.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import launch
from .fused import update_row_squares
from .product import GradientFactors, lift_of, matrix_product
from .scaling import exponents, log2_above, power_of_two, shifted

PROBES = 2
# A multiplication costs less than reading a weight from memory; by how much depends on the device.
MULTIPLICATIONS_PER_READ = 4


@dataclass(frozen=True, slots=True)
class Step:
    """The gradient of v as the norms' recurrence needs it; v / 2**e is the unit throughout."""

    squares: Tensor  # (N,) ||d||**2
    size: Tensor  # (N,) ||u||, of which d is the rest after cancellation
    along_probes: Tensor  # (N, P) p.d
    exponent: Tensor  # (N,) int32: the gradient is d * 2**exponent


def gram_pays(rank: int, n_columns: int, n_rows: int) -> bool:
    """Whether the batch's Gram matrix costs less than a pass over the gradient."""
    return rank * rank * (n_columns + n_rows) <= MULTIPLICATIONS_PER_READ * n_columns * n_rows


class NormState:
    """The norms of the rows of v (N, K) as pairs, square * 4**exponent, with their checksums."""

    def __init__(self, v: Tensor) -> None:
        n_rows, n_columns = v.shape
        self.statistics = launch.statistics_dtype(v.dtype)
        new = v.detach().new_zeros
        self.exponent = new(n_rows, dtype=torch.int32)
        self.square = new(n_rows, dtype=self.statistics)
        # What adding increments to the squares lost (Knuth's TwoSum): steps of a relative size
        # below 2**-12 would otherwise never move an fp32 square.
        self.carry = torch.zeros_like(self.square)
        self.slack = torch.zeros_like(self.square)
        self.checksum = new(n_rows, PROBES, dtype=self.statistics)
        self.checked = False  # whether `checksum` says what the next measurement must be
        self.repaired = new((), dtype=torch.int64)
        self.max_drift = new((), dtype=self.statistics)
        self.steps = 0
        # As rows of x are: the sum of sizes at most 1, except in fp16.
        self.probe_exponent = 0 if v.dtype == torch.float16 else log2_above(n_columns) + 1
        self.probes = (_random_probes(n_columns) * 2.0**-self.probe_exponent).to(v)
        self.unit_roundoff = torch.finfo(v.dtype).eps / 2
        self.sum_roundoff = torch.finfo(self.statistics).eps / 2

    def norms(self) -> Tensor:  # (N,)
        """||v|| row by row."""
        return shifted((self.square + self.carry).sqrt(), self.exponent)

    # --- exact ------------------------------------------------------------------------------------

    def recompute(self, v: Tensor, compare: bool = False) -> None:
        """The norms of v as it is. With `compare` the deviation of the inferred ones is kept."""
        if compare:
            exponent, inferred = self.exponent.clone(), self.square + self.carry
        every = torch.ones_like(self.square, dtype=torch.bool)
        self._recompute_rows(v, every)
        if compare:
            inferred = shifted(inferred, 2 * (exponent - self.exponent))
            self.max_drift.copy_(torch.maximum(self.max_drift, drift(inferred, self.square)))
        self.checked = False
        self.steps = 0

    def _recompute_rows(self, v: Tensor, selected: Tensor) -> None:
        update_row_squares(v, selected, self.exponent, self.square)
        self.carry.masked_fill_(selected, 0.0)
        self.slack.masked_fill_(selected, 0.0)

    # --- forward ----------------------------------------------------------------------------------

    def product(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x.v / 2**e, e, and the squares, after every row's checksum has been held against v."""
        raw, lift = self._raw_product(x, v)
        measured = self._checksum_of(raw, lift)
        if self.checked:
            wrong = self.mismatch(measured)
            before = self.exponent.clone()
            self._recompute_rows(v, wrong)
            self.repaired.add_(wrong.sum())
            if v.is_cuda:
                measured = shifted(measured, (before - self.exponent)[:, None])
            elif bool(wrong.any()):
                # The product may have been formed at a scale that suited the weight before. (A GPU
                # is not asked; there such an overflow shows, and lasts for one forward pass.)
                raw, lift = self._raw_product(x, v)
                measured = self._checksum_of(raw, lift)
            self.checksum.copy_(torch.where(wrong[:, None], measured, self.checksum))
        else:
            self.checksum.copy_(measured)
            self.checked = True
        z = shifted(raw[: len(x)], -lift - self.exponent)
        return z, self.exponent.clone(), self.square + self.carry

    def _checksum_of(self, raw: Tensor, lift: Tensor) -> Tensor:  # (B + P, N) -> (N, P)
        return shifted(raw[-PROBES:].t(), (self.probe_exponent - lift - self.exponent)[:, None])

    def _raw_product(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(x, p).v times 2**lift, and lift: one product, so that v is read once."""
        lift = lift_of(self.exponent, v.dtype)
        rows = torch.cat([x, self.probes])
        if v.dtype != torch.float16:
            rows = rows * power_of_two(lift, self.statistics).to(v.dtype)
        return matrix_product(rows, v.t(), self.statistics), lift

    def mismatch(self, measured: Tensor) -> Tensor:  # (N, P) -> (N,)
        """Which rows' checksums are not what they must be; NaN never is."""
        near = (measured - self.checksum).abs() <= self.tolerance()[:, None]
        return ~near.all(dim=1)

    def tolerance(self) -> Tensor:  # (N,)
        """How far rounding alone may take a checksum: 8 times its standard deviation or more.

        Of a sum of K products, at most about sqrt(K) / 2 roundings of its size (it is summed in
        several parts), each time; of the weight's own rounding, 0.6 of a unit roundoff a step,
        which add up as a random walk does; of the recurrence, `slack`.
        """
        n_columns = self.probes.shape[1]
        product = (4.0 + math.sqrt(n_columns)) * self.sum_roundoff
        stored = 8.0 * math.sqrt(self.steps) * self.unit_roundoff
        return 2.0 * (product + stored) * self.square.sqrt() + self.slack

    # --- backward and step ------------------------------------------------------------------------

    def step_of(self, factors: GradientFactors) -> Step:
        """The gradient's squares and products with the probes, from its factors."""
        a, x = factors.weights, factors.x
        if gram_pays(a.shape[0], self.probes.shape[1], a.shape[1]):
            gram = matrix_product(x, x.t(), self.statistics)
            size = (a * (gram @ a)).sum(dim=0).clamp(min=0.0)
            squares = (size - factors.dot.square()).clamp(min=0.0)
        else:
            squares = factors.squares
            size = squares + factors.dot.square()
        on_probes = matrix_product(x, self.probes.t(), self.statistics) * 2.0**self.probe_exponent
        along_probes = a.t() @ on_probes - factors.along[:, None] * self.checksum
        exponent = factors.size_exponent - factors.exponent
        return Step(squares, size.sqrt(), along_probes, exponent)

    def advance(self, step: Step, lr: float | Tensor, weight_decay: float, ascent: bool) -> None:
        """The state after v' = (1 - lr weight_decay) v -+ lr d; nothing of size N K is read."""
        factor, factor_exponent = _fraction(lr)
        scale = step.exponent - self.exponent + factor_exponent  # lr d in units of v / 2**e
        root = step.squares.sqrt()
        reach = torch.where(root > 0, exponents(root) + scale, -1000)
        down = (reach - 20).clamp(min=0)  # a step that dwarfs the row changes the unit
        added = shifted(root * factor, scale - down).square()
        square, carry = (shifted(part, -2 * down) for part in (self.square, self.carry))
        decayed = -lr * weight_decay * (2.0 - lr * weight_decay)
        square, carry = _two_sum(square, square * decayed + added + carry)

        # Back to squares within [1, 4), with 2**e and 2**-e normal numbers.
        limit = 1022 if self.statistics == torch.float64 else 126
        usable = torch.isfinite(square) & (square > 0)
        up = torch.where(usable, exponents(square) >> 1, 0)
        exponent = (self.exponent + down + up).clamp(-limit, limit).to(torch.int32)
        up = exponent - self.exponent - down
        moved = -down - up
        # Not times 1 - lr weight_decay: its rounding would be the same in every step, and add up.
        shrunk = self.checksum - self.checksum * (lr * weight_decay)
        direction = factor if ascent else -factor
        along = shifted(step.along_probes * direction, (scale + moved)[:, None])
        grown = 64.0 * self.sum_roundoff * shifted(step.size * abs(factor), scale + moved)
        self.slack.copy_(torch.hypot(shifted(self.slack, moved), grown))
        self.square.copy_(shifted(square, -2 * up))
        self.carry.copy_(shifted(carry, -2 * up))
        self.checksum.copy_(shifted(shrunk, moved[:, None]) + along)
        self.exponent.copy_(exponent)
        self.steps += 1


def drift(inferred: Tensor, exact: Tensor) -> Tensor:
    """The largest relative deviation of the root of `inferred` from that of `exact`, a scalar."""
    ratio = torch.where(exact == inferred, 1.0, inferred / exact).sqrt()
    return (ratio - 1.0).abs().amax() if ratio.numel() else ratio.sum()


def _two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def _fraction(lr: float | Tensor) -> tuple[Any, Any]:
    """lr as a fraction within [1/2, 1) times a power of two; a tensor stays on its device."""
    if isinstance(lr, Tensor):
        pair = torch.frexp(lr.detach().double())
        return pair.mantissa.to(torch.float32), pair.exponent
    return math.frexp(lr)


def _random_probes(n_columns: int) -> Tensor:  # (P, K) fp64
    """±[1, 2), the same for every layer of a width, of 7 random bits so that bf16 holds them."""
    generator = torch.Generator().manual_seed(2018)
    shape = (PROBES, n_columns)
    mantissa = torch.randint(128, shape, generator=generator).double() / 128
    sign = torch.randint(2, shape, generator=generator).double() * 2 - 1
    return sign * (1 + mantissa)
