"""Follows a GradScaler: its normal skipped steps are no finding, a scale that collapses is."""

from typing import TYPE_CHECKING, Any

import torch

from harness.diagnosis import findings as making
from harness.diagnosis.accuse import report, root_of
from harness.diagnosis.cause import Evidence
from harness.diagnosis.chain import Chain
from harness.diagnosis.flow import Origin
from harness.diagnosis.moving import suspects

if TYPE_CHECKING:
    from harness.diagnosis.session import Session

# Skipped steps in a row after which a scaler no longer looks for its scale: 2^16 halved to below 1.
SKIPS = 17
# Causes that a smaller loss scale may cure.
_SCALABLE = ("overflow", "divergence", "bad_data", "initialization", "unknown")


class Scaling:
    """What scalers did."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self.active = False
        self.skips = 0
        self.scale: float | None = None
        self.unscaled: dict[int, torch.Tensor] = {}  # losses before they were multiplied

    def scaled(self, scaler: Any, loss: Any) -> None:
        """A loss is about to be multiplied by the scale."""
        self.active = True
        if self.scale is None:
            self.scale = scaler.get_scale()
        if isinstance(loss, torch.Tensor):
            self.unscaled[id(loss)] = loss

    def stepped(self, scaler: Any, optimizer: Any, ran: bool) -> None:
        """The scaler has let the optimiser move, or has skipped it."""
        session = self._session
        session.optimizers.setdefault(id(optimizer), optimizer)
        if ran:
            self.skips = 0
            session.moving.stepped(optimizer)
            return
        self.skips += 1
        with session.quiet():
            origins: set[Origin] = set()
            for each in suspects(session, optimizer):
                origins |= session.flow.marks.of(each) or frozenset()
            root = root_of(origins)
        scale = scaler.get_scale()
        if root is not None and (self.skips >= SKIPS or scale < 1):
            detail = f"{scale:g} after {self.skips} skips"
            report(session, root, cause="loss_scale_collapse", detail=detail)
            return
        if root is not None and root.entry is not None and self._at_any_scale(root):
            report(session, root)
            return
        session.moving.stepped(optimizer)

    def _at_any_scale(self, root: Origin) -> bool:
        """Whether no loss scale would have helped: it is not a number that grew too large."""
        session = self._session
        evidence = Evidence(root, Chain(session.tape.entries), session.history, [])
        with session.quiet():
            _, verdict = making.make(evidence, roots=session.roots, base=session.base)
        return verdict.cause not in _SCALABLE
