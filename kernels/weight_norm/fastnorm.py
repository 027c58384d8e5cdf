"""A weight-normalised linear layer that infers its row norms from the optimizer's steps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .fused import row_squares
from .inference import NormState, drift, gram_pays
from .linear import WeightNormLinear
from .product import GradientFactors
from .recognition import (
    Group,
    Observation,
    observe,
    version_after,
    why_not_ours,
    why_not_plain,
)
from .scaling import shifted


@dataclass(frozen=True, slots=True)
class _Known:
    """A weight as far as it can be told without reading it."""

    weight: Tensor
    version: int
    address: int

    @classmethod
    def of(cls, weight: Tensor) -> _Known:
        return cls(weight, weight._version, weight.data_ptr())

    def is_still(self, weight: Tensor, version: int) -> bool:
        """Whether `weight` is this tensor and storage, at that version."""
        same = weight is self.weight and weight.data_ptr() == self.address
        return same and weight._version == version


@dataclass(frozen=True, slots=True)
class NormStatistics:
    """Where a layer's norms came from so far, and how good the inferred ones were."""

    inferred: int  # optimizer steps whose effect on the norms was inferred
    recomputed: dict[str, int]  # forward passes that computed every norm, by reason
    repaired_rows: int  # rows computed again alone, because their checksum was wrong
    max_drift: float  # relative, inferred against exact norm, over all refreshes so far


