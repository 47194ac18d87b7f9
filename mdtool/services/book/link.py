"""The connection to a sender, made again and taken up where it was lost."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from mdtool.core.addresses import parse_address
from mdtool.core.backoff import delays
from mdtool.core.errors import MdtoolError
from mdtool.core.tcp import notice_loss, reason_of
from mdtool.services.book.processing import Processing
from mdtool.services.book.readers import Readers
from mdtool.wire.dbn_session import Begin, Refused, SessionDecoder, encode_request

log = logging.getLogger(__name__)

READ_BYTES: Final = 1 << 20
ANSWER_S: Final = 5.0
"""How long records may come before the answer to a request."""
_LONGEST_DELAY_S: Final = 1.0


class Link:
    """Has a processing fed by a sender, until it is over.

    Parameters
    ----------
    sender : str
        HOST:PORT.
    processing : Processing
    readers : Readers
        Whom the processing waits for.
    """

    def __init__(self, sender: str, processing: Processing, readers: Readers) -> None:
        self._sender = sender
        self._processing = processing
        self._readers = readers
        self._buffer = memoryview(bytearray(READ_BYTES))

    async def run(self) -> None:
        """Connect, again whenever the connection is lost."""
        waits = delays(cap_s=_LONGEST_DELAY_S)
        said = ""
        while not self._processing.is_over:
            before = self._processing.records
            try:
                await self._converse()
            except OSError as error:
                if self._processing.records > before:
                    waits, said = delays(cap_s=_LONGEST_DELAY_S), ""
                if said != reason_of(error):
                    said = reason_of(error)
                    log.warning("sender %s: %s; trying again", self._sender, said)
                await asyncio.sleep(next(waits))
            except MdtoolError as error:
                self._processing.fail(str(error))

    async def _converse(self) -> None:
        """Take what the sender says, until the connection or the processing ends.

        Raises
        ------
        OSError
            When there is no connection, or no longer.
        MdtoolError
            When the sender refuses, or is none.
        """
        host, port = parse_address(self._sender)
        loop = asyncio.get_running_loop()
        connection = _Connection(self._sender, self._processing, self._readers, self._buffer)
        transport, _ = await loop.create_connection(lambda: connection, host, port)
        try:
            await connection.ended
        finally:
            self._processing.is_connected = False
            transport.abort()


class _Connection(asyncio.BufferedProtocol):
    """One connection. What arrives is processed at once, and nothing is read meanwhile.

    Attributes
    ----------
    ended : asyncio.Future
        Done when the processing is over, with an error when the connection is.
    """

    def __init__(
        self, sender: str, processing: Processing, readers: Readers, buffer: memoryview
    ) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sender = sender
        self._processing = processing
        self._readers = readers
        self._buffer = buffer
        self._decoder = SessionDecoder(f"sender {sender}")
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what is wanted."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        notice_loss(transport.get_extra_info("socket"))
        transport.write(encode_request(self._processing.request))
        self._processing.is_connected = True

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio always asks for -1
        """Return all of the buffer."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Process what has arrived."""
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(ANSWER_S, self._require_answer)
        try:
            self._take(self._buffer[:nbytes])
        except (MdtoolError, OSError) as error:
            self._end(error)
            return
        if self._processing.is_over:
            self._end(None)
        elif self._readers.are_behind():
            self._transport.pause_reading()
            self._readers.when_free(self._transport.resume_reading)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, if the stream has not ended before."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._require_answer()
        self._end(exc or ConnectionError("closed the connection"))

    def _take(self, data: memoryview) -> None:
        for message in self._decoder.feed(data):
            match message:
                case Begin() if self._decoder.metadata is not None:
                    self._processing.learn(self._decoder.metadata)
                case Refused(reason, is_final=False):
                    raise ConnectionError(reason)
            self._processing.take(message)

    def _require_answer(self) -> None:
        """End where records have come without an answer: it is no sender that sends them."""
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
