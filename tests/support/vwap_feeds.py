"""The VWAP feed on a free port, in the test's own loop, and clients of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from mdtool.services.vwap.config import VwapConfig
from mdtool.services.vwap.server import VwapFeed
from tests.support.services import running


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
    config = VwapConfig(**{"port": 0, "aggregator": aggregator} | settings)
    async with running(VwapFeed(config)) as (addresses, _):
        yield addresses["tcp"]