class FastNormLinear(WeightNormLinear):
    """y = x w^T + bias with rows w = g v / ||v||, the norms inferred rather than computed.

    Arguments, parameters and results are `WeightNormLinear`'s. After `attach_fastnorm(optimizer,
    model)` a step of plain SGD (any lr or schedule, weight decay, maximize, foreach, fused) moves
    the norms by the recurrence of `kernels.weight_norm.inference`, which reads nothing of the
    weight's size. Whatever else may have changed the weight is met by two nets, and answered by
    computing norms exactly, never by trusting them:

    1. Only a step recognised in full is inferred: torch.optim.SGD itself without momentum, whose
       group stayed as it was, one backward pass of one use, whose gradient is the very tensor that
       reached the step at the version it was made, into a parameter without gradient
       (zero_grad(set_to_none=True), torch's default), between two known versions of the weight.
       All else computes every norm again at the next forward pass, and says why.
    2. Every forward pass holds each row against an inferred checksum, which costs two more samples
       in the batch. It finds edits that torch's version counters do not know of.

    Without attachment norms are kept while the weight stays as it is and computed again when it
    changes. In compiled code, function transforms, inference mode, under autocast and with reduced
    matmul precision (TF32) this is a `WeightNormLinear`: there the norms are computed each time.

    `norm_statistics` and `drift()` say what happened; both wait for the device.

    Raises:
        TypeError: on a dtype other than fp16, bf16, fp32, fp64, or an input of another dtype than
            the weight's outside autocast.
        ValueError: on an input without `in_features` features.

    >>> layer = FastNormLinear(8, 4)
    >>> layer(torch.randn(2, 3, 8)).shape
    torch.Size([2, 3, 4])
    """

    # Made at the first forward pass; not part of the state dict, nor of copies.
    _state: NormState | None = None
    _known: _Known | None = None  # what the state is of
    _stale: str | None = "first use"  # why the next forward pass must compute every norm
    # Set by attach_fastnorm.
    attachments: int = 0
    refresh_every: int | None = None
    infer_half: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seen: list[Observation] = []
        self._inferred = 0
        self._recomputed: Counter[str] = Counter()

    # --- forward ----------------------------------------------------------------------------------

    def forward(self, input: Tensor) -> Tensor:  # (..., K) -> (..., N)
        if (reason := self._why_untracked(input)) is not None:
            if not torch.compiler.is_compiling():
                self._recomputed[reason] += 1
            exponent, square = row_squares(self.weight_v.detach())
            return self._product(input, exponent, square, None)
        with torch.no_grad():
            self._settle()
        return self._product(input, None, None, _Watch(self))

    def _why_untracked(self, input: Tensor) -> str | None:
        """Why this forward pass is one that Python cannot, or should not, keep state in."""
        v = self.weight_v
        if torch.compiler.is_compiling():
            return "compiled"
        if torch._C._functorch.peek_interpreter_stack() is not None:
            return "function transform"
        if torch.is_inference_mode_enabled() or v.is_inference():
            return "inference mode"
        plain = (Tensor, torch.nn.Parameter)
        if type(v) not in plain or type(input) not in plain or v.is_meta:
            return "tensor subclass"
        if torch.is_autocast_enabled(input.device.type):
            return "autocast"  # casting the weight reads it anyway, and its product is coarse
        if v.dtype == torch.float32 and _reduced_precision(v):
            return "reduced matmul precision"
        return None

    def _settle(self) -> None:
        """Bring the state up to the weight as far as versions tell; checksums tell the rest."""
        v = self.weight_v
        if self._state is None:
            self._state, self._stale = NormState(v), self._stale or "first use"
        state, reason = self._state, self._stale
        if reason is None and not self._unchanged():
            reason = "weight changed"
        due = self.refresh_every is not None and state.steps >= self.refresh_every
        if reason is None and due:
            state.recompute(v, compare=True)
            self._recomputed["refresh"] += 1
        elif reason is not None:
            state.recompute(v)
            self._recomputed[reason] += 1
        self._known = _Known.of(v)
        self._stale = None

    def _unchanged(self) -> bool:
        """Whether the weight is the tensor, storage and version that the state is of."""
        known = self._known
        return known is not None and known.is_still(self.weight_v, known.version)

    # --- step -------------------------------------------------------------------------------------

    def _observe(self, factors: GradientFactors, version: int) -> None:
        state, v = self._state, self.weight_v
        if state is None or self._known is None or v is not self._known.weight:
            return
        new = observe(state.step_of(factors), v, version, factors.gradient)
        if new.fresh:  # what earlier backward passes added is gone
            self._seen = [old for old in self._seen if old.backward == new.backward]
        self._seen = [*self._seen[:1], new]  # two are already too many to account for

    def _after_step(
        self, optimizer: torch.optim.Optimizer, group: Group, group_unchanged: bool
    ) -> None:
        """Account for a step that the optimizer has just made with this layer's weight."""
        v, seen = self.weight_v, self._seen
        self._seen = []
        if v.grad is None:
            return  # the optimizer has passed it by
        known = self._known
        if self._state is None or known is None or self._stale is not None:
            return
        reason = None if group_unchanged else "parameter group changed during the step"
        reason = reason or why_not_plain(optimizer, group)
        if reason is None and v.dtype in (torch.float16, torch.bfloat16) and not self.infer_half:
            reason = "half-precision weight"
        reason = reason or why_not_ours(v, seen, known.version)
        if reason is None and not known.is_still(v, version_after(known.version, group)):
            reason = "weight changed beside the step"
        if reason is not None:
            self._stale = reason
            return
        with torch.no_grad():
            self._state.advance(
                seen[0].step, group["lr"], group["weight_decay"], ascent=group["maximize"]
            )
        self._inferred += 1
        self._known = _Known.of(v)

    # --- what users read --------------------------------------------------------------------------

    @property
    def norm_statistics(self) -> NormStatistics:
        """Counts and drift since the layer was made (or copied)."""
        state = self._state
        repaired = 0 if state is None else int(state.repaired)
        worst = 0.0 if state is None else float(state.max_drift)
        return NormStatistics(self._inferred, dict(self._recomputed), repaired, worst)

    @property
    def inferred_norms(self) -> Tensor | None:
        """The norms (N,) as the state has them; None where the next forward pass computes them."""
        known = self._state is not None and self._stale is None and self._unchanged()
        return self._state.norms() if known and self._state is not None else None

    def drift(self) -> float:
        """The largest relative deviation of the norms held from the exact ones; changes nothing.

        0 where the next forward pass will compute them in any case.
        """
        if self.inferred_norms is None or self._state is None:
            return 0.0
        exponent, square = row_squares(self.weight_v.detach())
        held = shifted(
            self._state.square + self._state.carry, 2 * (self._state.exponent - exponent)
        )
        return float(drift(held, square))

    # --- copies, moves, loads ---------------------------------------------------------------------

    def _forget(self) -> None:
        self._state, self._known, self._seen = None, None, []
        if self._stale != "first use":
            self._stale = "moved or converted"

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Moved or converted: start again on the new device, in the new dtype."""
        self._forget()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: everything but what belongs to this very weight tensor."""
        state = dict(self.__dict__)
        for name in ("_state", "_known", "_stale", "refresh_every", "infer_half", "attachments"):
            state.pop(name, None)
        return state | {"_seen": [], "_inferred": 0, "_recomputed": Counter()}


class _Watch:
    """One forward pass's monitor."""

    def __init__(self, layer: FastNormLinear) -> None:
        self.layer = layer
        self.attached = layer.attachments > 0  # else nobody will ask what the gradient was
        assert layer._known is not None
        self.version = layer._known.version

    def product(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert self.layer._state is not None
        return self.layer._state.product(x, v)

    def wants_squares(self, x: Tensor, v: Tensor) -> bool:
        return self.attached and not gram_pays(x.shape[0], v.shape[1], v.shape[0])

    def observe(self, factors: GradientFactors) -> None:
        if self.attached:
            self.layer._observe(factors, self.version)


def _reduced_precision(v: Tensor) -> bool:
    """Whether fp32 products are made of less than fp32 numbers."""
    backend = torch.backends.cuda.matmul if v.is_cuda else torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    return getattr(backend, "fp32_precision", "none") not in ("none", "ieee")
