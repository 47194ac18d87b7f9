"""What a process and all that it started use: CPU time, memory and more, as Linux counts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_USER, _SYSTEM = 11, 12
"""Places of CPU times in /proc/PID/stat, after the name."""


def family(process_id: int) -> Iterator[int]:
    """Yield a process, its children, and theirs."""
    yield process_id
    for thread in (_PROC / str(process_id) / "task").iterdir():
        for child in (thread / "children").read_text().split():
            yield from family(int(child))


def cpu_s(process_id: int) -> float:
    """Return the CPU time of a process so far, in seconds, in user mode and in the kernel."""
    fields = (_PROC / str(process_id) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / os.sysconf("SC_CLK_TCK")


def proportional_mb(process_id: int) -> float:
    """Return the memory of a process: what it shares counts by its share (PSS)."""
    for line in (_PROC / str(process_id) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1_024
    return 0.0


def descriptors(process_id: int) -> int:
    """Return how many descriptors a process has open."""
    return len(list((_PROC / str(process_id) / "fd").iterdir()))


def threads(process_id: int) -> int:
    """Return how many threads a process has."""
    return len(list((_PROC / str(process_id) / "task").iterdir()))
