"""Processes that tests start."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path


class ChildProcess(subprocess.Popen):
    """A process that its `with` block waits for, and that is killed if the block or the wait fails.

    `Popen` would wait on, and with it a test whose time is up.
    """

    def __exit__(self, kind, error, traceback):
        if kind is not None:
            self.kill()
        try:
            super().__exit__(kind, error, traceback)
        except BaseException:
            self.kill()
            self.wait()
            raise


def children(pid: int) -> list[int]:
    """Return the children of a process; a zombie is one until it is reaped."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread has
                found += map(int, (task / "children").read_text().split())
    return found
