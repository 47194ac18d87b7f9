"""Streams of MarketDataService over a Unix socket: gRPC's calls and messages without HTTP/2.

A connection is one call. It carries frames: a length (uint32, big-endian), a kind, and a payload.
Live ticks take a third of the CPU time that they take over gRPC, whose poller thread wakes with
every message. Single requests, and everybody else, use gRPC.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from enum import IntEnum
from typing import Any, Final, NoReturn, Self

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from mdtool.adapters import rpc
from mdtool.core.errors import StartupError
from mdtool.core.permissions import EVERYTHING

_HEADER: Final = struct.Struct(">IB")
_BATCHES_BYTES: Final = 1 << 22
"""Unread bytes of a client, so that batches need few turns of the two processes."""
_UPDATES_BYTES: Final = 1 << 16
"""Unread bytes of the server: a slow reader gets later states instead of old ones."""
_PIECE_BYTES: Final = 1 << 17
"""What is written at once: asyncio would copy what the system has no room for."""
_MAX_UNREAD_FRAMES: Final = 64
_STOP_GRACE_S: Final = 0.5
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_METHODS: Final = {method.name: method for method in rpc.SERVICE.methods}


class _Kind(IntEnum):
    CALL = 0
    """From the client, first: the name of the method."""
    METADATA = 1
    """From the server: the call has begun."""
    MESSAGE = 2
    STATUS = 3
    """From the server, last: a status code (one byte), and its details."""


class _Frames(asyncio.Protocol):
    """One end of a connection: frames in, frames out, and backpressure both ways."""

    def __init__(self, made: Callable[[_Frames], None] = lambda _: None) -> None:
        self._made = made
        self._parts: list[bytes] = []
        """What has arrived of an unfinished frame."""
        self._missing = 0
        """How many bytes it lacks, at least."""
        self._unread: deque[tuple[int, bytes]] = deque()
        self._is_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=0)
        self.limit_unread(_BATCHES_BYTES)
        self._made(self)

    def data_received(self, data: bytes) -> None:
        if self._parts:
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        at, end = 0, len(data)
        self._missing = _HEADER.size - end
        while end - at >= _HEADER.size:
            length, kind = _HEADER.unpack_from(data, at)
            self._missing = _HEADER.size + length - (end - at)
            if self._missing > 0:
                break
            at += _HEADER.size
            self._unread.append((kind, data[at : at + length]))
            at += length
            self._missing = _HEADER.size - (end - at)
        if at < end:
            self._parts.append(data[at:])
        if len(self._unread) > _MAX_UNREAD_FRAMES and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        self.lost.set_result(None)
        self.resume_writing()
        self._wake()

    def pause_writing(self) -> None:
        if self._drained is None and not self.lost.done():
            self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    def limit_unread(self, size: int) -> None:
        """Let about so many bytes wait in the system until the peer reads them."""
        connection = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    async def next(self) -> tuple[int, bytes] | None:
        """Return the next frame, None when the connection is lost."""
        while not self._unread:
            if self.lost.done():
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        return self._unread.popleft()

    async def send(self, kind: _Kind, payload: bytes) -> None:
        """Send a frame; wait while the peer is too slow."""
        first = payload[:_PIECE_BYTES]
        self._transport.write(_HEADER.pack(len(payload), kind) + first)
        rest = memoryview(payload)[len(first) :]
        while True:
            if self._drained is not None:
                await asyncio.shield(self._drained)
            if not rest:
                return
            self._transport.write(rest[:_PIECE_BYTES])
            rest = rest[_PIECE_BYTES:]

    def close(self) -> None:
        """Close once everything is sent."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class LocalStub:
    """The streams of `MarketDataService` at a Unix socket, by their names, as `rpc.Stub` has them.

    Parameters
    ----------
    path : str
        The socket, which need not exist yet.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Callable[..., LocalCall]:
        method = _METHODS[name]
        return lambda *requests: LocalCall(self._path, method, requests)


class LocalCall:
    """One call, with the part of gRPC's interface that streams use.

    It connects when it is first used. It ends with gRPC's errors, UNAVAILABLE where the connection
    is lost.
    """

    def __init__(self, path: str, method: MethodDescriptor, requests: Sequence[Any]) -> None:
        self._path = path
        self._method = method
        self._requests = requests
        self._parse = GetMessageClass(method.output_type).FromString
        self._opening: asyncio.Task[_Frames] | None = None
        self._error: grpc.aio.AioRpcError | None = None
        self._has_begun = self._has_ended = False

    def done(self) -> bool:
        """Tell whether the call has ended."""
        return self._has_ended

    def cancel(self) -> None:
        """End the call."""
        self._has_ended = True
        if self._opening is None:
            return
        if not self._opening.done():
            self._opening.cancel()
        elif not self._opening.cancelled() and self._opening.exception() is None:
            self._opening.result().abort()

    async def write(self, message: Any) -> None:
        """Send a message; wait while the server is too slow."""
        frames = await self._opened()
        if frames.lost.done():
            raise _unavailable("the connection is lost")
        await frames.send(_Kind.MESSAGE, message.SerializeToString())

    async def initial_metadata(self) -> None:
        """Wait until the call has begun."""
        frame = await self._next()
        self._has_begun = True
        if frame is not None and frame[0] != _Kind.METADATA:
            raise _error(grpc.StatusCode.INTERNAL, "the call did not begin")

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield the server's messages."""
        while (frame := await self._next()) is not None:
            kind, payload = frame
            if kind == _Kind.MESSAGE:
                yield self._parse(payload)

    async def _next(self) -> tuple[int, bytes] | None:
        """Return the next frame, None at the end of a call without an error."""
        frames = await self._opened()
        frame = await frames.next()
        if frame is None:
            self._has_ended = True
            raise _unavailable("the connection is lost")
        kind, payload = frame
        if kind != _Kind.STATUS:
            return frame
        self._has_ended = True
        frames.close()
        code = _CODES[payload[0]]
        if code is grpc.StatusCode.OK:
            return None
        raise _error(code, payload[1:].decode())

    async def _opened(self) -> _Frames:
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> _Frames:
        loop = asyncio.get_running_loop()
        try:
            _, frames = await loop.create_unix_connection(_Frames, self._path)
        except OSError as error:
            raise _unavailable(error.strerror or str(error)) from error
        await frames.send(_Kind.CALL, self._method.name.encode())
        for request in self._requests:
            await frames.send(_Kind.MESSAGE, request.SerializeToString())
        return frames


