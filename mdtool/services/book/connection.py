"""The connection to a sender, which is opened again and resumed when it is lost."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from mdtool.adapters.identity.config import client_token
from mdtool.core.addresses import parse_address
from mdtool.core.backoff import delays
from mdtool.core.errors import MdtoolError
from mdtool.core.tcp import notice_loss, reason_of
from mdtool.core.tls import connect_options
from mdtool.services.book.processing import Processing
from mdtool.wire.dbn_session import Begin, Refused, SessionDecoder, encode_request

log = logging.getLogger(__name__)

READ_BYTES: Final = 1 << 20
ANSWER_S: Final = 5.0
"""How long records may come before the answer to a request."""
_LONGEST_DELAY_S: Final = 1.0


async def feed(sender: str, processing: Processing) -> None:
    """Feed a processing from a sender until it is over, whatever becomes of connections.

    Parameters
    ----------
    sender : str
        HOST:PORT.
    processing : Processing
    """
    buffer = memoryview(bytearray(READ_BYTES))
    waits = delays(cap_s=_LONGEST_DELAY_S)
    reported = ""
    while not processing.is_over:
        before = processing.records
        try:
            await _feed_once(sender, processing, buffer)
        except OSError as error:
            if processing.records > before:
                waits, reported = delays(cap_s=_LONGEST_DELAY_S), ""
            if reported != reason_of(error):
                reported = reason_of(error)
                log.warning("sender %s: %s; trying again", sender, reported)
            await asyncio.sleep(next(waits))
        except MdtoolError as error:
            processing.fail(str(error))


async def _feed_once(sender: str, processing: Processing, buffer: memoryview) -> None:
    """Process what arrives, until the connection or the processing ends.

    Raises
    ------
    OSError
        When there is no connection, or it is lost.
    MdtoolError
        When the sender rejects the request, or the peer is not a sender.
    """
    host, port = parse_address(sender)
    loop = asyncio.get_running_loop()
    connection = _Connection(sender, processing, buffer)
    tls = connect_options("replay-dbn", host)
    transport, _ = await loop.create_connection(lambda: connection, host, port, **tls)
    try:
        await connection.ended
    finally:
        processing.is_connected = False
        transport.abort()


class _Connection(asyncio.BufferedProtocol):
    """One connection. What arrives is processed at once, and nothing is read meanwhile.

    Attributes
    ----------
    ended : asyncio.Future
        Done when the processing is over, with an error when the connection is.
    """

    def __init__(self, sender: str, processing: Processing, buffer: memoryview) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._processing = processing
        self._buffer = buffer
        self._decoder = SessionDecoder(f"sender {sender}")
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        notice_loss(transport.get_extra_info("socket"))
        transport.write(encode_request(self._processing.request, client_token(None)))
        self._processing.is_connected = True

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio always asks for -1
        """Return all of the buffer."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Process what has arrived."""
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(ANSWER_S, self._check_answer)
        try:
            self._process(self._buffer[:nbytes])
        except (MdtoolError, OSError) as error:
            self._end(error)
            return
        if self._processing.is_over:
            self._end(None)
        elif self._processing.backpressure.is_blocking():
            self._transport.pause_reading()
            self._processing.backpressure.when_free(self._transport.resume_reading)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, if the stream has not ended before."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._check_answer()
        self._end(exc or ConnectionError("closed the connection"))

    def _process(self, data: memoryview) -> None:
        for message in self._decoder.feed(data):
            match message:
                case Begin() if self._decoder.metadata is not None:
                    self._processing.set_metadata(self._decoder.metadata)
                case Refused(reason, is_final=False):
                    raise ConnectionError(reason)
            self._processing.receive(message)

    def _check_answer(self) -> None:
        """End where records have come without an answer: the peer is not a sender."""
        self._deadline = None
        try:
            self._decoder.finish()
        except MdtoolError as error:
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)
