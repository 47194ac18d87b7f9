"""Several services in one process: started side by side, and stopped in order.

A service that fails ends the process, and so does one that ends: whoever supervises the process
starts it again, and all services resume from what is stored. Half a stack would serve old data.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mdtool.core.errors import MdtoolError, StartupError, UsageError
from mdtool.core.lifecycle import Service, Started, first_error, is_drained, stop
from mdtool.core.logs import SERVICE

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """One of the services.

    Attributes
    ----------
    name : str
        The prefix of its log lines.
    make : callable
        Makes the service.
    is_source : bool
        Whether it may end by itself; it starts when the others are ready.
    stop_s : float
        How long it may take to stop, besides what those stopped before it did not use.
    drain_s : float
        For how long it drains before; others stop at once.
    first_tick_s : float
        How long to wait for a source's first tick before all are reported as ready.
    """

    name: str
    make: Callable[[], Service]
    is_source: bool = False
    stop_s: float = 1.0
    drain_s: float = 0.0
    first_tick_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Running:
    """A part at work."""

    part: Part
    context: contextvars.Context
    addresses: Mapping[str, str] = field(default_factory=dict)
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Run until cancelled; a source, until it ends.

        Raises
        ------
        MdtoolError
            When the service fails, or ends. The message names it.
        """
        name = self.part.name
        try:
            await self.part.make().run(self._started)
        except (MdtoolError, ExceptionGroup) as raised:
            error = first_error(raised)
            if not isinstance(error, MdtoolError):
                raise
            if self.part.is_source:
                log.error("%s failed: %s", name, error)  # noqa: TRY400 - no trace is needed
                return
            raise self._named(error) from error
        finally:
            self.ready.set()
        if not self.part.is_source:
            raise MdtoolError(f"{name} has ended")
        log.info("%s has ended", name)

    def _started(self, addresses: Mapping[str, str]) -> None:
        self.addresses = addresses
        if addresses:
            shown = ", ".join(f"{protocol} {where}" for protocol, where in addresses.items())
            log.info("%s: ready on %s", self.part.name, shown)
        self.ready.set()

    def _named(self, error: MdtoolError) -> MdtoolError:
        text = f"{self.part.name} could not start: {error}"
        if isinstance(error, StartupError):
            return StartupError(text)
        if isinstance(error, UsageError):
            return UsageError(text)
        return MdtoolError(f"{self.part.name} failed: {error}")

    def start(self) -> asyncio.Task[None]:
        """Return a task that runs it, in a context of its own."""
        self.context.run(SERVICE.set, self.part.name)
        loop = asyncio.get_running_loop()
        return loop.create_task(self.run(), name=self.part.name, context=self.context)

    def log(self, level: int, message: str) -> None:
        """Log a message about it as one of its own."""
        self.context.run(log.log, level, "%s: %s", self.part.name, message)


class OneProcess:
    """Runs services until it is cancelled, or one of them fails.

    They stop one by one, the last one first, so that what was accepted is passed on.

    Parameters
    ----------
    parts : sequence of Part
        In the order in which they start; sources last.
    """

    name = "services"

    def __init__(self, parts: Sequence[Part]) -> None:
        self._running = [_Running(part, contextvars.copy_context()) for part in parts]

    async def run(self, started: Started) -> None:
        """Run until cancelled; `started` is called with the addresses of all, as `NAME PROTOCOL`.

        Raises
        ------
        MdtoolError
            What a service raised; the others are stopped by then.
        """
        tasks: dict[asyncio.Task[None], _Running] = {}
        drains = False
        try:
            services = [each for each in self._running if not each.part.is_source]
            sources = [each for each in self._running if each.part.is_source]
            tasks |= {each.start(): each for each in services}
            await _while_none_fails(tasks, _all_ready(services))
            tasks |= {each.start(): each for each in sources}
            for each in sources:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(each.part.first_tick_s):
                        await _while_none_fails(tasks, each.ready.wait())
            started(
                {
                    f"{each.part.name} {protocol}": address
                    for each in reversed(services)
                    for protocol, address in each.addresses.items()
                }
            )
            await _while_none_fails(tasks, asyncio.get_running_loop().create_future())
        except asyncio.CancelledError as error:
            drains = is_drained(error)
            raise
        finally:
            await _stop(tasks, drains=drains)


async def _all_ready(parts: Iterable[_Running]) -> None:
    for each in parts:
        await each.ready.wait()


async def _while_none_fails(
    tasks: Mapping[asyncio.Task[None], _Running], awaited: Awaitable[object]
) -> None:
    """Wait for something; raise the error of a task that fails before."""
    waiting = asyncio.ensure_future(awaited)
    try:
        while not waiting.done():
            await asyncio.wait(
                [waiting, *(task for task in tasks if not task.done())],
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in tasks:
                if task.done() and (error := task.exception()) is not None:
                    raise first_error(error)
    finally:
        waiting.cancel()


async def _stop(tasks: Mapping[asyncio.Task[None], _Running], *, drains: bool) -> None:
    """Stop one after the other, the last one first; leave those that do not stop in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time()
    for task, each in reversed([*tasks.items()]):
        deadline += each.part.stop_s + (each.part.drain_s if drains else 0.0)
        if task.done():
            continue
        each.log(logging.INFO, "stopping (terminated)")
        if drains and each.part.drain_s:
            stop(task)
        else:
            task.cancel()
        await asyncio.wait({task}, timeout=max(0.0, deadline - loop.time()))
        if not task.done():
            each.log(logging.ERROR, "not stopped in time")
        elif not task.cancelled() and (error := task.exception()) is not None:
            each.log(logging.ERROR, str(first_error(error)))
