"""The peak memory of a replay, for a long and a short file."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from mdtool.bench.figures import Figure, against
from mdtool.bench.processes import run_command
from mdtool.core.errors import MdtoolError

RECORDS: Final = 4_000_000
_PEAK_OF: Final = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss)
"""
"""Runs a command from a small process: the system counts its parent's memory, too."""


def measure(records: int = RECORDS) -> list[Figure]:
    """Return the peak resident size of `replay-dbn -C` over a long and over a short file, in MB.

    The baseline is the same command over a hundredth of the records: flat memory is a ratio of 1.
    """
    with tempfile.TemporaryDirectory() as folder:
        peaks_mb = [
            _peak_mb(_simulated(Path(folder), count)) for count in (records, records // 100)
        ]
    return [
        against(
            "replay_csv_memory",
            peaks_mb[0],
            "MB",
            "a hundredth of the records",
            peaks_mb[1],
            better="lower",
        )
    ]


def _simulated(folder: Path, records: int) -> Path:
    path = folder / f"{records}.dbn"
    run_command("simulate", "--limit", records, "-o", path)
    return path


def _peak_mb(path: Path) -> float:
    command = [sys.executable, "-m", "mdtool", "replay-dbn", str(path), "--speed", "0", "-C"]
    measured = subprocess.run(
        [sys.executable, "-c", _PEAK_OF, *command], stdout=subprocess.PIPE, check=True
    )
    status, peak = map(int, measured.stdout.split())
    if status:
        raise MdtoolError(f"replay-dbn of {path.name} ended with status {status}")
    kilobytes = peak if sys.platform != "darwin" else peak / 1024
    return kilobytes / 1024
