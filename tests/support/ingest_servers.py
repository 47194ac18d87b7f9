"""An ingest server in the test's own loop, and clients of it over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import ClassVar

from mdtool.services.ingest.config import IngestConfig
from mdtool.services.ingest.server import IngestServer
from mdtool.wire._pb import tick_pb2
from mdtool.wire.frames import Committed, ReplyDecoder, encode_frame, encode_hello
from tests.support.services import running
from tests.support.waiting import bounded

NOW_NS = 1_735_201_234_567_000_000


def frame(symbol="AAPL", price=150.25, volume=100, exchange_timestamp=NOW_NS):
    """One Tick, as any client's protobuf library writes it."""
    tick = tick_pb2.Tick(
        symbol=symbol, price=price, volume=volume, exchange_timestamp=exchange_timestamp
    )
    return encode_frame(tick.SerializeToString())


def frames(count, first=1):
    """Ticks whose prices count up from `first`."""
    return b"".join(frame(price=first + k) for k in range(count))


@contextlib.asynccontextmanager
async def serving(aggregator, **settings):
    """Run an ingest server, and yield its address."""
    config = IngestConfig(aggregator=aggregator, **{"port": 0, **settings})
    async with running(IngestServer(config)) as (addresses, _):
        yield addresses["tcp"]


class Client:
    """A connection that reads replies one by one."""

    opened: ClassVar[list[Client]] = []

    def __init__(self, reader, writer) -> None:
        self.opened.append(self)
        self.reader, self.writer = reader, writer
        self._decoder = ReplyDecoder()
        self._replies = []

    @classmethod
    async def connect(cls, address, hello=None):
        client = cls(*await asyncio.open_connection(*address))
        if hello is not None:
            client.writer.write(encode_hello(hello))
        return client

    @classmethod
    async def close_all(cls):
        """Close the clients of a test."""
        while cls.opened:
            await cls.opened[-1].close()

    async def close(self):
        """Close it."""
        self.opened.remove(self)
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def reply(self):
        """Return the next reply, None once the server has closed."""
        while not self._replies:
            data = await self.reader.read(1 << 16)
            if not data:
                assert self._decoder.pending_bytes == 0
                return None
            self._replies = self._decoder.feed(data)
        return self._replies.pop(0)

    async def last_reply(self):
        last = None
        while (reply := await self.reply()) is not None:
            last = reply
        return last

    async def committed(self, next_sequence):
        async with bounded():
            while await self.reply() != Committed(next_sequence):
                pass

    async def finish(self, data=b""):
        """Send the last bytes, close the sending half, and return the Ack."""
        self.writer.write(data)
        self.writer.write_eof()
        return await self.last_reply()

    def vanish(self) -> None:
        """Reset the connection, as the kernel does for a client that died."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.close()


async def send(address, data):
    client = await Client.connect(address)
    try:
        return await client.finish(data)
    finally:
        await client.close()


def prices(ledger):
    """The prices of the stream that plain clients share."""
    (stream_id,) = ledger.frames
    return ledger.prices(stream_id)
