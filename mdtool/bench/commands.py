"""mdtool's own commands run to their end, as a shell would, and how long that takes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

from mdtool.core.errors import MdtoolError


def run_command(*arguments: object) -> None:
    """Run `mdtool` with its output thrown away, and what it says too.

    Raises
    ------
    MdtoolError
        When it fails.
    """
    command = [sys.executable, "-m", "mdtool", "--log-level", "error", *map(str, arguments)]
    ended = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    if ended.returncode:
        raise MdtoolError(f"{' '.join(command[2:])}: {ended.stderr.strip()}")


def wall_times_s(rounds: int, *ways: Callable[[], object]) -> list[float]:
    """Return the median seconds that each of some ways takes, which take turns."""
    taken_s: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, times_s in zip(ways, taken_s, strict=True):
            began_s = time.perf_counter()
            way()
            times_s.append(time.perf_counter() - began_s)
    return [median(times_s) for times_s in taken_s]
