"""How a service's process starts, stops in time and is never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import textwrap

import pytest

from mdtool.core.errors import ConfigError, StartupError
from mdtool.core.lifecycle import LIFELINE_FD, READY_FD, announce, first_error, run_service
from tests.support.processes import ChildProcess

FOR_EVER_S = 60
"""Longer than any of these tests may take."""


@pytest.fixture
def spawn():
    """Start a process that runs a service with a given body, and wait until it says `running`."""
    started = []

    def start(body, *, cleanup="pass", within_s=FOR_EVER_S, under=(), **popen):
        script = f"""
import asyncio, os, signal, sys, time
from mdtool.core import logs
from mdtool.core.lifecycle import run_service

class Probe:
    name = "probe"
    async def run(self, started):
        try:
{textwrap.indent(textwrap.dedent(body), " " * 12)}
        finally:
            print("stopping", flush=True)
{textwrap.indent(textwrap.dedent(cleanup), " " * 12)}
            print("stopped", flush=True)

logs.configure()
sys.exit(run_service(Probe(), within_s={within_s}))
"""
        process = ChildProcess(
            [*under, sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **popen,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


WAIT = "print('running', flush=True); await asyncio.Event().wait()"
BUSY = f"print('running', flush=True); time.sleep({FOR_EVER_S})"


def expect(process, line):
    assert process.stdout.readline() == f"{line}\n", process.stderr.read()


def outcome(process):
    """Return the exit status, the rest of stdout and stderr."""
    out, err = process.communicate()
    return process.returncode, out, err


def test_a_service_that_ends_by_itself_is_ok(spawn):
    assert outcome(spawn("pass"))[0] == 0


@pytest.mark.parametrize(
    ("number", "status", "reason"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 0, "terminated"),
        (signal.SIGHUP, 0, "terminated"),
    ],
)
def test_a_signal_stops_in_order(spawn, number, status, reason):
    process = spawn(WAIT)
    expect(process, "running")
    process.send_signal(number)
    code, out, err = outcome(process)
    assert (code, out) == (status, "stopping\nstopped\n")
    assert f"probe: stopping ({reason})" in err
    assert "Traceback" not in err


def test_a_signal_that_does_not_interrupt_the_waiting_loop_stops_it_too(spawn):
    process = spawn(f"""
        import threading
        send = threading.Timer(0, signal.raise_signal, (signal.SIGTERM,))  # to its own thread
        asyncio.get_running_loop().call_soon(send.start)
        {WAIT}
    """)
    assert outcome(process)[:2] == (0, "running\nstopping\nstopped\n")


def test_a_process_whose_errors_nobody_reads_ends_too(spawn):
    process = spawn(
        """
        from mdtool.core.lifecycle import log
        print("running", flush=True)
        log.error("x" * (1 << 24))
    """,
        within_s=0.1,
    )
    expect(process, "running")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 1


def test_a_signal_ends_what_compiles_a_kernel_for_a_blocked_loop(spawn, tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    body = """
        import numpy as np
        from mdtool.engine.live_bar_kernel import merge
        rows = np.zeros((1, 16), np.int64)
        merge(rows, 0, rows.copy(), 0)
    """
    process = spawn(body, env=environment)
    assert "compiling" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    code, out, err = outcome(process)
    assert (code, out) == (0, "stopping\nstopped\n")
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*.code"))


def test_a_hangup_is_left_ignored_where_it_was(spawn):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as the process takes it over
    try:
        process = spawn("print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)")
    finally:
        signal.signal(signal.SIGHUP, before)
    expect(process, "True")


RELOADING = f"""
    from mdtool.core import reloading
    class Files:
        def read_again(self):
            print("read again", flush=True)
    files = Files()
    reloading.add(files)
    {WAIT}
