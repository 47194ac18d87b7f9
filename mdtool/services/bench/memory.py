"""How much memory a replay takes, whatever the length of its file."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from mdtool.core.errors import MdtoolError
from mdtool.services.bench.figures import Figure, against

RECORDS: Final = 4_000_000


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
    _run("simulate", "--limit", str(records), "-o", str(path))
    return path


def _peak_mb(path: Path) -> float:
    child = subprocess.Popen(
        [sys.executable, "-m", "mdtool", "replay-dbn", str(path), "--speed", "0", "-C"],
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise MdtoolError(f"replay-dbn of {path.name} ended with status {child.returncode}")
    kilobytes = usage.ru_maxrss if sys.platform != "darwin" else usage.ru_maxrss / 1024
    return kilobytes / 1024


def _run(*arguments: str) -> None:
    result = subprocess.run([sys.executable, "-m", "mdtool", *arguments], check=False)
    if result.returncode:
        raise MdtoolError(f"mdtool {arguments[0]} ended with status {result.returncode}")
