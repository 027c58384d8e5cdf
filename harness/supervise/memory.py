"""Whether Linux killed a process for memory."""

from pathlib import Path

# Of this control group (version 2), as containers and batch systems limit it, and of the machine.
_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


def killed_for_memory() -> int:
    """How many processes were, in all, as far as the kernel says."""
    found = 0
    for path in _COUNTERS:
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        words = (line.split() for line in lines)
        found += sum(int(pair[1]) for pair in words if len(pair) == 2 and pair[0] == "oom_kill")
    return found
