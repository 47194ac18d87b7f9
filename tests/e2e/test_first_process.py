"""`mdtool` as the first process of a container: signals, exit statuses and orphans."""

from __future__ import annotations

import functools
import os
import pty
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.support.processes import ChildProcess, children
from tests.support.requirements import missing
from tests.support.services import service

ALONE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Runs a command as the first process of a namespace, and ends with its status."""
COMMAND = [*ALONE, sys.executable, "-m", "mdtool"]
PATIENCE_S = 60.0


@functools.cache
def can_be_first() -> bool:
    return (
        shutil.which("unshare") is not None
        and not subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode
    )


@pytest.fixture(autouse=True)
def _namespaces():
    if not can_be_first():
        missing("this user may not make process namespaces")


def wait_until(condition):
    """Return what a condition returns once it is true; what it is about cannot be waited for."""
    until_s = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < until_s
        time.sleep(0.01)
    return found


def first_and_child(unshare: int) -> tuple[int, int]:
    """Return the first process of a namespace, and the one that it runs mdtool in."""
    (first,) = wait_until(lambda: children(unshare))
    (child,) = wait_until(lambda: children(first))
    return first, child


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_service_stops_in_order(number):
    with service("serve-tcp", "--port", "0", under=ALONE) as started:
        first, _ = first_and_child(started.process.pid)
        os.kill(first, number)
        errors = started.process.communicate()[1].decode()
    assert started.process.returncode == 0
    assert "stopping (terminated)" in errors


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, 137), (signal.SIGINT, 130)]
)
def test_a_signal_ends_it_while_it_imports(number, status, tmp_path):
    # What is imported first blocks for ever, and so no signal comes too late.
    reached = tmp_path / "reached"
    (tmp_path / "typer.py").write_text(
        f"import time\nopen({str(reached)!r}, 'w').close()\nwhile True: time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with ChildProcess([*COMMAND, "serve", "all"], env=environment, stderr=subprocess.PIPE) as run:
        first, child = first_and_child(run.pid)
        wait_until(reached.exists)
        os.kill(child if number == signal.SIGKILL else first, number)
        assert run.communicate()[1] == b""
    assert run.returncode == status


def test_its_status_is_that_of_the_command():
    done = subprocess.run([*COMMAND, "serve-tcp", "--port", "x"], capture_output=True, check=False)
    assert done.returncode == 2
    assert subprocess.run([*COMMAND, "--version"], capture_output=True, check=False).returncode == 0


def test_orphans_are_reaped():
    with service("serve-tcp", "--port", "0", under=ALONE) as started:
        first, child = first_and_child(started.process.pid)
        # The shell that starts it ends at once.
        subprocess.run(
            ["nsenter", f"--pid=/proc/{first}/ns/pid", "sh", "-c", "sleep 1000 >/dev/null &"],
            check=True,
        )
        (orphan,) = wait_until(lambda: [pid for pid in children(first) if pid != child])
        os.kill(orphan, signal.SIGKILL)
        wait_until(lambda: children(first) == [child])


def test_ctrl_c_in_a_terminal_is_one_interrupt():
    ours, terminal = pty.openpty()
    with (
        os.fdopen(ours, "wb", buffering=0) as keys,
        service(
            "serve-tcp", "--port", "0", under=("setsid", "--ctty", *ALONE), stdin=terminal
        ) as started,
    ):
        keys.write(b"\x03")
        errors = started.process.communicate()[1].decode()
        os.close(terminal)
    assert "stopping (interrupted)" in errors
    assert started.process.returncode == 130
