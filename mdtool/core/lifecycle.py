"""How a service runs: started, distinguished from failed, stopped in time, and never orphaned.

A service is stopped by cancelling it. It then releases its resources in reverse order, as an
AsyncExitStack does, within the time of `StopConfig`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Final, Protocol

from mdtool.core import reloading
from mdtool.core.config import held, load, setting
from mdtool.core.descriptors import raise_file_limit
from mdtool.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from mdtool.core.interrupts import Blocking

log = logging.getLogger(__name__)

READY_FD: Final = "MDTOOL_READY_FD"
"""The descriptor on which a child reports that it is ready, as one JSON line."""
LIFELINE_FD: Final = "MDTOOL_LIFELINE_FD"
"""The read end of a pipe that its supervisor holds open: when it closes, the child stops."""

_DRAIN: Final = "drain"
_LAST_WORDS_S: Final = 1.0
"""How long logging may take before a process ends by force."""
_MANY_SIGNALS: Final = 4096
"""A signal that wakes the loop is a byte."""

Started = Callable[[Mapping[str, str]], None]
"""Called once, after every bind, with the real addresses by protocol: `{"tcp": ...}`.

A client, which listens nowhere, calls it without addresses once it is connected.
"""


@dataclass(frozen=True, slots=True)
class StopConfig:
    """Settings of the stop of processes, `[stop]`."""

    within_s: float = setting(
        5.0, "How long services may take to stop, before they are ended by force.", low=0.1
    )
    drain_s: float = setting(
        0.0,
        "For how long a service that stops answers as not ready and serves on, before `within-s` "
        "begins: as long as load balancers take to notice. A gateway closes its sockets one after "
        "the other meanwhile. In `serve all` only the gateway drains.",
        low=0,
    )


def drain_s() -> float:
    """Return for how long a service drains before it stops, in seconds.

    Raises
    ------
    ConfigError
        When the setting is not valid.
    """
    return load(StopConfig, "stop", {}).drain_s


def stop_within_s() -> float:
    """Return how long a service may take to stop, in seconds, once it has drained.

    Raises
    ------
    ConfigError
        When the setting is not valid.
    """
    return load(StopConfig, "stop", {}).within_s


def stop(task: asyncio.Task[None]) -> None:
    """Cancel the task of a service, which drains first; any other cancellation does not drain.

    Task groups cancel a service whose part has failed, and it must not serve on.
    """
    task.cancel(_DRAIN)


def is_drained(cancelled: asyncio.CancelledError) -> bool:
    """Return whether a cancellation is one by `stop`."""
    return cancelled.args == (_DRAIN,)


async def until_stopped(name: str, drain: Callable[[float], Awaitable[object]]) -> None:
    """Wait until a service is cancelled, and drain where `stop` did it. Another one ends the drain.

    Parameters
    ----------
    name : str
        The name of the service.
    drain : callable
        Called with the seconds that it drains for, if that is any time at all.
    """
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError as error:
        duration_s = drain_s()
        if duration_s and is_drained(error):
            log.info("%s: draining for %g s", name, duration_s)
            await drain(duration_s)
        raise


class Service(Protocol):
    """Something that runs until it is cancelled."""

    name: str

    async def run(self, started: Started) -> None:
        """Bind, call `started`, and serve until cancelled; then stop in order."""
        ...


def run_service(service: Service, within_s: float | None = None, *, logs_ready: bool = True) -> int:
    """Run a service until a signal, the end of its supervisor or its own; return an exit status.

    The first SIGINT, SIGTERM or SIGHUP stops it in order. A second SIGINT ends the process at
    once, and so does a stop that takes longer than `within_s`, by default the settings, even while
    the event loop is blocked. A process without a terminal that has certificates or keys reads them
    again at SIGHUP instead, and one that a supervisor runs never stops at it.

    Parameters
    ----------
    service : Service
    within_s : float, optional
    logs_ready : bool
        Whether to log its addresses, where its parts do not.

    Raises
    ------
    MdtoolError
        What the service itself raised.
    """
    raise_file_limit()
    with held():
        within_s = stop_within_s() + drain_s() if within_s is None else within_s
        deadline = threading.Timer(within_s, _give_up, (service.name, within_s))
        deadline.daemon = True
        try:
            return asyncio.run(_supervised(service, deadline, logs_ready))
        finally:
            Blocking.is_stopping = False
            deadline.cancel()


async def _supervised(service: Service, deadline: threading.Timer, logs_ready: bool) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(
        service.run(announce(service.name, logs=logs_ready)), name=service.name
    )
    stopping = _Stop(loop, task, deadline)
    is_supervised = LIFELINE_FD in os.environ
    watch_lifeline(lambda: stopping("supervisor ended", EXIT_OK))
    with _signals(stopping, _Hangup(loop, is_supervised)), _woken_by_signals(loop):
        try:
            with one_error():
                await task
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
    return stopping.status


class _Stop:
    """Turns the first request to stop, from any thread, into one cancellation with a deadline."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        task: asyncio.Task[None],
        deadline: threading.Timer,
    ) -> None:
        self._loop = loop
        self._task = task
        self._deadline = deadline
        self._context = contextvars.copy_context()
        """The service's own: a signal may come while another works in the same process."""
        self.requested = False
        self.status = EXIT_OK

    def __call__(self, reason: str, status: int) -> None:
        if self.requested:
            return
        self.requested = True
        self.status = status
        self._deadline.start()
        with contextlib.suppress(RuntimeError):  # the loop is closed: the service has ended
            self._loop.call_soon_threadsafe(self._cancel, reason, context=self._context)
        Blocking.stop()

    def _cancel(self, reason: str) -> None:
        log.info("%s: stopping (%s)", self._task.get_name(), reason)
        stop(self._task)


