"""The simplest servers that do a service's work: what the benches of services are compared with.

Run as a module: `python -m mdtool.bench.baselines NAME [ARGUMENT]`, with a name of `BASELINES`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from aiohttp import web

from mdtool.core.addresses import format_address
from mdtool.core.lifecycle import Started, run_service
from mdtool.core.records import index_timestamps
from mdtool.core.tcp import listen
from mdtool.core.units import NS_PER_S, format_price, format_time
from mdtool.services.http.listening import listening
from mdtool.services.ingest.server import READ_BYTES
from mdtool.wire.dbn import DbnDecoder
from mdtool.wire.frames import encode_ack
from mdtool.wire.websocket import text_frame

MODULE: Final = "mdtool.bench.baselines"
_HOST: Final = "127.0.0.1"
_PREFIX_BYTES: Final = 4
_MESSAGE_BYTES: Final = 300
"""Of an aggregate in STOMP."""
_SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
_END_OF_REQUEST: Final = b"\r\n\r\n"
_SENT_BYTES: Final = 1 << 20
_THIRD: Final = 3
_PAGE: Final = """
SELECT timestamp, price, volume FROM trades
WHERE symbol = (SELECT number FROM symbols WHERE symbol = ?)
ORDER BY timestamp DESC, stream DESC, sequence DESC LIMIT ?
"""


class Baseline(Protocol):
    """A server as `run_service` runs it."""

    name: str

    async def run(self, started: Started) -> None:
        """Serve on free ports until cancelled."""
        ...


class Discard:
    """Reads frames over TCP, discards them, and sends an Ack at their end."""

    name = "discard"

    async def run(self, started: Started) -> None:
        """Serve on a free port until cancelled."""
        buffer = memoryview(bytearray(READ_BYTES))
        server = await listen(lambda: _Discarding(buffer), _HOST, 0)
        try:
            started({"tcp": server.address})
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()


class _Discarding(asyncio.BufferedProtocol):
    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._received_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio always asks for -1
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._received_bytes += nbytes

    def eof_received(self) -> None:
        self._transport.write(encode_ack(True, f"Discarded {self._received_bytes} bytes"))


class Relay:
    """Counts frames over TCP, and sends one WebSocket the count after each: `{"volume":1}`."""

    name = "relay"

    async def run(self, started: Started) -> None:
        """Serve on two free ports until cancelled."""
        frames: asyncio.Queue[int] = asyncio.Queue()
        count = 0

        async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            with contextlib.suppress(asyncio.IncompleteReadError):
                while True:
                    prefix = await reader.readexactly(_PREFIX_BYTES)
                    await reader.readexactly(int.from_bytes(prefix, "big"))
                    count += 1
                    frames.put_nowait(count)
            writer.close()

        async def send(client: web.WebSocketResponse) -> None:
            while True:
                await client.send_str(f'{{"volume":{await frames.get()}}}')

        async def serve(request: web.Request) -> web.WebSocketResponse:
            client = web.WebSocketResponse(compress=False)
            await client.prepare(request)
            sending = asyncio.create_task(send(client))
            async for _ in client:
                pass
            sending.cancel()
            return client

        async with (
            _listening("/ws/marketdata", serve) as http,
            await asyncio.start_server(receive, _HOST, 0) as ingest,
        ):
            started({"tcp": format_address(*ingest.sockets[0].getsockname()[:2]), "http": http})
            await asyncio.get_running_loop().create_future()


class Crowd:
    """Counts frames over TCP, and writes each client the count, one after the other, in one loop.

    Its messages are texts of WebSockets as long as those of STOMP: what they say is 1, and grows by
    1 a frame. Whatever a client sends first subscribes it.
    """

    name = "crowd"

    async def run(self, started: Started) -> None:
        """Serve on two free ports until cancelled."""
        clients: set[asyncio.Transport] = set()
        ingest = await listen(lambda: _Counting(clients), _HOST, 0)
        sockets = await listen(lambda: _Following(clients), _HOST, 0)
        try:
            started({"tcp": ingest.address, "http": sockets.address})
            await asyncio.get_running_loop().create_future()
        finally:
            ingest.close()
            sockets.close()


class _Counting(asyncio.Protocol):
    """Frames of one byte behind their prefix."""

    def __init__(self, clients: set[asyncio.Transport]) -> None:
        self._clients = clients
        self._received_bytes = 0

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        message = _message(1 + self._received_bytes // (_PREFIX_BYTES + 1))
        for client in self._clients:
            client.write(message)


class _Following(asyncio.Protocol):
    def __init__(self, clients: set[asyncio.Transport]) -> None:
        self._clients = clients
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._is_open:
            self._is_open = data.endswith(_END_OF_REQUEST)
            if self._is_open:
                self._transport.write(_SWITCHING)
        elif self._transport not in self._clients:
            self._transport.write(_message(1))
            self._clients.add(self._transport)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self._clients.discard(self._transport)


def _message(volume: int) -> bytes:
    return text_frame(f'"volume":"{volume}"'.encode().ljust(_MESSAGE_BYTES))


class Handler:
    """Answers `GET /api/v1/marketdata/{symbol}` with the same JSON, always.

    Parameters
    ----------
    body : str
    """

    name = "handler"

    def __init__(self, body: str) -> None:
        self._body = body.encode()

    async def run(self, started: Started) -> None:
        """Serve on a free port until cancelled."""
        body = self._body

        async def answer(_request: web.Request) -> web.Response:
            return web.Response(body=body, content_type="application/json")

        async with _listening("/api/v1/marketdata/{symbol}", answer) as address:
            started({"http": address})
            await asyncio.get_running_loop().create_future()


class History:
    """Answers `GET /api/v1/trades/{symbol}?limit=` with the newest trades, and blocks on sqlite3.

    Parameters
    ----------
    path : str
        A file with a plain table of trades.
    """

    name = "history"

    def __init__(self, path: str) -> None:
        self._path = path

    async def run(self, started: Started) -> None:
        """Serve on a free port until cancelled."""
        with contextlib.closing(sqlite3.connect(self._path)) as connection:

            async def answer(request: web.Request) -> web.Response:
                parameters = (request.match_info["symbol"], int(request.query["limit"]))
                return web.json_response(_envelope(connection.execute(_PAGE, parameters)))

            async with _listening("/api/v1/trades/{symbol}", answer) as address:
                started({"http": address})
                await asyncio.get_running_loop().create_future()


class Bytes:
    """Sends whoever connects the bytes of a file, in a loop over a socket.

    Parameters
    ----------
    path : str
    """

    name = "bytes"

    def __init__(self, path: str) -> None:
        self._data = memoryview(Path(path).read_bytes())

    async def run(self, started: Started) -> None:
        """Serve on a free port until cancelled."""

        async def send(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket").dup()
            connection.setblocking(True)
            await asyncio.to_thread(_send_all, connection, self._data)
            writer.close()

        async with await asyncio.start_server(send, _HOST, 0) as server:
            started({"tcp": format_address(*server.sockets[0].getsockname()[:2])})
            await asyncio.get_running_loop().create_future()


def _send_all(connection: socket.socket, data: memoryview) -> None:
    with connection:
        for begin in range(0, len(data), _SENT_BYTES):
            connection.sendall(data[begin : begin + _SENT_BYTES])


class Paced:
    """Sends DBN records of a file when they are due, each to a third of its clients, in one loop.

    Playback begins with the first byte from a client, for those that are connected then.

    Parameters
    ----------
    path : str
    """

    name = "paced"

    def __init__(self, path: str) -> None:
        self._records = np.concatenate(DbnDecoder(path).feed(Path(path).read_bytes()))

    async def run(self, started: Started) -> None:
        """Serve on a free port until cancelled."""
        writers: list[asyncio.StreamWriter] = []
        has_begun = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            await reader.read(1)
            has_begun.set()

        async with await asyncio.start_server(serve, _HOST, 0) as server:
            started({"tcp": format_address(*server.sockets[0].getsockname()[:2])})
            await has_begun.wait()
            await self._play(writers)
            await asyncio.get_running_loop().create_future()

    async def _play(self, writers: list[asyncio.StreamWriter]) -> None:
        times_ns = index_timestamps(self._records)
        times_ns = times_ns - times_ns[0]
        began_ns, done = time.monotonic_ns(), 0
        while done < len(times_ns):
            now_ns = time.monotonic_ns() - began_ns
            end = int(np.searchsorted(times_ns, now_ns, side="right"))
            for number, writer in enumerate(writers):
                data = self._records[done + (number - done) % _THIRD : end : _THIRD].tobytes()
                if data:
                    writer.write(data)
            done = end
            if done < len(times_ns):
                wait_ns = began_ns + int(times_ns[done]) - time.monotonic_ns()
                await asyncio.sleep(max(wait_ns, 0) / NS_PER_S)
        for writer in writers:
            writer.close()


BASELINES: Final[dict[str, type[Baseline]]] = {
    each.name: each for each in (Discard, Relay, Crowd, Handler, History, Bytes, Paced)
}


@contextlib.asynccontextmanager
async def _listening(path: str, handler: Any) -> AsyncIterator[str]:
    """Answer a path on a free port within the block; yield the address."""
    app = web.Application()
    app.router.add_get(path, handler)
    async with listening(app, _HOST, 0, grace_s=0.1) as address:
        yield address


def _envelope(rows: sqlite3.Cursor) -> dict[str, Any]:
    trades = [
        {"timestamp": format_time(time), "price": format_price(price), "volume": str(volume)}
        for time, price, volume in rows
    ]
    data = {"data": trades, "pagination": {"next_cursor": None}}
    return {"data": data, "error": None, "message": None}


if __name__ == "__main__":
    sys.exit(run_service(BASELINES[sys.argv[1]](*sys.argv[2:])))
