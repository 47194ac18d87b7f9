"""The receiver service: HTTP that starts a processing and shows its books."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import numpy as np
from aiohttp import web

from mdtool.core.addresses import parse_address
from mdtool.core.batch import Batch
from mdtool.core.dtypes import MBO
from mdtool.core.errors import UsageError
from mdtool.core.lifecycle import Started
from mdtool.core.tls import server_tls
from mdtool.engine.book.rebuild import Rebuild
from mdtool.services.book.config import ReceiverConfig
from mdtool.services.book.connection import feed
from mdtool.services.book.processing import Processing
from mdtool.services.book.reader import Reader, Shown
from mdtool.services.book.status import final_states, health_of, state_of, status_of
from mdtool.services.client import Admission
from mdtool.services.http.answers import (
    UNBUFFERED,
    Statuses,
    answer,
    client_of,
    encode_object,
    reader_of,
)
from mdtool.services.http.control import STOP_GRACE_S, control_application
from mdtool.services.http.entry import Policy
from mdtool.services.http.listening import listening
from mdtool.services.limits import CapacityError, Limits
from mdtool.services.security import Security
from mdtool.services.usage import keeping_current
from mdtool.wire.book_lines import BookLines
from mdtool.wire.dbn_session import FromLive, FromStart

DEFAULT_DEPTH: Final = 10
MAX_DEPTH: Final = 100
_ORDER_BOOK: Final = "/order-book"
_BOOKS: Final = "books"
_REPLAY: Final = Policy(right="replay")
_LINES: Final = {"Content-Type": "application/x-ndjson", **UNBUFFERED}
_WRITE_AHEAD_BYTES: Final = 1 << 22
"""The write buffer of a reader that stopped reading; the next lines are encoded meanwhile."""
_BOOLEANS: Final = {"true": True, "1": True, "false": False, "0": False}


class NotStartedError(UsageError):
    """Nothing has been processed yet."""


class NotProcessingError(UsageError):
    """There is no processing to stop."""


class AlreadyProcessingError(UsageError):
    """A processing cannot be started while another one is in progress."""


_STATUSES: Final[Statuses] = {
    NotStartedError: (409, "not_started"),
    AlreadyProcessingError: (409, "already_processing"),
    NotProcessingError: (409, "not_processing"),
    CapacityError: (503, "busy"),
    UsageError: (400, "bad_parameter"),
}


class BookReceiver:
    """Rebuilds order books from a sender's stream, once it is started over HTTP.

    Parameters
    ----------
    config : ReceiverConfig

    Raises
    ------
    UsageError
        When the sender's address is not valid.
    """

    name = "book"

    def __init__(self, config: ReceiverConfig) -> None:
        parse_address(config.sender)
        self._config = config
        self._tasks: asyncio.TaskGroup
        self._processing: Processing | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._admission: Admission

    async def run(self, started: Started) -> None:
        """Serve until cancelled.

        Raises
        ------
        StartupError
            When the address cannot be listened on.
        """
        config = self._config
        security = Security.load(self.name, config.host, config.auth)
        self._admission = Admission(Limits(connections=config.max_readers), security)
        tls = server_tls(self.name)
        warm_up()
        routes = {
            ("POST", "/start-processing"): (self._start, _REPLAY),
            ("POST", "/stop-processing"): (self._stop, _REPLAY),
            ("GET", _ORDER_BOOK): (self._order_book, Policy(feed=_BOOKS)),
            ("GET", "/status"): (self._status, Policy(right="metrics")),
        }
        app = control_application(
            routes,
            lambda: health_of(self._processing),
            _STATUSES,
            self._admission,
            streamed={_ORDER_BOOK},
        )
        app.on_shutdown.append(self._shut_down)
        host, port = config.host, config.port
        async with (
            asyncio.TaskGroup() as self._tasks,
            listening(app, host, port, STOP_GRACE_S, cancels_deserted=True, tls=tls) as address,
            keeping_current(self._admission),
        ):
            started({"http": address})
            await asyncio.get_running_loop().create_future()

    async def _start(self, request: web.Request) -> web.Response:
        """`POST /start-processing?from=`: process the sender's stream, from `start` or `live`."""
        config = self._config
        opening = _parse_opening(request.query.get("from") or "start")
        if self._processing is not None and not self._processing.is_over:
            raise AlreadyProcessingError("is processing already")
        self._processing = Processing(opening, config.history_records, config.patience_ms / 1_000)
        self._feeding = self._tasks.create_task(feed(config.sender, self._processing))
        return answer(encode_object({"status": "processing", "sender": config.sender}))

    async def _stop(self, _request: web.Request) -> web.Response:
        """`POST /stop-processing`: stop processing, or waiting for a sender.

        The books stay as they are until another processing begins.
        """
        if self._processing is None or self._feeding is None or self._processing.is_over:
            raise NotProcessingError("nothing is being processed; POST /start-processing begins")
        self._processing.stop("stopped by POST /stop-processing")
        self._feeding.cancel()
        return answer(encode_object({"status": "stopped", "sender": self._config.sender}))

    async def _order_book(self, request: web.Request) -> web.StreamResponse:
        """`GET /order-book?last=&depth=&symbols=`: JSON lines.

        One for each processed record, from the oldest in the history until the last one; with
        `last=true` one for each book as it is now. A line with `skipped` alone counts the records
        without a line; one with `error` has the reason why there are no more.
        """
        depth = _parse_depth(request.query.get("depth"))
        shown = Shown(_parse_symbols(request.query.get("symbols")), reader_of(request, _BOOKS))
        is_last = _BOOLEANS.get((request.query.get("last") or "false").lower())
        if is_last is None:
            raise UsageError("last: expects true or false")
        processing = self._processing
        if processing is None:
            raise NotStartedError("nothing is processed yet; POST /start-processing begins")
        if is_last:
            states = final_states(processing, depth, shown)
            body = b"".join(encode_object(state) + b"\n" for state in states)
            return web.Response(body=body, headers=_LINES)
        reader = Reader(processing, depth, shown)
        with client_of(request).connected(_ORDER_BOOK, lambda *_: _abort(request)):
            return await _send_lines(request, processing, reader)

    async def _status(self, request: web.Request) -> web.Response:
        """`GET /status`."""
        report: dict[str, Any] = {
            "service": "book",
            "state": state_of(self._processing),
            "sender": self._config.sender,
            "readers": len(self._admission),
        }
        if self._processing is not None:
            shown = Shown(None, reader_of(request, _BOOKS))
            report |= status_of(self._processing, shown)
        return answer(encode_object(report))

    async def _shut_down(self, _app: web.Application) -> None:
        """Let the readers end."""
        if self._processing is not None and not self._processing.is_over:
            self._processing.stop("the receiver stops")


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _send_lines(
    request: web.Request, processing: Processing, reader: Reader
) -> web.StreamResponse:
    """Answer with the lines of all records, as fast as the client reads."""
    clock = asyncio.get_running_loop().time
    response = web.StreamResponse(headers=_LINES)
    await response.prepare(request)
    if request.transport is not None:
        request.transport.set_write_buffer_limits(_WRITE_AHEAD_BYTES)
    cursor, backpressure, reported = reader.cursor, processing.backpressure, 0
    with backpressure.joined(cursor):
        async for batch in reader.batches():
            if cursor.missed > reported:
                await response.write(encode_object({"skipped": cursor.missed - reported}) + b"\n")
                reported = cursor.missed
            for piece in batch:
                cursor.writing_since_s = clock()
                await response.write(piece)
            cursor.writing_since_s = None
            backpressure.moved()
    if processing.error is not None:
        await response.write(encode_object({"error": processing.error}) + b"\n")
    await response.write_eof()
    return response


def warm_up() -> None:
    """Compile kernels before a client needs them."""
    record = Batch.of(np.zeros(1, MBO))
    rebuild = Rebuild()
    rebuild.update(record)
    lines = BookLines()
    instrument, table = record.instrument, record.instruments
    for rows in rebuild.books.states(record, 1):
        lines.encode(rows, instrument, table.texts, table.publishers)


def _parse_opening(text: str) -> FromStart | FromLive:
    if text == "start":
        return FromStart()
    if text == "live":
        return FromLive()
    raise UsageError("from: expects start or live")


def _parse_depth(text: str | None) -> int:
    if not text:
        return DEFAULT_DEPTH
    if text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_DEPTH:
        return int(text)
    raise UsageError(f"depth: expects a whole number from 1 to {MAX_DEPTH}")


def _parse_symbols(text: str | None) -> frozenset[str] | None:
    if not text:
        return None
    return frozenset(name.strip() for name in text.split(",")) - {""}
