"""Paths that forward to the sender and the receiver of order books."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import aiohttp
from aiohttp import web

from mdtool.adapters.book_services import Answer, BookService
from mdtool.core.errors import PeerError
from mdtool.core.permissions import Reader
from mdtool.services.gateway.protocols import Paths
from mdtool.services.http.answers import (
    UNBUFFERED,
    Handler,
    answer,
    client_of,
    encode_object,
    failure,
    reader_of,
)

log = logging.getLogger(__name__)

ORDER_BOOK_PATH: Final = "/api/order-book"

CONTROLS: Final = ("stop-streaming", "pause-streaming", "resume-streaming", "set-speed")
"""Requests to a sender that is streaming."""

_OK: Final = 200
_STARTED: Final = 200
_CONFLICT: Final = 409
_LEFT_S: Final = 1.0
"""How long at most until a client that left is noticed while nothing arrives."""


class BookServices:
    """The handlers of the order book services' paths.

    Parameters
    ----------
    sender, receiver : BookService
        Either may be unavailable.
    """

    def __init__(self, sender: BookService, receiver: BookService) -> None:
        self._sender = sender
        self._receiver = receiver
        self._relaying: set[asyncio.Task[Any]] = set()

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {
            ("POST", "/api/start-streaming"): self.start,
            **{("POST", f"/api/{name}"): self._control(name) for name in CONTROLS},
            ("GET", ORDER_BOOK_PATH): self.order_book,
            ("GET", "/api/microservices/status"): self.status,
        }

    async def start(self, request: web.Request) -> web.Response:
        """`POST /api/start-streaming?speed=`: start the sender and the receiver.

        One that is running continues; 409 when both are.
        """
        query = {"speed": request.query["speed"]} if "speed" in request.query else {}
        # The sender first, so that the receiver gets this run from its start, not the last one.
        sent = await self._sender.request("POST", "/start-streaming", query)
        if sent.status not in {_STARTED, _CONFLICT}:
            return _forwarded(sent)
        received = await self._receiver.request("POST", "/start-processing")
        if received.status not in {_STARTED, _CONFLICT}:
            return _forwarded(received)
        if sent.status == received.status == _CONFLICT:
            return failure(_CONFLICT, "already_streaming", "both services are running already")
        report = {"status": "started", "sender": sent.content, "receiver": received.content}
        return answer(encode_object(report))

    def _control(self, name: str) -> Handler:
        async def control(request: web.Request) -> web.Response:
            """`POST /api/stop-streaming` and so on: forward the request to the sender."""
            query = {"speed": request.query["speed"]} if "speed" in request.query else {}
            return _forwarded(await self._sender.request("POST", f"/{name}", query))

        return control

    async def order_book(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/order-book`: the receiver's `/order-book`, as it arrives.

        When the receiver becomes unavailable in the middle, the last line is an `error`.
        """
        async with self._receiver.stream("/order-book", request.query) as upstream:
            content_type = upstream.headers.get("Content-Type", "text/plain")
            headers = {"Content-Type": content_type, **UNBUFFERED}
            response = web.StreamResponse(status=upstream.status, headers=headers)
            await response.prepare(request)
            # Errors have no symbols but those that were requested.
            reader = reader_of(request, "books") if upstream.status == _OK else None
            chunks = _chunks(request, upstream.content)
            with self._stopped_in_time():
                try:
                    async for chunk in _permitted(chunks, reader):
                        await response.write(chunk)
                        await client_of(request).pay(len(chunk))
                except aiohttp.ClientError as error:
                    log.warning("%s is unavailable: %s", self._receiver.name, error)
                    line = {"error": f"the {self._receiver.name} became unavailable"}
                    await response.write(b"\n" + encode_object(line) + b"\n")
            await response.write_eof()
        return response

    async def status(self, _request: web.Request) -> web.Response:
        """`GET /api/microservices/status`: that of both; 503 when one of them is unavailable."""
        sender, receiver = await asyncio.gather(_status(self._sender), _status(self._receiver))
        are_available = sender["reachable"] and receiver["reachable"]
        report = {"sender": sender, "receiver": receiver}
        return answer(encode_object(report), status=200 if are_available else 503)

    async def close(self) -> None:
        """End what is being forwarded."""
        for task in self._relaying:
            task.cancel()

    @contextlib.contextmanager
    def _stopped_in_time(self) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        self._relaying.add(task)
        try:
            yield
        finally:
            self._relaying.discard(task)


async def _chunks(request: web.Request, content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield what arrives, until it ends or the client has left."""
    while not content.at_eof() and request.transport is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEFT_S):
                chunk = await content.readany()
            if chunk:
                yield chunk


async def _permitted(chunks: AsyncIterator[bytes], reader: Reader | None) -> AsyncIterator[bytes]:
    """Yield the lines of books that may be read, as they arrive, and those of errors."""
    rest = b""
    async for chunk in chunks:
        if reader is None:
            yield chunk
            continue
        *lines, rest = (rest + chunk).split(b"\n")
        allowed = [line + b"\n" for line in lines if _is_permitted(line, reader)]
        if allowed:
            yield b"".join(allowed)
    if rest and reader is not None and _is_permitted(rest, reader):
        yield rest


def _is_permitted(line: bytes, reader: Reader) -> bool:
    try:
        content = json.loads(line)
        if "symbol" not in content:
            return set(content) == {"error"}
        return reader.can_read(str(content["symbol"]))
    except (ValueError, TypeError, AttributeError):
        return not line.strip()


async def _status(service: BookService) -> dict[str, Any]:
    """Return the status of a service, or why it is unknown."""
    try:
        response = await service.request("GET", "/status")
    except PeerError as error:
        return {"reachable": False, "address": service.address, "message": str(error)}
    return {"reachable": True, "address": service.address, **response.content}


def _forwarded(response: Answer) -> web.Response:
    return answer(encode_object(response.content), status=response.status)
