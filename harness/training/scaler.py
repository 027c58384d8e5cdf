"""torch.amp.GradScaler's rule, a loss scale a lane."""

import torch
from torch import Tensor

INITIAL = 65_536.0
_GROWTH, _BACKOFF = 2.0, 0.5
_INTERVAL = 2000  # steps without a non-finite gradient before the scale grows


class LaneScaler:
    """Scales losses, and halves the scale of a lane whose gradient was not finite."""

    def __init__(self, lanes: int, device: str) -> None:
        self.scale = torch.full((lanes,), INITIAL, dtype=torch.float32, device=device)
        self._growing = torch.zeros(lanes, dtype=torch.int64, device=device)

    def update(self, found: Tensor) -> None:  # (lanes,) bool: this step was skipped
        """As GradScaler.update."""
        self._growing = torch.where(found, 0, self._growing + 1)
        grow = self._growing >= _INTERVAL
        grown = self.scale * _GROWTH
        # As torch: never grown to infinity.
        grown = torch.where(torch.isfinite(grown), grown, self.scale)
        self.scale = torch.where(grow, grown, self.scale)
        self.scale = torch.where(found, self.scale * _BACKOFF, self.scale)
        self._growing = torch.where(grow, 0, self._growing)

    def keep(self, lanes: Tensor) -> None:
        """Forget all lanes but these, given by index."""
        self.scale, self._growing = self.scale[lanes], self._growing[lanes]
