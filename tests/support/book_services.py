"""A sender and a receiver on free ports in the test's own loop, and clients of both."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np

from mdtool.adapters.dbn_files import Recording
from mdtool.core.addresses import parse_address
from mdtool.core.dtypes import MBO
from mdtool.services.book.config import ReceiverConfig
from mdtool.services.book.server import BookReceiver
from mdtool.services.replay.config import SenderConfig
from mdtool.services.replay.runs import Pace
from mdtool.services.replay.server import ReplaySender
from mdtool.wire.dbn_session import Begin, Data, SessionDecoder, encode_request
from tests.support.services import running

CRAWLING = 1e-9
"""A speed at which a second lasts a lifetime: only the first records come."""


class Http:
    """A client of one service."""

    def __init__(self, session: aiohttp.ClientSession, addresses: dict[str, str]) -> None:
        self.address = addresses["http"]
        self.data = addresses.get("dbn", "")
        self.get, self.post = session.get, session.post

    async def ask(self, path: str, method: str = "GET") -> tuple[int, dict]:
        """The status and the JSON of an answer."""
        async with (self.post if method == "POST" else self.get)(path) as response:
            return response.status, await response.json()

    async def start(self, path: str) -> None:
        status, told = await self.ask(path, "POST")
        assert status == 200, told

    async def status(self) -> dict:
        return (await self.ask("/status"))[1]

    async def until(self, **wanted) -> dict:
        """The status, once it has these values."""
        while True:
            status = await self.status()
            if all(status.get(key) == value for key, value in wanted.items()):
                return status
            await asyncio.sleep(0.01)

    async def lines(self, query: str = "") -> list[dict]:
        """The lines of /order-book."""
        async with self.get(f"/order-book{query}") as response:
            assert response.status == 200
            return [json.loads(line) for line in (await response.read()).splitlines()]


@contextlib.asynccontextmanager
async def client_of(service):
    """A client of a service that runs until the block ends."""
    async with (
        running(service) as (addresses, _),
        aiohttp.ClientSession(f"http://{addresses['http']}", read_bufsize=1 << 20) as session,
    ):
        yield Http(session, addresses)


def sender_of(*paths: Path, speed: float = 0.0, **settings):
    """A client of a sender of files."""
    config = SenderConfig(**({"port": 0, "data_port": 0} | settings))
    recording = Recording(tuple(map(str, paths)))
    return client_of(ReplaySender(config, recording, Pace(speed)))


def receiver_of(sender: str, **settings):
    """A client of a receiver of a sender's stream."""
    return client_of(BookReceiver(ReceiverConfig(**({"port": 0, "sender": sender} | settings))))


@dataclass
class Heard:
    """The messages and records of one connection to a data port."""

    messages: list = field(default_factory=list)
    records: list[np.ndarray] = field(default_factory=list)

    @property
    def begins(self) -> list[Begin]:
        return [message for message in self.messages if isinstance(message, Begin)]

    @property
    def last(self):
        return self.messages[-1]

    def add(self, message) -> None:
        if isinstance(message, Data):
            self.records.append(message.records)
        else:
            self.messages.append(message)

    def all_records(self) -> np.ndarray:
        return np.concatenate([np.empty(0, MBO), *self.records])


class Receiver:
    """A connection to a data port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.decoder = SessionDecoder("sender")

    async def hear(self, heard: Heard, until: int | None = None) -> Heard:
        """Read to the end of the stream, or until so many records have come."""
        while until is None or sum(map(len, heard.records)) < until:
            data = await self.reader.read(1 << 16)
            if not data:
                return heard
            for message in self.decoder.feed(data):
                heard.add(message)
        return heard

    def vanish(self) -> None:
        """Reset the connection."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def connected(address: str, say: object = b"", receive_bytes: int | None = None):
    """A connection to a data port that opens with a request, or with any bytes."""
    connection = socket.socket()
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, parse_address(address))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 16)
    writer.write(say if isinstance(say, bytes) else encode_request(say))
    try:
        yield Receiver(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
