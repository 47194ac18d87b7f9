"""The order book's paths: the sender and the receiver behind the gateway's address."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import aiohttp
from aiohttp import web

from mdtool.adapters.book_services import Answer, BookService
from mdtool.core.errors import PeerError
from mdtool.services.http.answers import Handler, answer, encode_object, failure

log = logging.getLogger(__name__)

ORDER_BOOK_PATH: Final = "/api/order-book"

_STARTED: Final = 200
_CONFLICT: Final = 409
_DESERTED_S: Final = 1.0
"""How long it takes at most until it is noticed that a client has left while nothing came."""


class BookProxy:
    """The handlers of the order book's paths.

    Parameters
    ----------
    sender, receiver : BookService
        Whom they ask. Either may be away.

    Attributes
    ----------
    receiver : BookService
        The same.
    """

    def __init__(self, sender: BookService, receiver: BookService) -> None:
        self._sender = sender
        self.receiver = receiver
        self._relaying: set[asyncio.Task[Any]] = set()

    @property
    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """The handlers by method and path."""
        return {
            ("POST", "/api/start-streaming"): self.start,
            ("GET", ORDER_BOOK_PATH): self.order_book,
            ("GET", "/api/microservices/status"): self.status,
        }

    async def start(self, request: web.Request) -> web.Response:
        """`POST /api/start-streaming?speed=`: start the sender and the receiver.

        One that is at work already is left at it; 409 when both are.
        """
        query = {"speed": request.query["speed"]} if "speed" in request.query else {}
        # The sender first: a receiver gets all of the run that is under way, not of the last one.
        sent = await self._sender.ask("POST", "/start-streaming", query)
        if sent.status not in {_STARTED, _CONFLICT}:
            return _relayed(sent)
        received = await self.receiver.ask("POST", "/start-processing")
        if received.status not in {_STARTED, _CONFLICT}:
            return _relayed(received)
        if sent.status == received.status == _CONFLICT:
            return failure(_CONFLICT, "already_streaming", "both services are at work already")
        report = {"status": "started", "sender": sent.content, "receiver": received.content}
        return answer(encode_object(report))

    async def order_book(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/order-book`: what the receiver's `/order-book` answers, as it comes.

        When the receiver goes away in the middle, a last line with `error` says so.
        """
        async with self.receiver.stream("/order-book", request.query) as upstream:
            headers = {"Content-Type": upstream.headers.get("Content-Type", "text/plain")}
            response = web.StreamResponse(status=upstream.status, headers=headers)
            await response.prepare(request)
            with self._stopped_in_time():
                try:
                    async for chunk in _chunks(request, upstream.content):
                        await response.write(chunk)
                except aiohttp.ClientError as error:
                    log.warning("%s went away: %s", self.receiver.name, error)
                    line = {"error": f"the {self.receiver.name} went away"}
                    await response.write(b"\n" + encode_object(line) + b"\n")
            await response.write_eof()
        return response

    async def status(self, _request: web.Request) -> web.Response:
        """`GET /api/microservices/status`: both services' own; 503 when one of them is away."""
        sender, receiver = await asyncio.gather(_look(self._sender), _look(self.receiver))
        are_there = sender["reachable"] and receiver["reachable"]
        report = {"sender": sender, "receiver": receiver}
        return answer(encode_object(report), status=200 if are_there else 503)

    async def close(self, _app: web.Application) -> None:
        """End what is being relayed: the gateway stops."""
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


@contextlib.asynccontextmanager
async def book_proxy(sender: str, receiver: str, timeout_s: float) -> AsyncIterator[BookProxy]:
    """Give the handlers that ask the services at two addresses, HOST:PORT each.

    Raises
    ------
    UsageError
        When one is no address.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        yield BookProxy(
            BookService("sender", sender, session, timeout_s),
            BookService("receiver", receiver, session, timeout_s),
        )


async def _chunks(request: web.Request, content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield what comes, until it ends or the client has left."""
    while not content.at_eof() and request.transport is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DESERTED_S):
                chunk = await content.readany()
            if chunk:
                yield chunk


async def _look(service: BookService) -> dict[str, Any]:
    """Return the status of a service, or why there is none."""
    try:
        said = await service.ask("GET", "/status")
    except PeerError as error:
        return {"reachable": False, "address": service.address, "message": str(error)}
    return {"reachable": True, "address": service.address, **said.content}


def _relayed(said: Answer) -> web.Response:
    return answer(encode_object(said.content), status=said.status)
