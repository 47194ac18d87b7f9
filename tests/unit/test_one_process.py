"""Services in one process: how they start and stop, and what the failure of one does."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest

from mdtool.core import logs
from mdtool.core.errors import ConfigError, MdtoolError, PeerError, StartupError, UsageError
from mdtool.services.supervisor.one_process import OneProcess, Part


class Log(logging.Handler):
    """The lines as a process writes them, with the names of their services."""

    def __init__(self):
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))
        self.lines = []

    def emit(self, record):
        self.lines.append((logs.SERVICE.get(), record.getMessage()))


@pytest.fixture
def log():
    handler, logger = Log(), logging.getLogger("mdtool")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.lines
    logger.removeHandler(handler)
    logger.setLevel(before)


class Fake:
    """A service that is ready, fails and stops when it is told to."""

    def __init__(self, name, address="", *, is_ready=True):
        self.name = name
        self._address = address
        self._may_be_ready = asyncio.Event()
        if is_ready:
            self._may_be_ready.set()
        self.failure = asyncio.get_running_loop().create_future()
        self.may_stop = asyncio.Event()
        self.may_stop.set()

    def become_ready(self):
        self._may_be_ready.set()

    async def run(self, started):
        ready = asyncio.create_task(self._may_be_ready.wait())
        await asyncio.wait({ready, self.failure}, return_when=asyncio.FIRST_COMPLETED)
        if not self.failure.done():
            started({"tcp": self._address} if self._address else {})
        try:
            await asyncio.shield(self.failure)
        finally:
            ready.cancel()
            await self.may_stop.wait()

    def part(self, **options):
        return Part(self.name, lambda: self, stop_s=60.0, first_tick_s=60.0, **options)


@contextlib.asynccontextmanager
async def running(*parts):
    """Run parts; yield their task, and the future of their addresses."""
    ready = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(OneProcess(parts).run(ready.set_result))
    try:
        yield task, ready
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_all_are_reported_once_the_last_is_ready():
    one, two = Fake("one", "a:1"), Fake("two", "b:2", is_ready=False)
    async with running(one.part(), two.part()) as (_, ready):
        done, _ = await asyncio.wait({ready}, timeout=0.01)
        assert not done
        two.become_ready()
        assert await ready == {"two tcp": "b:2", "one tcp": "a:1"}


async def test_a_source_starts_after_the_services_and_may_end():
    one, source = Fake("one", "a:1", is_ready=False), Fake("source")
    made = []
    part = Part("source", lambda: made.append("source") or source, is_source=True, first_tick_s=60)
    async with running(one.part(), part) as (task, ready):
        await asyncio.sleep(0)
        assert not made
        one.become_ready()
        await ready
        source.failure.set_result(None)
        done, _ = await asyncio.wait({task}, timeout=0.01)
        assert not done


async def test_a_source_that_fails_is_reported_and_the_services_run_on(log):
    one, source = Fake("one", "a:1"), Fake("source")
    async with running(one.part(), source.part(is_source=True)) as (task, ready):
        await ready
        source.failure.set_exception(PeerError("the server is gone"))
        done, _ = await asyncio.wait({task}, timeout=0.01)
        assert not done
    assert ("source", "source failed: the server is gone") in log


async def test_they_stop_one_after_the_other_the_last_first(log):
    one, two = Fake("one"), Fake("two")
    two.may_stop.clear()
    async with running(one.part(), two.part()) as (task, ready):
        await ready
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=0.01)
        assert not done
        assert ("two", "two: stopping (terminated)") in log
        assert ("one", "one: stopping (terminated)") not in log
        two.may_stop.set()
        await asyncio.wait({task})
        assert task.cancelled()
    assert log[-1] == ("one", "one: stopping (terminated)")


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (StartupError("port 1 is in use"), StartupError, "two could not start: port 1 is in use"),
        (UsageError("no such window"), UsageError, "two could not start: no such window"),
        (ConfigError("no such key"), UsageError, "two could not start: no such key"),
        (PeerError("it refused"), MdtoolError, "two failed: it refused"),
        (ExceptionGroup("g", [PeerError("refused")]), MdtoolError, "two failed: refused"),
        (ValueError("a bug"), ValueError, "a bug"),
    ],
)
async def test_the_failure_of_one_stops_all_and_names_it(log, error, expected, message):
    one, two = Fake("one"), Fake("two")
    async with running(one.part(), two.part()) as (task, _):
        two.failure.set_exception(error)
        with pytest.raises(expected, match=f"^{message}$"):
            await task
    assert ("one", "one: stopping (terminated)") in log


async def test_a_service_that_ends_ends_them_all():
    one, two = Fake("one"), Fake("two")
    async with running(one.part(), two.part()) as (task, ready):
        await ready
        one.failure.set_result(None)
        with pytest.raises(MdtoolError, match="one has ended"):
            await task


def test_lines_say_whose_they_are():
    record = logging.LogRecord("mdtool", logging.INFO, "", 0, "first\nsecond", None, None)
    token = logs.SERVICE.set("gateway")
    try:
        text = logs._TextFormatter().format(record)
        entry = logs._JsonFormatter().format(record)
    finally:
        logs.SERVICE.reset(token)
    assert [line.partition(" | ")[0] for line in text.split("\n")] == ["gateway", "gateway"]
    assert entry.startswith('{"service": "gateway", ')
