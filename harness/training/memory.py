"""How much memory a group of runs took at its peak, beyond what was held before."""

import resource
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Bytes of a GPU's memory, or of this process where there is no GPU."""

    def __init__(self, device: str) -> None:
        self._device = device
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
            return
        try:
            _RESET.write_text("5")  # the peak begins anew
            self._before = _of_process("VmRSS")
        except OSError:  # no Linux, or not allowed: the peak is that of the process so far
            self._before = _largest()

    def bytes(self) -> int:
        """The peak since this was made."""
        if self._device == "cuda":
            return torch.cuda.max_memory_allocated() - self._before
        try:
            peak = _of_process("VmHWM")
        except OSError:
            peak = _largest()
        return max(0, peak - self._before)


def _of_process(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {name} in {_STATUS}")


def _largest() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
