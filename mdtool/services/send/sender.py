"""The client's side of a stream: sent, sent again after a lost connection, and acknowledged."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import islice
from typing import Final

import numpy as np

from mdtool.adapters.identity.config import client_token
from mdtool.adapters.tcp_streams import open_stream
from mdtool.core.addresses import format_address
from mdtool.core.backoff import delays
from mdtool.core.errors import MdtoolError, PeerError
from mdtool.core.lifecycle import Started, first_error
from mdtool.core.tcp import NO_ADDRESS, reason_of
from mdtool.core.threads import AsyncReadAhead
from mdtool.core.trades import NamedTrades
from mdtool.core.units import counted
from mdtool.services.send.backlog import Backlog
from mdtool.services.send.config import SendConfig
from mdtool.services.send.quotes import QuotePort
from mdtool.services.send.ticks import paced, tick_pacer
from mdtool.wire.frames import (
    END_FRAME,
    Ack,
    Committed,
    ReplyDecoder,
    Resume,
    encode_auth,
    encode_hello,
    encode_lot,
)
from mdtool.wire.tick_encoder import EncodedFrames, encode_frames

log = logging.getLogger(__name__)

_READ_BYTES: Final = 1 << 16
_BATCHES_AHEAD: Final = 2
"""How many batches are read before they are needed."""
_MAX_WAIT_S: Final = 1.0
"""The longest pause between two attempts to connect."""
_SILENCE_S: Final = 1.0
"""How long a server may be silent before a log line says what is awaited."""


class Sender:
    """Sends ticks as one stream to an ingest server, and waits for its Ack.

    Every tick counts once, whatever happens to the connection or the server: what was not
    committed is sent again. A plain stream, which cannot be resumed, ends with its connection.

    Parameters
    ----------
    config : SendConfig
        Its settings.
    batches : iterable of NamedTrades
        What to send. It may block: it is read in a thread of its own.
    progress : callable, optional
        Called with the number of ticks sent, now and then.
    is_of_now : bool
        Whether paced ticks are those of a market that runs now, each due at its own time.
    quotes : QuotePort, optional
        Streams the quotes of the same records meanwhile.

    Attributes
    ----------
    ack : Ack or None
        The server's, once `run` has returned.
    connections : int
        How many connections there were in which frames were sent.
    """

    name = "send"

    def __init__(
        self,
        config: SendConfig,
        batches: Iterable[NamedTrades],
        progress: Callable[[int], None] = lambda _: None,
        *,
        is_of_now: bool = False,
        quotes: QuotePort | None = None,
    ) -> None:
        self.ack: Ack | None = None
        self.connections = 0
        self._skipped = 0
        """How many frames of the source the server had before any was sent."""
        self._config = config
        self._batches = batches
        self._progress = progress
        self._is_of_now = is_of_now
        self._quotes = quotes
        self._address = format_address(config.host, config.port)
        self._stream_id = "" if config.plain else config.stream_id or f"send-{uuid.uuid4().hex}"
        self._backlog = Backlog(config.backlog_bytes)
        self._source_error: MdtoolError | None = None
        self._lots: dict[str, int] = {}
        """Of the symbols of all ticks so far."""
        self._is_complete = False
        self._is_connected = False
        self._has_news = asyncio.Event()
        self._has_room = asyncio.Event()
        self._is_committing = asyncio.Event()
        self._is_accepted = asyncio.Event()
        """Whether the server of the current connection accepts frames."""

    @property
    def is_known(self) -> bool:
        """Whether the server had committed all ticks, at least one, before any was sent."""
        return self._is_complete and 0 < self._backlog.appended <= self._skipped

    @property
    def outcome(self) -> str | None:
        """A summary of everything that was sent; None before the Ack.

        An Ack counts what came over its own connection only.
        """
        if self.ack is None:
            return None
        if self.is_known:
            return f"All {counted(self._backlog.appended, 'tick')} were committed before"
        if self.connections < 2:
            return self.ack.message
        sent = max(0, self._backlog.appended - self._skipped)
        return (
            f"Sent {sent} tick{'s' * (sent != 1)} over {self.connections} connections, "
            f"all committed; over the last: {self.ack.message}"
        )

    async def run(self, started: Started) -> None:
        """Send everything, and wait for the Ack; `started` is called at the first commit.

        Raises
        ------
        PeerError
            When the server cannot be reached, is unavailable for too long, or refuses.
        InputError
            When the file with its token cannot be read.
        MdtoolError
            The error of the source, after everything before it was acknowledged.
        """
        client_token(self._config.token_file)  # which fails before there is a connection
        _load_encoder()
        ahead = AsyncReadAhead(iter(self._batches), _BATCHES_AHEAD)
        config = self._config
        pacer = tick_pacer(1.0 if config.rate else config.speed, is_of_now=self._is_of_now)
        frames = paced(self._unknown(ahead), pacer, config.rate)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._fill(frames))
                aside = [tasks.create_task(self._announce(started))]
                if self._stream_id:
                    aside.append(tasks.create_task(self._log_silences()))
                if self._quotes is not None:
                    aside.append(tasks.create_task(self._quotes.run(pacer)))
                self.ack = await self._until_acknowledged()
                for task in aside:
                    task.cancel()
        except ExceptionGroup as group:
            raise first_error(group) from group
        except asyncio.CancelledError:
            log.info(
                "%s: interrupted after %d ticks, %d of them known to be committed",
                self._address,
                self._backlog.sent,
                self._backlog.committed,
            )
            raise
        if self._source_error is not None:
            raise self._source_error

    async def _announce(self, started: Started) -> None:
        await self._is_committing.wait()
        started({})

    async def _unknown(self, batches: AsyncIterator[NamedTrades]) -> AsyncIterator[NamedTrades]:
        """Yield the ticks that the server has not committed, from its first answer on.

        The others are not paced: a stream that is sent again resumes at once.
        """
        await self._is_accepted.wait()
        async for batch in batches:
            known = self._backlog.known_of(len(batch))
            self._backlog.skip(known)
            symbols = batch.symbols
            for index, lot in symbols.lots_since(len(self._lots)):
                self._lots[symbols[index]] = lot
            if known < len(batch):
                yield batch[known:]

    async def _fill(self, frames: AsyncIterator[EncodedFrames]) -> None:
        """Move frames from the source to the backlog, as long as that has room."""
        try:
            async for run in frames:
                self._backlog.append(run)
                self._has_news.set()
                while self._backlog.is_full:
                    self._has_room.clear()
                    await self._has_room.wait()
        except MdtoolError as error:
            self._source_error = error
        self._is_complete = True
        self._has_news.set()

    async def _log_silences(self) -> None:
        """Log what is awaited when the server is silent for long, once for each silence."""
        reported = ""
        before = (0, 0)
        while True:
            await asyncio.sleep(_SILENCE_S)
            now = (self.connections, self._backlog.committed)
            awaited = self._awaited() if now == before else ""
            if awaited and awaited != reported:
                log.info("%s: waiting for it to %s", self._address, awaited)
            reported, before = awaited, now

    def _awaited(self) -> str:
        """Return what the sender waits for the server to do, nothing if it does not wait."""
        if not self._is_connected:
            return ""
        if not self._is_accepted.is_set():
            return "accept ticks, as it does once its aggregator is available"
        if self._backlog.committed < self._backlog.sent:
            return "commit what was sent, as it does while its aggregator is available"
        return "acknowledge the end" if self._lacks_only_ack else ""

    async def _until_acknowledged(self) -> Ack:
        """Talk to the server, over as many connections as necessary."""
        now_s = asyncio.get_running_loop().time
        waits, give_up_s = delays(cap_s=_MAX_WAIT_S), now_s() + self._config.connect_timeout_s
        losses, committed = 0, 0
        while True:
            self._is_accepted.clear()
            try:
                ack = await self._converse()
            except socket.gaierror as error:
                raise PeerError(f"{self._config.host}: {error.strerror}") from error
            except OSError as error:
                what = f"{self._address}: {_reason(error)}"
                if isinstance(error, ssl.SSLError) and not self.connections:
                    raise PeerError(what) from error
                if self._is_accepted.is_set():
                    if not self._stream_id:
                        raise PeerError(f"{what}, with {self._backlog.sent} ticks sent") from error
                    log.warning("%s; connecting again", what)
                    if self._backlog.committed > committed:
                        waits, losses = delays(cap_s=_MAX_WAIT_S), 0
                        committed = self._backlog.committed
                    losses += 1
                    give_up_s = now_s() + self._config.reconnect_timeout_s
                else:
                    log.debug("%s", what)
                if losses == self._config.max_losses or now_s() >= give_up_s:
                    raise PeerError(f"{what}{self._given_up(losses)}") from error
            else:
                if not ack.success:
                    raise PeerError(f"{self._address}: {ack.message}")
                return ack
            await asyncio.sleep(next(waits))

    def _given_up(self, losses: int) -> str:
        """Return what an error says besides its reason, when there is no further attempt."""
        if not losses:
            return ""
        if self._lacks_only_ack:
            return "; all ticks are committed"
        often = f"; lost {losses} times with nothing committed in between" if losses > 1 else ""
        return f"{often}; {self._backlog.committed} ticks are committed"

    @property
    def _lacks_only_ack(self) -> bool:
        return self._is_complete and self._backlog.committed >= self._backlog.appended

    async def _converse(self) -> Ack:
        """Connect, and send what the server has not committed until it acknowledges the end.

        Raises
        ------
        OSError
            When there is no connection, or no longer.
        """
        async with asyncio.timeout(self._config.connect_timeout_s):
            reader, writer = await open_stream("serve-tcp", self._config.host, self._config.port)
        self._is_connected = True
        reading = asyncio.create_task(self._read(reader))
        writing = asyncio.create_task(self._write(writer))
        try:
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done() and not isinstance(writing.exception(), OSError):
                writing.result()
            return await reading  # which knows why, if the connection is lost
        finally:
            self._is_connected = False
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
            writer.transport.abort()

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        # Read for each connection: another process may have renewed it.
        if token := client_token(self._config.token_file):
            writer.write(encode_auth(token))
        if self._stream_id:
            writer.write(encode_hello(self._stream_id))
        else:
            self._is_accepted.set()
        await self._is_accepted.wait()
        sent_lots = 0
        while True:
            self._has_news.clear()
            while data := self._backlog.take():
                if self._stream_id:  # servers that do not know a Hello do not know a Lot
                    for symbol, lot in islice(self._lots.items(), sent_lots, None):
                        writer.write(encode_lot(symbol, lot))
                        sent_lots += 1
                writer.write(data)
                await writer.drain()
                if not self._stream_id:
                    self._commit(self._backlog.sent)
                self._progress(self._backlog.sent)
            if self._is_complete:
                break
            await self._has_news.wait()
        if writer.can_write_eof():
            writer.write_eof()  # which older servers know too
        else:
            writer.write(END_FRAME)

    async def _read(self, reader: asyncio.StreamReader) -> Ack:
        decoder = ReplyDecoder()
        while data := await reader.read(_READ_BYTES):
            for reply in decoder.feed(data):
                match reply:
                    case Resume(next_sequence):
                        self._resume(next_sequence)
                    case Committed(next_sequence):
                        self._commit(next_sequence)
                    case Ack():
                        return reply
        if self._is_accepted.is_set():
            raise ConnectionError("closed the connection without an Ack")
        raise ConnectionError(
            "closed the connection at the Hello; older servers need --plain, those with TLS [tls] "
            "ca, and those that require a client's certificate [tls] cert"
        )

    def _resume(self, next_sequence: int) -> None:
        lost = self._backlog.resume(next_sequence)
        if lost:
            log.warning("%s: lost %d ticks that it had committed", self._address, lost)
        if not self.connections:
            self._skipped = self._backlog.committed
        self.connections += 1
        self._is_accepted.set()
        self._has_room.set()

    def _commit(self, next_sequence: int) -> None:
        self._backlog.commit(next_sequence)
        self._is_committing.set()
        self._has_room.set()


def _load_encoder() -> None:
    """Load the encoder's kernel before there is a connection that could time out."""
    none = np.empty(0, np.int64)
    encode_frames((), none, none, none, none)


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    reason = reason_of(error)
    if isinstance(error, ConnectionRefusedError) or reason == NO_ADDRESS:
        return f"{reason}; is mdtool serve-tcp running there?"
    return reason
