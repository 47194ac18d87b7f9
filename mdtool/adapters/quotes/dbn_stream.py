"""Quotes from a DBN stream, over a connection that is made again when it is lost."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import Final

import databento_dbn as dbn
import numpy as np

from mdtool.adapters.identity.config import client_token
from mdtool.core.addresses import parse_address
from mdtool.core.backoff import delays
from mdtool.core.batch import Batch, Resolver
from mdtool.core.dtypes import RTYPE_SYMBOL_MAPPING
from mdtool.core.errors import MdtoolError
from mdtool.core.instruments import Instruments
from mdtool.core.records import Records
from mdtool.core.tcp import notice_loss, reason_of
from mdtool.core.tls import connect_options
from mdtool.core.units import NS_PER_MS, UNDEF_PRICE
from mdtool.engine.quotes import LatestQuotes
from mdtool.wire.dbn_session import (
    Begin,
    Data,
    End,
    FromLive,
    FromNext,
    Message,
    Refused,
    SessionDecoder,
    encode_request,
)
from mdtool.wire.quotes import Quote

log = logging.getLogger(__name__)

READ_BYTES: Final = 1 << 18
"""Read at once: some 5,000 orders, which block the event loop for a millisecond."""
_LONGEST_DELAY_S: Final = 1.0
_PATIENCE_S: Final = 30.0
"""How long a sender that was never there may still be starting, and is not reported."""


_ENDED: Final = "the stream has ended"


class DbnQuotes:
    """Follows the stream of a sender, from its present books on, and makes quotes of it.

    Parameters
    ----------
    address : str
        HOST:PORT of the data port of `mdtool replay-dbn --serve`, or of another port that streams
        DBN so. It may stream any schema with prices or orders.
    publish : callable
        Takes quotes: of whatever has arrived, the last of each symbol.
    observe : callable, optional
        Takes the records as they arrive, before their quotes; each stream has its own table of
        instruments.

    Attributes
    ----------
    lost_because : str or None
        Why there is no stream now.
    """

    def __init__(
        self,
        address: str,
        publish: Callable[[Sequence[Quote]], None],
        observe: Callable[[Batch], None] = lambda _batch: None,
    ) -> None:
        self.address = address
        self.lost_because: str | None = "not connected yet"
        self._publish = publish
        self._observe = observe
        self._reported = ""
        """Why there is no stream, as it was logged."""
        self._fresh: dict[str, Quote] = {}
        self._request: FromLive | FromNext = FromLive()

    async def run(self) -> None:
        """Follow until cancelled."""
        waits = delays(cap_s=_LONGEST_DELAY_S)
        loop = asyncio.get_running_loop()
        patient_until_s = loop.time() + _PATIENCE_S
        while True:
            is_starting = False
            try:
                await self._read()
            except OSError as error:
                reason = reason_of(error)
                is_starting = loop.time() < patient_until_s
            except MdtoolError as error:
                reason = str(error)
            else:
                reason = _ENDED
                log.info("quotes from %s: %s", self.address, reason)
            if self.lost_because is None:
                waits = delays(cap_s=_LONGEST_DELAY_S)
                # The next stream of a sender that has ended one may begin any time later.
                patient_until_s = math.inf if reason == _ENDED else 0.0
                self._reported, is_starting = "", False
            self.lost_because = reason
            if reason not in {self._reported, _ENDED} and not is_starting:
                log.warning("quotes from %s: %s; reconnecting", self.address, reason)
                self._reported = reason
            self._fresh.clear()
            await asyncio.sleep(next(waits))

    def repeat(self) -> None:
        """Publish all quotes once more: they are fresh as long as the stream is connected."""
        if self._fresh:
            self._publish(list(self._fresh.values()))

    async def _read(self) -> None:
        """Read the sender's messages until its stream has ended.

        Raises
        ------
        OSError
            When there is no connection, or no longer.
        MdtoolError
            When the sender refuses, or is not one.
        """
        host, port = parse_address(self.address)
        tls = connect_options("replay-dbn", host)
        reader, writer = await asyncio.open_connection(host, port, **tls)
        try:
            notice_loss(writer.get_extra_info("socket"))
            writer.write(encode_request(self._request, client_token(None)))
            decoder = SessionDecoder(f"sender {self.address}")
            stream = _Stream(self._observe)
            prepared = set()
            while data := await reader.read(READ_BYTES):
                is_over = False
                for message in decoder.feed(data):
                    if isinstance(message, Data) and message.records.dtype not in prepared:
                        # What orders need is compiled aside: the event loop serves clients.
                        await asyncio.to_thread(_prepare, message.records.dtype)
                        prepared.add(message.records.dtype)
                    is_over |= self._apply(stream, decoder, message)
                self._publish_changed(stream)
                if is_over:
                    return
            raise ConnectionError("closed the connection")
        finally:
            writer.transport.abort()

    def _apply(self, stream: _Stream, decoder: SessionDecoder, message: Message) -> bool:
        """Apply a message from the sender; return whether it was the last."""
        match message:
            case Begin():
                assert decoder.metadata is not None
                stream.begin(decoder.metadata)
                self._request = FromLive()
                if self.lost_because is not None:
                    level = logging.INFO if self._reported else logging.DEBUG
                    log.log(level, "quotes from %s: connected", self.address)
                self.lost_because = None
            case Data(records):
                stream.apply(records)
            case Refused(reason):
                raise ConnectionError(reason)
            case End():
                self._request = FromNext()  # the last books of this one were published
                return True
        return False

    def _publish_changed(self, stream: _Stream) -> None:
        quotes, stream.quotes = stream.quotes, {}
        if quotes:
            self._fresh.update(quotes)
            self._publish(list(quotes.values()))


def _prepare(layout: np.dtype[np.void]) -> None:
    """Compile what quotes of records of a layout need."""
    LatestQuotes().update(Batch.of(np.zeros(1, layout)))


class _Stream:
    """The quotes of one stream."""

    def __init__(self, observe: Callable[[Batch], None]) -> None:
        self._observe = observe
        self.quotes: dict[str, Quote] = {}
        """Changed and not published yet, by symbol."""
        self.begin(None)

    def begin(self, metadata: dbn.Metadata | None) -> None:
        self._latest = LatestQuotes()
        self._instruments = Instruments()
        self._resolver = Resolver(self._instruments, "sender", metadata)

    def apply(self, records: Records) -> None:
        if records["rtype"][0] == RTYPE_SYMBOL_MAPPING:
            self._resolver.learn(records)
            return
        batch = self._resolver.batch(records)
        self._observe(batch)
        quotes = self._latest.update(batch)
        for index, ts_ns, *prices, is_partial in quotes.tolist():
            bid, ask, last = (None if price == UNDEF_PRICE else price for price in prices)
            symbol = self._instruments[index].text.upper()
            ts_ms = max(ts_ns, 0) // NS_PER_MS
            self.quotes[symbol] = Quote(symbol, bid, ask, last, ts_ms, is_partial)