"""


def test_a_hangup_without_a_terminal_has_files_read_again(spawn):
    process = spawn(RELOADING, start_new_session=True)
    expect(process, "running")
    for _ in range(2):
        process.send_signal(signal.SIGHUP)
        expect(process, "read again")
    process.send_signal(signal.SIGTERM)
    assert outcome(process)[:2] == (0, "stopping\nstopped\n")


def test_the_end_of_its_terminal_stops_a_service_that_has_files(spawn):
    ours, its = pty.openpty()
    process = spawn(RELOADING, under=("setsid", "-c"), stdin=its)
    os.close(its)
    expect(process, "running")
    os.close(ours)
    assert outcome(process)[:2] == (0, "stopping\nstopped\n")


def test_a_supervised_service_without_files_goes_on_after_a_hangup(spawn):
    reading, writing = os.pipe()
    environment = {**os.environ, LIFELINE_FD: str(reading)}
    process = spawn(WAIT, env=environment, pass_fds=[reading])
    expect(process, "running")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)  # handled after it, even where both wait
    code, _, err = outcome(process)
    os.close(reading)
    os.close(writing)
    assert code == 130
    assert "stopping (interrupted)" in err


def test_a_second_interrupt_ends_at_once(spawn):
    process = spawn(WAIT, cleanup="await asyncio.Event().wait()")
    expect(process, "running")
    process.send_signal(signal.SIGINT)
    expect(process, "stopping")
    process.send_signal(signal.SIGINT)
    assert outcome(process)[:2] == (130, "")


def test_an_interrupt_after_a_termination_ends_at_once(spawn):
    process = spawn(WAIT, cleanup="await asyncio.Event().wait()")
    expect(process, "running")
    process.send_signal(signal.SIGTERM)
    expect(process, "stopping")
    process.send_signal(signal.SIGINT)
    assert outcome(process)[0] == 130


def test_a_second_termination_is_the_same_as_one(spawn):
    process = spawn(WAIT, cleanup="sys.stdin.readline()", stdin=subprocess.PIPE)
    expect(process, "running")
    process.send_signal(signal.SIGTERM)
    expect(process, "stopping")
    process.send_signal(signal.SIGTERM)
    process.stdin.write("\n")
    assert outcome(process)[:2] == (0, "stopped\n")


def test_interrupts_end_a_service_whose_loop_is_busy(spawn):
    process = spawn(BUSY)
    expect(process, "running")
    while process.poll() is None:  # two that come at once may arrive as one
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("body", "cleanup"),
    [
        pytest.param(WAIT, "await asyncio.Event().wait()", id="waits for ever"),
        pytest.param(WAIT, f"time.sleep({FOR_EVER_S})", id="blocks the loop"),
        pytest.param(BUSY, "pass", id="was blocking the loop already"),
        pytest.param(
            f"asyncio.get_running_loop().run_in_executor(None, time.sleep, {FOR_EVER_S}); {WAIT}",
            "pass",
            id="leaves a thread behind",
        ),
    ],
)
def test_a_stop_that_takes_too_long_is_ended_by_force(spawn, body, cleanup):
    process = spawn(body, cleanup=cleanup, within_s=0.2)
    expect(process, "running")
    process.send_signal(signal.SIGTERM)
    code, _, err = outcome(process)
    assert code == 1
    assert "probe: not stopped after 0.2 s, ended by force" in err


def test_how_long_a_stop_may_take_is_a_setting(spawn):
    environment = os.environ | {"MDTOOL_STOP_WITHIN_S": "0.3"}
    process = spawn(BUSY, within_s=None, env=environment)
    expect(process, "running")
    process.send_signal(signal.SIGTERM)
    code, _, err = outcome(process)
    assert code == 1
    assert "probe: not stopped after 0.3 s, ended by force" in err


@pytest.mark.parametrize("value", ["soon", "0", "nan"])
def test_a_wrong_time_to_stop_starts_nothing(value, monkeypatch):
    monkeypatch.setenv("MDTOOL_STOP_WITHIN_S", value)
    with pytest.raises(ConfigError, match="MDTOOL_STOP_WITHIN_S"):
        run_service(_Failing())


@pytest.fixture
def lifeline():
    """A supervisor's pipe: what a child needs to hold it, and a call that ends it."""
    read, write = os.pipe()
    ends = [write]
    environment = os.environ | {LIFELINE_FD: str(read)}
    yield {"pass_fds": [read], "env": environment}, lambda: os.close(ends.pop())
    os.close(read)
    for end in ends:
        os.close(end)


