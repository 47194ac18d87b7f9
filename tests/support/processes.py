"""Processes that tests start."""

from __future__ import annotations

import subprocess


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
