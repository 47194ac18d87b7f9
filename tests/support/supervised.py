"""`mdtool serve all` as a process, on free ports, and its output."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import select
import signal
import subprocess
import sys
import threading

import pytest

from mdtool.core.lifecycle import LIFELINE_FD
from tests.support.processes import children

PATIENCE_S = 200.0
"""How long a test waits for a line before it fails."""
GRACE_S = 30.0
"""How long services may take to end after their supervisor."""
FREE_PORTS = [
    *("--serve-tcp-port", "0"),
    *("--aggregate-port", "0"),
    *("--vwap-port", "0"),
    *("--gateway-port", "0"),
]

needs_pidfd = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="needs process descriptors (Linux)"
)

STORES = {"--memory", "--store", "--data-dir"}
"""The options for the store."""


class Supervised:
    """A running supervisor, which ends with the test process; its lines are stored as they come."""

    def __init__(self, *arguments):
        lifeline, self._lifeline = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mdtool", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[lifeline],
            env={**os.environ, LIFELINE_FD: str(lifeline)},
        )
        os.close(lifeline)
        self.lines = []
        self._is_ready = threading.Event()
        self._fresh = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)
            if "serve: ready" in line:
                self._is_ready.set()
            self._fresh.put(line)
        self._fresh.put(None)

    def heard(self, pattern):
        """Wait for the next line that matches, and return the match."""
        try:
            while (line := self._fresh.get(timeout=PATIENCE_S)) is not None:
                if found := re.search(pattern, line):
                    return found
        except queue.Empty:
            pass
        raise AssertionError(f"never said {pattern!r}:\n" + "".join(self.lines))

    def addresses(self, services):
        """Return where each service listens, once all are ready; the supervisor runs with -J."""
        said = [json.loads(self.process.stdout.readline() or "{}") for _ in range(services)]
        assert self._is_ready.wait(PATIENCE_S), "".join(self.lines)  # what is on stderr comes apart
        return {entry["service"]: next(iter(entry["addresses"].values()), "") for entry in said}

    def pids(self):
        """Return the process id under which each program started last."""
        started = re.findall(r"(\S+): started as process (\d+)", "".join(self.lines))
        return {name: int(pid) for name, pid in started}

    def end(self, number=None):
        """Send a signal, if any, and return the exit status once the process and its lines end."""
        if number is not None:
            self.process.send_signal(number)
        self.process.wait()
        self._reader.join()
        return self.process.returncode

    def close(self):
        """Kill it, and wait until its services have noticed: what they use is free then."""
        left = children(self.process.pid) if self.process.poll() is None else []
        with Watch(left) as services:
            self.process.kill()
            self.process.wait()
            services.end(GRACE_S)
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        os.close(self._lifeline)


def check(addresses, *arguments):
    """Run `mdtool serve --check` over running services."""
    options = []
    for name, address in addresses.items():
        options += [f"--{name}-port", address.rpartition(":")[2]]
    return subprocess.run(
        [sys.executable, "-m", "mdtool", "serve", "--check", "--ticks", "3", *options, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@contextlib.contextmanager
def serve(*arguments, before=()):
    """Run `mdtool serve` with these arguments, in memory if no store is named."""
    if "all" in arguments and not STORES.intersection(arguments):
        arguments = (*arguments, "--memory")
    supervised = Supervised(*before, "serve", *arguments)
    try:
        yield supervised
    finally:
        supervised.close()


class Watch:
    """Observes the end of processes, also of those that are not children."""

    def __init__(self, pids):
        self._watched = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                self._watched.append(os.pidfd_open(pid))

    def __enter__(self):
        return self

    def __exit__(self, *_exc_info):
        for process in self._watched:
            os.close(process)

    def all_ended(self, timeout_s):
        """Wait for each of them."""
        return all(select.select([process], [], [], timeout_s)[0] for process in self._watched)

    def end(self, grace_s):
        """Wait for each of them, and kill those that take too long."""
        for process in self._watched:
            if not select.select([process], [], [], grace_s)[0]:
                signal.pidfd_send_signal(process, signal.SIGKILL)
                select.select([process], [], [])