class _Hangup:
    """What SIGHUP means: the end of the terminal, or that files are to be read again."""

    def __init__(self, loop: asyncio.AbstractEventLoop, is_supervised: bool) -> None:
        self._loop = loop
        self._is_supervised = is_supervised
        self._has_terminal = _has_terminal()
        self._context = contextvars.copy_context()

    def ends(self) -> bool:
        """Return whether it stops the service."""
        if self._is_supervised:  # its supervisor stops it
            return False
        return self._has_terminal or not reloading.is_anything_in_use()

    def reload(self) -> None:
        """Read files again, in the loop's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the service has ended
            self._loop.call_soon_threadsafe(reloading.read_again, context=self._context)


def _has_terminal() -> bool:
    """Return whether a terminal controls this process, whose end is a SIGHUP."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _signals(stop: _Stop, hangup: _Hangup) -> Iterator[None]:
    """Stop at a signal.

    These are plain handlers, not the loop's, so that a blocked loop (one that compiles a kernel)
    does not keep a process from ending.
    """

    def received(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and not hangup.ends():
            hangup.reload()
        elif number != signal.SIGINT:
            stop("terminated", EXIT_OK)
        elif stop.requested:
            os._exit(EXIT_INTERRUPTED)
        else:
            stop("interrupted", EXIT_INTERRUPTED)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup does
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, received) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _give_up(name: str, within_s: float) -> None:
    # Nobody may read stderr: then logging blocks.
    end = threading.Timer(_LAST_WORDS_S, os._exit, (EXIT_FAILED,))
    end.daemon = True
    end.start()
    log.error("%s: not stopped after %g s, ended by force", name, within_s)
    logging.shutdown()
    os._exit(EXIT_FAILED)


@contextlib.contextmanager
def _woken_by_signals(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Wake the loop at every signal.

    One that comes just before the loop waits for input, or on another thread, does not interrupt
    that wait, and its handler would run with the next input, which may never come.
    """
    reading, writing = socket.socketpair()
    with reading, writing:
        reading.setblocking(False)
        writing.setblocking(False)
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        loop.add_reader(reading, reading.recv, _MANY_SIGNALS)
        try:
            yield
        finally:
            loop.remove_reader(reading)
            signal.set_wakeup_fd(before)


def first_error(error: BaseException) -> BaseException:
    """Return the first error inside nested exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@contextlib.contextmanager
def one_error() -> Iterator[None]:
    """Raise the first error of an exception group that the block raises, from the group."""
    try:
        yield
    except ExceptionGroup as group:
        raise first_error(group) from group


def announce(name: str, *, logs: bool = True) -> Started:
    """Return the `started` of a process: it logs addresses and notifies a supervisor, if any."""

    def started(addresses: Mapping[str, str]) -> None:
        # What is loaded now stays: full collections, a tenth of a second each, skip it.
        gc.freeze()
        if addresses and logs:
            log.info("%s: ready on %s", name, ", ".join(f"{k} {v}" for k, v in addresses.items()))
        if fd := os.environ.pop(READY_FD, None):
            with os.fdopen(int(fd), "w", encoding="utf-8") as ready:
                ready.write(json.dumps({"service": name, "addresses": dict(addresses)}) + "\n")

    return started


def watch_lifeline(gone: Callable[[], None]) -> None:
    """Call `gone`, from a thread of its own, when the supervisor ends, for whatever reason.

    The variable is removed from the environment: the lifeline belongs to this process alone.
    """
    if fd := os.environ.pop(LIFELINE_FD, None):
        threading.Thread(target=_watch, args=(int(fd), gone), daemon=True).start()


def _watch(fd: int, gone: Callable[[], None]) -> None:
    with os.fdopen(fd, "rb", buffering=0) as lifeline:
        while lifeline.read(1):
            pass
    gone()
