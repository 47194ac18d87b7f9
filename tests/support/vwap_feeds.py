"""The VWAP feed on a free port, in the test's own loop, and clients of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any

from mdtool.services.vwap.config import VwapConfig
from mdtool.services.vwap.server import VwapFeed


class Said(logging.Handler):
    """What the feed logs, which can be waited for."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []
        self._is_new = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._is_new.set()

    async def heard(self, text: str) -> None:
        """Wait until a line has this text; the lines up to then are forgotten."""
        while not any(text in line for line in self.lines):
            self._is_new.clear()
            await self._is_new.wait()
        self.lines.clear()


class Client:
    """A connection that reads lines as objects."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def next(self) -> dict[str, Any]:
        """The next line."""
        line = await self.reader.readline()
        assert line.endswith(b"\n"), "the feed closed the connection"
        return json.loads(line)

    async def until(self, **wanted) -> dict[str, Any]:
        """The first line that has these values."""
        while True:
            line = await self.next()
            if wanted.items() <= line.items():
                return line

    def say(self, *lines: str) -> None:
        self.writer.write("".join(f"{line}\n" for line in lines).encode())


@contextlib.asynccontextmanager
async def connected(address: str, limit: int = 1 << 24):
    """A client until the block ends."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=limit)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def vwap_feed(aggregator: str, **settings):
    """A feed that runs until the block ends; its address."""
    started = asyncio.get_running_loop().create_future()
    config = VwapConfig(**{"port": 0, "aggregator": aggregator} | settings)
    task = asyncio.create_task(VwapFeed(config).run(started.set_result))
    try:
        await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
        assert not task.done(), task.exception()
        yield started.result()["tcp"]
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
