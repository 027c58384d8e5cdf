"""The most memory that a group of runs held: of the GPU, or of this process where there is none."""

import resource
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Begins anew when made. On a CPU Python's and torch's own memory, some 400 MB, is in it."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._anew = False
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            return
        try:
            _RESET.write_text("5")
            self._anew = "VmHWM:" in _STATUS.read_text()
        except OSError:  # no Linux, or not allowed: the peak is that of the process so far
            pass

    def bytes(self) -> int:
        """The peak since this was made."""
        if self._device == "cuda":
            return torch.cuda.max_memory_allocated()
        if not self._anew:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        (line,) = (each for each in _STATUS.read_text().splitlines() if each.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
