"""Ctrl-C and signals that terminate: delayed, and as the end of a process."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from mdtool.core.interrupts import uninterrupted


def test_an_interrupt_waits_for_the_end_of_a_step():
    steps = []

    def step():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            steps.append("done")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        step()
    assert steps == ["done"]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_first_interrupt_ends_a_step_that_would_go_on():
    asked = []

    def step():
        with uninterrupted(lambda: asked.append("end")):
            while not asked:
                signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            asked.append("done")

    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            step()
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert asked == ["end", "done"]


def test_a_second_interrupt_does_not_wait():
    steps = []

    def step():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            steps.append("done")

    with pytest.raises(KeyboardInterrupt):
        step()
    assert steps == []


TERMINATED = """
import atexit, signal
from mdtool.core.interrupts import catch_termination, outcome, uninterrupted

signal.signal(signal.SIGHUP, signal.{before})
catch_termination()
atexit.register(print, "removed")
try:
    with uninterrupted():
        for _ in range(3):
            signal.raise_signal(signal.SIGHUP)
        print("step done")
    print("next step")
except KeyboardInterrupt:
    raise SystemExit(outcome({status}))
"""


@pytest.mark.parametrize(
    ("before", "status", "ended", "printed"),
    [
        pytest.param("SIG_DFL", 130, -signal.SIGHUP, "step done\nremoved\n", id="terminated"),
        pytest.param("SIG_DFL", 1, 1, "step done\nremoved\n", id="failed while it ended"),
        pytest.param("SIG_IGN", 130, 0, "step done\nnext step\nremoved\n", id="under nohup"),
    ],
)
def test_a_terminated_process_ends_by_its_signal_after_what_its_exit_does(
    before, status, ended, printed
):
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED.format(before=before, status=status)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (ended, printed, "")


def test_an_interrupt_after_the_command_has_ended_is_silent():
    code = """
import atexit, signal
from mdtool.core import interrupts
atexit.register(signal.raise_signal, signal.SIGINT)
interrupts.release()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, b"")
