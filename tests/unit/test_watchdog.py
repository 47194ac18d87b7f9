"""Work that hangs ends its process; work that goes on is left alone, however long it takes."""

from __future__ import annotations

import subprocess
import sys

_HANGS = """
import threading
from mdtool.core.watchdog import Watchdog
with Watchdog("kafka", 0.3) as watchdog:
    watchdog.note()
    threading.Event().wait()
"""
_GOES_ON = """
import threading, time
from mdtool.core.watchdog import Watchdog
with Watchdog("kafka", 1.0) as watchdog:
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        watchdog.note()
        threading.Event().wait(0.01)
threading.Event().wait(1.5)
print("done")
"""


def _run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_call_that_does_not_come_back_ends_the_process_with_a_line():
    ended = _run(_HANGS)
    assert ended.returncode == 1
    assert "kafka: a call has not returned for 0.3 s, ended by force" in ended.stderr


def test_work_with_progress_or_at_its_end_is_not_ended():
    ended = _run(_GOES_ON)
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
