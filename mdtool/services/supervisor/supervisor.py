"""The supervisor: starts programs in order, keeps them running, and stops them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TypeAlias

from mdtool.core import reloading
from mdtool.core.lifecycle import Started
from mdtool.services.supervisor.child import Child
from mdtool.services.supervisor.output import Style
from mdtool.services.supervisor.programs import Program

Addresses: TypeAlias = Mapping[str, Mapping[str, str]]
"""The addresses of each program by protocol: `{"gateway": {"http": "127.0.0.1:8080"}}`."""


class Supervisor:
    """Runs programs as child processes until it is cancelled or one of them cannot start.

    Programs start without waiting for each other, except those with `after`. They stop one by one,
    the last one first, and those of a group together: a client stops before its server, so that
    everything accepted is passed on. Those that still run are kept running meanwhile.

    Parameters
    ----------
    programs : sequence of Program
        In the order in which they start.
    styles : mapping
        The format of each program's lines on stderr.
    report : callable
        Called once with all addresses, when every program is ready.
    """

    name = "serve"

    def __init__(
        self,
        programs: Sequence[Program],
        styles: Mapping[str, Style],
        report: Callable[[Addresses], None],
    ) -> None:
        self._programs = programs
        self._styles = styles
        self._report = report
        self._running: Collection[Child] = ()
        reloading.add(self)

    @property
    def process_ids(self) -> dict[str, int]:
        """The ids of the processes that run now, by the names of their programs."""
        ids = {child.program.name: child.process_id for child in self._running}
        return {name: process_id for name, process_id in ids.items() if process_id is not None}

    def read_again(self) -> None:
        """As `Reloadable.read_again`: the programs do."""
        for child in self._running:
            child.read_again()

    async def run(self, started: Started) -> None:
        """Run until cancelled.

        Raises
        ------
        StartupError, UsageError
            When a program reports that it cannot start; the others are stopped then.
        """
        with _lifeline() as lifeline:
            running = {
                child: asyncio.create_task(child.run(), name=child.program.name)
                for child in self._children(lifeline)
            }
            self._running = running.keys()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._report_ready(running, started))
                    await _first_failure(running.values())
            finally:
                await _stop(running)

    def _children(self, lifeline: int) -> Iterable[Child]:
        children: dict[str, Child] = {}
        for program in self._programs:
            after = children[program.after].ready if program.after else None
            style = self._styles[program.name]
            children[program.name] = Child(program, style, lifeline, after)
        return children.values()

    async def _report_ready(self, children: Iterable[Child], started: Started) -> None:
        """Report all addresses, once all programs are ready, in the order in which they stop."""
        addresses: dict[str, dict[str, str]] = {}
        for child in reversed(list(children)):
            if not child.program.is_source:
                await child.ready.wait()
                addresses |= child.addresses_of_services
        for child in children:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(child.program.first_tick_s):
                    await child.ready.wait()
        started(
            {
                f"{name} {protocol}": address
                for name, protocols in addresses.items()
                for protocol, address in protocols.items()
            }
        )
        self._report(addresses)


@contextlib.contextmanager
def _lifeline() -> Iterator[int]:
    """Yield the read end of a pipe whose other end closes when this process ends."""
    read, write = os.pipe()
    try:
        yield read
    finally:
        os.close(read)
        os.close(write)


async def _first_failure(running: Iterable[asyncio.Task[None]]) -> None:
    """Wait until a task fails, and raise its error; return when all of them are done."""
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


async def _stop(running: Mapping[Child, asyncio.Task[None]]) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time()
    for _, group in groupby(reversed(list(running)), lambda child: child.program.group or child):
        children = list(group)
        deadline += max(child.program.stop_s for child in children)
        left_s = deadline - loop.time()
        await asyncio.gather(*(child.stop(running[child], left_s) for child in children))
    await asyncio.gather(*running.values(), return_exceptions=True)
