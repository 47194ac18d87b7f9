"""A proxy between clients and a broker that can be unavailable, delay replies, or lose one."""

from __future__ import annotations

import asyncio
import contextlib
import socket

_PRODUCE = 0
"""The API key of produce requests."""
_FETCH = 1
"""The API key of fetch requests."""


class KafkaProxy:
    """Forwards requests and replies, message by message, while it is open.

    Attributes
    ----------
    may_reply : asyncio.Event
        While it is not set, replies to produce requests wait.
    may_fetch : asyncio.Event
        While it is not set, replies to fetch requests wait.
    is_open : bool
    loses_reply : bool
        The next reply to a produce request is dropped, and the connection is cut.
    """

    def __init__(self, port: int, behind_port: int) -> None:
        self.may_reply = asyncio.Event()
        self.may_reply.set()
        self.may_fetch = asyncio.Event()
        self.may_fetch.set()
        self.loses_reply = False
        self.is_open = False
        self._port = port
        self._behind_port = behind_port
        self._connections: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def open(self):
        """Forward messages until the block ends, which cuts all connections."""
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", self._port)) as listener:
            listener.setblocking(False)
            loop.add_reader(listener, self._accept, listener)
            self.is_open = True
            try:
                yield
            finally:
                self.is_open = False
                loop.remove_reader(listener)
                for connection in self._connections:
                    connection.cancel()
                await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client has gone
            client, _ = listener.accept()
            task = asyncio.create_task(self._serve(client))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
            # A task that is cancelled before it begins closes nothing.
            task.add_done_callback(lambda _: client.close())

    async def _serve(self, client: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=client)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # either end has gone
                answers, requests = await asyncio.open_connection("127.0.0.1", self._behind_port)
                try:
                    await self._pass_on(reader, writer, answers, requests)
                finally:
                    await _cut(requests)
        finally:
            await _cut(writer)

    async def _pass_on(self, reader, writer, answers, requests) -> None:
        kinds: list[int] = []

        async def forth():
            while True:
                message = await _message(reader)
                kinds.append(int.from_bytes(message[4:6]))
                requests.write(message)
                await requests.drain()

        forwarding = asyncio.create_task(forth())
        try:
            while True:
                message = await _message(answers)
                kind = kinds.pop(0)
                if kind == _FETCH:
                    await self.may_fetch.wait()
                if kind == _PRODUCE:
                    await self.may_reply.wait()
                    if self.loses_reply:
                        self.loses_reply = False
                        return
                writer.write(message)
                await writer.drain()
        finally:
            forwarding.cancel()
            await asyncio.gather(forwarding, return_exceptions=True)


async def _cut(writer) -> None:
    """End a connection, and do not wait until the other end has read what was written."""
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _message(reader) -> bytes:
    length = await reader.readexactly(4)
    return length + await reader.readexactly(int.from_bytes(length))
