"""The receiver's HTTP: what starts it, the books that it makes, and what it says about itself."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import web

from mdtool.core.errors import MdtoolError, UsageError
from mdtool.services.book.config import ReceiverConfig
from mdtool.services.book.link import Link
from mdtool.services.book.processing import Processing
from mdtool.services.book.readers import Reader, Readers
from mdtool.services.book.status import final_states, state_of, status_of
from mdtool.services.http.answers import Statuses, answer, answering, encode_object, no_route
from mdtool.wire.dbn_session import FromLive, FromStart

DEFAULT_DEPTH: Final = 10
MAX_DEPTH: Final = 100
_LINES: Final = {"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
_WRITE_AHEAD_BYTES: Final = 1 << 22
"""So much is written for a reader that does not take it yet; the next lines are made meanwhile."""
_TRUTHS: Final = {"true": True, "1": True, "false": False, "0": False}


class NotStartedError(UsageError):
    """Nothing has been processed yet."""


class NotProcessingError(UsageError):
    """No stream is being processed, or waited for, and that was to be stopped."""


class AlreadyProcessingError(UsageError):
    """A stream is being processed, and another processing was to be started."""


class TooManyReadersError(MdtoolError):
    """As many readers as there may be are there."""


_STATUSES: Final[Statuses] = {
    NotStartedError: (409, "not_started"),
    AlreadyProcessingError: (409, "already_processing"),
    NotProcessingError: (409, "not_processing"),
    TooManyReadersError: (503, "busy"),
    UsageError: (400, "bad_parameter"),
}


class ReceiverHandlers:
    """The handlers of the receiver's paths.

    Parameters
    ----------
    config : ReceiverConfig
    tasks : asyncio.TaskGroup
        Owns the connections to the sender.
    """

    def __init__(self, config: ReceiverConfig, tasks: asyncio.TaskGroup) -> None:
        self._config = config
        self._tasks = tasks
        self._processing: Processing | None = None
        self._readers: Readers | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._n_readers = 0

    def application(self) -> web.Application:
        """Return the application of all paths."""
        app = web.Application()
        app.router.add_post("/start-processing", answering(self.start, _STATUSES))
        app.router.add_post("/stop-processing", answering(self.stop, _STATUSES))
        order_book = answering(self.order_book, _STATUSES)
        app.router.add_get("/order-book", order_book, allow_head=False)
        app.router.add_get("/status", answering(self.status, _STATUSES))
        app.router.add_get("/health", answering(self.health, _STATUSES))
        app.router.add_route("*", "/{path:.*}", no_route)
        app.on_shutdown.append(self._abandon)
        return app

    async def start(self, request: web.Request) -> web.Response:
        """`POST /start-processing?from=`: process the sender's stream, from `start` or `live`."""
        opening = _parse_opening(request.query.get("from", "start"))
        if self._processing is not None and not self._processing.is_over:
            raise AlreadyProcessingError("is processing already")
        self._processing = Processing(opening, self._config.history_records)
        self._readers = Readers(self._processing, self._config.patience_ms / 1_000)
        link = Link(self._config.sender, self._processing, self._readers)
        self._feeding = self._tasks.create_task(link.run())
        return answer(encode_object({"status": "processing", "sender": self._config.sender}))

    async def stop(self, _request: web.Request) -> web.Response:
        """`POST /stop-processing`: process no more, or wait no longer for a sender.

        The books stay as they are until another processing begins.
        """
        if self._processing is None or self._feeding is None or self._processing.is_over:
            raise NotProcessingError("nothing is being processed; POST /start-processing begins")
        self._processing.abandon("stopped by POST /stop-processing")
        self._feeding.cancel()
        return answer(encode_object({"status": "stopped", "sender": self._config.sender}))

    async def order_book(self, request: web.Request) -> web.StreamResponse:
        """`GET /order-book?last=&depth=&symbols=`: JSON lines.

        One for each record that is processed, from the first one that is kept until the last one;
        with `last=true` one for each book as it is now. A line with `skipped` alone says how many
        records have no line; one with `error` why there are no more.
        """
        depth = _parse_depth(request.query.get("depth"))
        symbols = _parse_symbols(request.query.get("symbols"))
        is_last = _TRUTHS.get(request.query.get("last", "false").lower())
        if is_last is None:
            raise UsageError("last: wants true or false")
        if self._processing is None or self._readers is None:
            raise NotStartedError("nothing is processed yet; POST /start-processing begins")
        if is_last:
            states = final_states(self._processing, depth, symbols)
            body = b"".join(encode_object(state) + b"\n" for state in states)
            return web.Response(body=body, headers=_LINES)
        if self._n_readers >= self._config.max_readers:
            raise TooManyReadersError(f"{self._n_readers} readers are there already")
        self._n_readers += 1
        try:
            reader = Reader(self._processing, depth, symbols)
            return await _tell(request, self._processing, self._readers, reader)
        finally:
            self._n_readers -= 1

    async def status(self, _request: web.Request) -> web.Response:
        """`GET /status`."""
        report: dict[str, Any] = {
            "service": "book",
            "state": state_of(self._processing),
            "sender": self._config.sender,
            "readers": self._n_readers,
        }
        if self._processing is not None:
            report |= status_of(self._processing)
        return answer(encode_object(report))

    async def health(self, _request: web.Request) -> web.Response:
        """`GET /health`."""
        return answer(encode_object({"status": "ok", "state": state_of(self._processing)}))

    async def _abandon(self, _app: web.Application) -> None:
        """Let the readers end."""
        if self._processing is not None and not self._processing.is_over:
            self._processing.abandon("the receiver stops")


async def _tell(
    request: web.Request, processing: Processing, readers: Readers, reader: Reader
) -> web.StreamResponse:
    """Answer with the lines of everything that is processed, as fast as the client takes them."""
    clock = asyncio.get_running_loop().time
    response = web.StreamResponse(headers=_LINES)
    await response.prepare(request)
    if request.transport is not None:
        request.transport.set_write_buffer_limits(_WRITE_AHEAD_BYTES)
    told = 0
    with readers.joined(reader):
        async for batch in reader.batches():
            if reader.missed > told:
                await response.write(encode_object({"skipped": reader.missed - told}) + b"\n")
                told = reader.missed
            for piece in batch:
                reader.handed_s = clock()
                await response.write(piece)
            reader.handed_s = None
            readers.moved()
    if processing.error is not None:
        await response.write(encode_object({"error": processing.error}) + b"\n")
    await response.write_eof()
    return response


def _parse_opening(text: str) -> FromStart | FromLive:
    if text == "start":
        return FromStart()
    if text == "live":
        return FromLive()
    raise UsageError("from: wants start or live")


def _parse_depth(text: str | None) -> int:
    if text is None:
        return DEFAULT_DEPTH
    if text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_DEPTH:
        return int(text)
    raise UsageError(f"depth: wants a whole number from 1 to {MAX_DEPTH}")


def _parse_symbols(text: str | None) -> frozenset[str] | None:
    if text is None:
        return None
    return frozenset(name.strip() for name in text.split(",")) - {""}
