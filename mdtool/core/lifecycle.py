"""How a service runs: started, told apart from failed, stopped in time, and never orphaned.

A service is cancelled to stop it. It undoes what it did in the opposite order (an AsyncExitStack
does that by itself), and has `grace_s` for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from mdtool.core.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK

log = logging.getLogger(__name__)

READY_FD: Final = "MDTOOL_READY_FD"
"""The descriptor on which a child says that it is ready, as one JSON line."""
LIFELINE_FD: Final = "MDTOOL_LIFELINE_FD"
"""The read end of a pipe that its supervisor holds open: at its end, the child stops."""
GRACE_S: Final = 5.0

Started = Callable[[Mapping[str, str]], None]
"""Called once, after every bind, with the real addresses by what they speak: `{"tcp": ...}`."""


class Service(Protocol):
    """Something that runs until it is cancelled."""

    name: str

    async def run(self, started: Started) -> None:
        """Bind, call `started`, and serve until cancelled; then stop in order."""
        ...


def run_service(service: Service, grace_s: float = GRACE_S) -> int:
    """Run a service until a signal, its supervisor's death or its own end; return an exit status.

    The first SIGINT or SIGTERM stops it in order, a second SIGINT ends the process at once, and
    so does a stop that takes longer than `grace_s`.

    Raises
    ------
    MdtoolError
        What the service itself raised.
    """
    return asyncio.run(_supervised(service, grace_s))


async def _supervised(service: Service, grace_s: float) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(service.run(announce(service.name)), name=service.name)
    status = EXIT_OK

    def stop(reason: str, code: int) -> None:
        nonlocal status
        if task.cancelling():
            if code == EXIT_INTERRUPTED:
                os._exit(EXIT_INTERRUPTED)
            return
        log.info("%s: stopping (%s)", service.name, reason)
        status = code
        task.cancel()
        loop.call_later(grace_s, _give_up, service.name, grace_s)

    loop.add_signal_handler(signal.SIGINT, stop, "interrupted", EXIT_INTERRUPTED)
    loop.add_signal_handler(signal.SIGTERM, stop, "terminated", EXIT_OK)
    with watch_lifeline(loop, lambda: stop("supervisor gone", EXIT_OK)):
        try:
            await task
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
        except ExceptionGroup as group:
            raise first_error(group) from group
    return status


def first_error(error: BaseException) -> BaseException:
    """Return the first error inside nested exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _give_up(name: str, grace_s: float) -> None:
    log.error("%s: not stopped after %g s, ended by force", name, grace_s)
    logging.shutdown()
    os._exit(EXIT_FAILED)


def announce(name: str) -> Started:
    """Return the `started` of a process: it logs the addresses and tells a supervisor, if any."""

    def started(addresses: Mapping[str, str]) -> None:
        log.info("%s: ready on %s", name, ", ".join(f"{k} {v}" for k, v in addresses.items()))
        if fd := os.environ.pop(READY_FD, None):
            with os.fdopen(int(fd), "w", encoding="utf-8") as ready:
                ready.write(json.dumps({"service": name, "addresses": dict(addresses)}) + "\n")

    return started


@contextlib.contextmanager
def watch_lifeline(loop: asyncio.AbstractEventLoop, gone: Callable[[], None]) -> Iterator[None]:
    """Call `gone` when the supervisor that started this process ends, however it ended."""
    text = os.environ.get(LIFELINE_FD)
    if text is None:
        yield
        return
    fd = int(text)

    def readable() -> None:
        if not os.read(fd, 1):
            loop.remove_reader(fd)
            gone()

    loop.add_reader(fd, readable)
    try:
        yield
    finally:
        loop.remove_reader(fd)