def test_a_service_stops_in_order_when_its_supervisor_is_gone(spawn, lifeline):
    child, cut = lifeline
    process = spawn(WAIT, **child)
    expect(process, "running")
    cut()
    code, out, err = outcome(process)
    assert (code, out) == (0, "stopping\nstopped\n")
    assert "supervisor ended" in err


def test_a_service_that_starts_after_its_supervisor_ended_stops(spawn, lifeline):
    child, cut = lifeline
    cut()
    assert outcome(spawn(WAIT, **child))[0] == 0


def test_a_busy_service_is_not_orphaned(spawn, lifeline):
    child, cut = lifeline
    process = spawn(BUSY, within_s=0.2, **child)
    expect(process, "running")
    cut()
    assert outcome(process)[0] == 1


def test_the_lifeline_is_not_handed_on(spawn, lifeline):
    child, _ = lifeline
    process = spawn(f"print({LIFELINE_FD!r} in os.environ, flush=True)", **child)
    expect(process, "False")


def test_a_child_reports_its_addresses_once(monkeypatch, caplog):
    read, write = os.pipe()
    monkeypatch.setenv(READY_FD, str(write))
    with caplog.at_level("INFO"), os.fdopen(read) as ready:
        announce("probe")({"tcp": "127.0.0.1:50050", "http": "127.0.0.1:8080"})
        said = ready.read()
    assert json.loads(said) == {
        "service": "probe",
        "addresses": {"tcp": "127.0.0.1:50050", "http": "127.0.0.1:8080"},
    }
    assert said.count("\n") == 1
    assert READY_FD not in os.environ
    assert caplog.messages == ["probe: ready on tcp 127.0.0.1:50050, http 127.0.0.1:8080"]


def test_addresses_that_parts_have_logged_are_reported_alone(monkeypatch, caplog):
    read, write = os.pipe()
    monkeypatch.setenv(READY_FD, str(write))
    with caplog.at_level("INFO"), os.fdopen(read) as ready:
        announce("probe", logs=False)({"a tcp": "127.0.0.1:50050"})
        assert json.loads(ready.read())["addresses"] == {"a tcp": "127.0.0.1:50050"}
    assert caplog.messages == []


def test_a_client_is_ready_without_a_word(monkeypatch, caplog):
    read, write = os.pipe()
    monkeypatch.setenv(READY_FD, str(write))
    with caplog.at_level("INFO"), os.fdopen(read) as ready:
        announce("probe")({})
        assert json.loads(ready.read())["addresses"] == {}
    assert caplog.messages == []


def test_without_a_supervisor_ready_is_only_logged(monkeypatch, caplog):
    monkeypatch.delenv(READY_FD, raising=False)
    with caplog.at_level("INFO"):
        announce("probe")({"tcp": "127.0.0.1:50050"})
    assert caplog.messages == ["probe: ready on tcp 127.0.0.1:50050"]


class _Failing:
    """A service whose task group fails."""

    name = "failing"

    async def run(self, started):
        async with asyncio.TaskGroup() as group:
            group.create_task(self._fail())
            group.create_task(asyncio.Event().wait())

    async def _fail(self):
        raise StartupError("port 50050 is in use")


def test_what_fails_inside_a_task_group_comes_out_as_itself():
    with pytest.raises(StartupError, match="port 50050"):
        run_service(_Failing())


def test_signal_handlers_are_given_back():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(StartupError):
        run_service(_Failing())
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_the_first_error_of_nested_groups():
    first = ValueError("first")
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", [first]), TypeError("second")])
    assert first_error(nested) is first
    assert first_error(first) is first
