"""Work that hangs ends its process; work that goes on is left alone, however long it takes."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys

import pytest

from mdtool.core import watchdog
from mdtool.core.errors import EXIT_FAILED
from mdtool.core.watchdog import Watchdog

CHECKS = watchdog._CHECKS
SILENCE_S = 300.0
_HANGS = """
import threading
from mdtool.core.watchdog import Watchdog
with Watchdog("kafka", 0.3) as watchdog:
    watchdog.note()
    threading.Event().wait()
"""


class Clock:
    """Stands in for the event that a watchdog waits on between its checks.

    Parameters
    ----------
    checks : iterable of callable
        What happens before each check; the work is over after the last one.
    """

    def __init__(self, checks):
        self.now_s = 0.0
        self._checks = iter(checks)

    def wait(self, timeout_s):
        happen = next(self._checks, None)
        if happen is None:
            return True
        self.now_s += timeout_s
        happen()
        return False


class EndedError(Exception):
    """The process would have ended."""


@pytest.fixture
def watch(monkeypatch):
    """Have a watchdog watch by a clock; return that, and whether it ended the process."""
    statuses = []

    def end(status):
        statuses.append(status)
        raise EndedError

    monkeypatch.setattr(watchdog.os, "_exit", end)
    monkeypatch.setattr(watchdog.logging, "shutdown", lambda: None)

    def run(watched, checks):
        clock = watched._over = Clock(checks)
        statuses.clear()
        with contextlib.suppress(EndedError):
            watched._watch()
        return clock, statuses == [EXIT_FAILED]

    return run


def silence():
    """Nothing happens."""


def test_a_call_that_does_not_come_back_ends_the_process_with_a_line():
    command = [sys.executable, "-c", _HANGS]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert "kafka: a call has not returned for 0.3 s, ended by force" in ended.stderr


def test_silence_ends_the_process_after_its_time(watch, caplog):
    clock, has_ended = watch(Watchdog("kafka", SILENCE_S), itertools.repeat(silence))
    assert has_ended
    assert clock.now_s == pytest.approx(SILENCE_S)
    assert "kafka: a call has not returned for 300 s, ended by force" in caplog.text


def test_silence_counts_from_the_last_progress(watch):
    watched = Watchdog("kafka", SILENCE_S)
    early = [silence] * (CHECKS - 1)
    clock, has_ended = watch(watched, [*early, watched.note, *early, watched.note, *early, silence])
    assert has_ended
    assert clock.now_s == pytest.approx(3 * SILENCE_S)


@pytest.mark.parametrize("silent_checks", [0, 1, CHECKS - 1])
def test_work_with_progress_is_not_ended_however_long_it_takes(watch, silent_checks):
    watched = Watchdog("kafka", SILENCE_S)
    clock, has_ended = watch(watched, [*[silence] * silent_checks, watched.note] * 50)
    assert not has_ended
    assert clock.now_s == pytest.approx(50 * (silent_checks + 1) * SILENCE_S / CHECKS)


def test_work_that_is_over_is_watched_no_longer():
    with Watchdog("kafka", SILENCE_S) as watched:
        assert not watched._over.is_set()
    assert watched._over.is_set()
