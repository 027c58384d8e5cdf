"""What a catalog says of an operation: its inputs, its truth, its paths and their claims."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.errors import unknown
from harness.formats import Format
from harness.verdict import Verdict

Roles = dict[str, Tensor]  # role name -> tensor, in the order the paths take them

# The role that is no input: the gradient handed to backward, of the forward result's shape. Paths
# do not get it, truth and slack do; a regime that draws none has upstream ones.
UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a path promises; a case whose verdict is in `broken_by` breaks it."""

    name: str
    broken_by: frozenset[Verdict]


_NO_RESULT = frozenset(v for v in Verdict if v.is_fault) - {Verdict.UNSUPPORTED}
FINITE = Claim(
    "finite whenever the truth is representable, non-finite where it is not",
    _NO_RESULT
    | frozenset(v for v in Verdict if v.is_nonfinite)
    | {Verdict.UNWRITTEN, Verdict.MASKED_NONFINITE},
)
ACCURATE = Claim(
    "within the operation's error bound of the truth",
    FINITE.broken_by | {Verdict.UNDERFLOW, Verdict.INACCURATE},
)
PURE = Claim("leaves its inputs untouched", frozenset({Verdict.MUTATED_INPUT}))
REPEATABLE = Claim("bitwise the same twice", frozenset({Verdict.NONDETERMINISTIC}))
SUPPORTED = Claim("runs in this dtype on this device", frozenset({Verdict.UNSUPPORTED}))
ALL_CLAIMS = (FINITE, ACCURATE, PURE, REPEATABLE, SUPPORTED)


@dataclass(frozen=True, slots=True)
class Path:
    """One implementation of an operation.

    `function` takes the operation's roles as positional arguments, in the operation's order, and
    the regime's options by keyword; it returns one tensor with one result a row (losses) or an
    element (norms), differentiable in the first role. A regime with roles or options that its
    signature lacks is recorded as unsupported. To say that it does not take a dtype or device it
    raises NotImplementedError, whose text is recorded.
    """

    name: str
    function: Callable[..., Tensor]
    claims: tuple[Claim, ...] = ()  # empty: only recorded
    overwrites_input: bool = False  # known to do so on the clone it is given: recorded, no verdict
    launch_magnitudes: int = 31  # in one launch of a bisection; fewer where rows are costly
    note: str = ""  # one line for tables and docs
    package: str = ""  # the distribution that ships it, if one does: a run records its version
    # Whether it cannot run here whatever the case, a library that is not installed: then one case a
    # dtype says so, and not thousands.
    absent: Callable[[], bool] = field(default=lambda: False)


@dataclass(frozen=True, slots=True)
class Expected:
    """The truth of one output, as an unevaluated sum of two doubles.

    All fields are float64 tensors of the output's shape. `slack` is the sum of the absolute values
    of the terms whose cancellation no algorithm in the statistics' dtype avoids (zero where there
    is none); the judge multiplies it by that dtype's unit roundoff and the operation's factor.
    """

    high: Tensor  # the truth rounded to a double
    low: Tensor  # what that rounding lost
    slack: Tensor
    overflows: Tensor  # bool: the truth is finite, but no double holds it

    @staticmethod
    def of(high: Tensor, slack: Tensor | None = None) -> "Expected":
        """A truth that is accurate enough as a single double."""
        return Expected(
            high,
            torch.zeros_like(high),
            torch.zeros_like(high) if slack is None else slack,
            torch.zeros_like(high, dtype=torch.bool),
        )

    def __getitem__(self, rows: slice) -> "Expected":
        return Expected(self.high[rows], self.low[rows], self.slack[rows], self.overflows[rows])


@dataclass(frozen=True, slots=True)
class Draws:
    """Where a regime gets its numbers: they depend on nothing but what seeded the generators."""

    generator: Callable[[str], np.random.Generator]  # role -> its own stream
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Regime:
    """How inputs are laid out.

    `draw` returns the operation's roles as float64 or int64 arrays at magnitude 1. The first role
    is multiplied by the magnitude, clipped to the format's finite values and rounded; the other
    float roles are only rounded. Roles are laid out row by row, except those named in `shared`,
    which all rows have in common (a norm's weight). `options` go to the operation's functions and
    to the paths by keyword, and into the case's id. `magnitudes` limits the axis: given a format it
    returns the (low, high) that make sense, or (0.0, 0.0) where the regime has no magnitude.
    """

    name: str
    meaning: str
    draw: Callable[[Draws], Mapping[str, np.ndarray]]
    magnitudes: Callable[[Format], tuple[float, float]] = field(
        default=lambda fmt: (fmt.smallest, fmt.largest)
    )
    shape: tuple[int, int] | None = None  # where the operation's own shape would hide the point
    options: Mapping[str, float | str | bool] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    # Inputs of another kind than the operation's plain ones, in the same places (probabilities for
    # classes): `assert_stable` leaves it out, for a function need not take them.
    extension: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """A mathematical function, with all that is needed to judge implementations of it.

    The functions take the inputs already rounded to the case's dtype and widened to float64, rows
    along the first dimension, and the regime's options by keyword. They return the truth of
    "forward" and of "backward": the gradient with respect to the first role, of the sum of all
    outputs (upstream ones) or, where there is a role "upstream", of their sum weighted by it.
    """

    name: str
    meaning: str
    truth: Callable[..., dict[str, Tensor]]  # of Roles; float64 formulas, for fp16, bf16 and fp32
    certified: Callable[..., dict[str, list[Any]]]  # of one row's lists; returns arb balls
    slack: Callable[..., dict[str, Tensor]]  # of Roles
    regimes: tuple[Regime, ...]
    paths: tuple[Path, ...]
    max_ulp: float = 2.0  # of the output's dtype
    slack_factor: float = 0.0  # k in: max_ulp ULP + k * unit roundoff * slack
    shape: tuple[int, int] = (4, 64)  # (rows, columns) of the first role at each magnitude

    def path(self, name: str) -> Path:
        """The path of that name; raises InputError with the valid ones."""
        for each in self.paths:
            if each.name == name:
                return each
        raise unknown(f"path of {self.name}", name, [each.name for each in self.paths])

    def regime(self, name: str) -> Regime:
        """The regime of that name; raises InputError with the valid ones."""
        for each in self.regimes:
            if each.name == name:
                return each
        raise unknown(f"regime of {self.name}", name, [each.name for each in self.regimes])

    def shape_in(self, regime: Regime) -> tuple[int, int]:
        """(rows, columns) of the first role at each magnitude."""
        return regime.shape or self.shape

    def with_paths(self, *paths: Path) -> "Operation":
        """The same operation with these paths instead: how one's own kernel gets swept."""
        return replace(self, paths=tuple(paths))