class LocalServer:
    """Answers calls at a Unix socket by a servicer's methods; an async context manager.

    Parameters
    ----------
    path : str
        Where; a socket that was left there is replaced.
    servicer : object
        Has a method for each stream, as `rpc.handler` takes it.
    """

    def __init__(self, path: str, servicer: object) -> None:
        self._path = path
        self._servicer = servicer
        self._calls: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_unix_server(lambda: _Frames(self._begin), self._path)
        except OSError as error:
            raise StartupError(f"cannot listen on {self._path}: {error.strerror}") from error
        os.chmod(self._path, 0o600)  # noqa: PTH101 - a socket of this machine
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        if self._calls:
            await asyncio.wait(self._calls, timeout=_STOP_GRACE_S)
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _begin(self, frames: _Frames) -> None:
        frames.limit_unread(_UPDATES_BYTES)
        task = asyncio.create_task(self._serve(frames))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        frames.lost.add_done_callback(lambda _: task.cancel())

    async def _serve(self, frames: _Frames) -> None:
        try:
            first = await frames.next()
            if first is None:
                return
            method = _METHODS[first[1].decode()]
            status, details = grpc.StatusCode.OK, ""
            try:
                await self._answer(method, frames)
            except _AbortedError as error:
                status, details = error.code, error.details
            await frames.send(_Kind.STATUS, bytes([status.value[0]]) + details.encode())
        finally:
            frames.close()

    def _answer(self, method: MethodDescriptor, frames: _Frames) -> Coroutine[Any, Any, None]:
        answer = getattr(self._servicer, method.name)
        parse = GetMessageClass(method.input_type).FromString
        requests = _messages(frames, parse)
        context = _Context(frames)
        if method.client_streaming:
            return answer(requests, context)  # type: ignore[no-any-return]
        return _answer_one(answer, requests, context)


async def _answer_one(
    answer: Callable[..., Coroutine[Any, Any, None]],
    requests: AsyncIterator[Any],
    context: _Context,
) -> None:
    await answer(await anext(requests), context)


async def _messages(frames: _Frames, parse: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    while (frame := await frames.next()) is not None:
        yield parse(frame[1])


class _AbortedError(Exception):
    """A servicer ended its call."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class _Context:
    """A call as servicers see it, of a service of ours: the socket is open to this user alone."""

    access = EVERYTHING

    async def spend(self, _message: Any, _ticks: int) -> None:
        pass

    def __init__(self, frames: _Frames) -> None:
        self._frames = frames

    def peer(self) -> str:
        return "a service of this machine"

    async def write(self, message: Any) -> None:
        await self._frames.send(_Kind.MESSAGE, message.SerializeToString())

    async def send_initial_metadata(self, _metadata: Sequence[tuple[str, str]]) -> None:
        await self._frames.send(_Kind.METADATA, b"")

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise _AbortedError(code, details)


def _unavailable(reason: str) -> grpc.aio.AioRpcError:
    return _error(grpc.StatusCode.UNAVAILABLE, reason)


def _error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(code, nothing, nothing, details)
