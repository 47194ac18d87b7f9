"""One processing of a stream: its books, its history, and how far it has come."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

import databento_dbn as dbn

from mdtool.core.dtypes import MBO, RTYPE_SYMBOL_MAPPING
from mdtool.core.errors import PeerError
from mdtool.core.rates import Rates
from mdtool.core.records import Records
from mdtool.core.symbology import Symbology
from mdtool.core.units import NS_PER_S
from mdtool.engine.book.rebuild import Rebuild
from mdtool.engine.book.state import Books
from mdtool.services.book.history import History
from mdtool.wire.dbn_session import Begin, Data, End, FromLive, FromStart, Message, Refused, Resume

log = logging.getLogger(__name__)

_MBO: Final = "mbo"


class Processing:
    """Applies what a sender says to books, and keeps what readers have not had yet.

    Parameters
    ----------
    opening : FromStart or FromLive
        What the sender is asked for at first.
    history_records : int
        As of `History`.

    Attributes
    ----------
    rebuild : Rebuild
        Its books are as they are between events: what belongs to one that has not ended is in
        none of them.
    history : History
        Every record, as it came.
    symbology : Symbology
    stream : str or None
        The identity of the stream, once it is known.
    position : int
        How many of the stream's records came before here, whether or not they were received.
    skipped : int
        Records that the sender left out, for this receiver was too slow.
    resumed : int
        How often the stream was taken up again without a gap.
    is_connected, is_over : bool
        Whether the sender is there, and whether there is nothing more to wait for.
    is_stopped : bool
        Whether it is over because somebody wished so.
    error : str or None
        Why it is over before the stream's end.
    """

    def __init__(self, opening: FromStart | FromLive, history_records: int) -> None:
        self.rebuild = Rebuild()
        self.history = History(history_records)
        self.symbology = Symbology()
        self.stream: str | None = None
        self.position = 0
        self.skipped = 0
        self.resumed = 0
        self.is_connected = False
        self.is_over = False
        self.is_stopped = False
        self.error: str | None = None
        self.rates = Rates()
        self._opening = opening
        self._first_ns = self._last_ns = 0
        self._missing = 0
        """Records of a snapshot that are still to come: until then there is nothing to resume."""
        self._has_news = asyncio.Event()

    @property
    def records(self) -> int:
        """How many order book records were processed, those of snapshots too."""
        return self.history.end

    @property
    def elapsed_s(self) -> float:
        """Seconds from the first records to the last ones so far."""
        return (self._last_ns - self._first_ns) / NS_PER_S

    @property
    def request(self) -> FromStart | FromLive | Resume:
        """What to ask a sender for, to go on from here."""
        if self.stream is None or self._missing:
            return self._opening
        return Resume(self.stream, self.position)

    def learn(self, metadata: dbn.Metadata) -> None:
        """Take over the header of the stream that is about to begin.

        Raises
        ------
        PeerError
            When the stream is of a schema that books cannot be made of.
        """
        if metadata.schema is not None and str(metadata.schema) != _MBO:
            raise PeerError(f"the sender streams {metadata.schema}; books are made of mbo")
        if self.stream is None:
            self.symbology.add(metadata)

    def take(self, message: Message) -> None:
        """Take what the sender says.

        Raises
        ------
        PeerError
            When it is not what was asked for.
        """
        match message:
            case Begin():
                self._begin(message)
            case Data(records, position):
                self._missing -= len(records) if self._missing else 0
                self._process(records)
                self.position = position
            case End():
                self._end()
            case Refused(reason):
                raise PeerError(f"the sender says: {reason}")

    def fail(self, reason: str) -> None:
        """End before the stream has ended."""
        log.error("stopped at record %d: %s", self.position, reason)
        self.error = reason
        self._end()

    def abandon(self, reason: str) -> None:
        """End before the stream has ended, as is wished."""
        log.info("at record %d: %s", self.position, reason)
        self.is_stopped = True
        self.error = reason
        self._end()

    async def more(self, number: int) -> bool:
        """Wait until more than `number` records were processed; tell whether there will be any."""
        while self.history.end <= number and not self.is_over:
            await self._has_news.wait()
        return self.history.end > number

    def _begin(self, begin: Begin) -> None:
        if self.stream is None:
            log.info("processing stream %s from record %d", begin.stream, begin.position)
        elif begin.stream == self.stream and (begin.skipped or self._missing):
            self.skipped += begin.position - self.position
            log.warning("missed records up to %d, taking a snapshot instead", begin.position)
        elif begin.stream == self.stream and begin.position == self.position:
            self.resumed += 1
            log.info("resumed at record %d without a gap", self.position)
        else:
            raise PeerError(
                f"asked to resume at record {self.position} of stream {self.stream}, the sender "
                f"begins at {begin.position} of {begin.stream}"
            )
        self.stream, self.position, self._missing = begin.stream, begin.position, begin.snapshot

    def _process(self, records: Records) -> None:
        if records["rtype"][0] == RTYPE_SYMBOL_MAPPING:
            self.symbology.learn(records)
        if records.dtype != MBO:
            return
        now_ns = time.monotonic_ns()
        self._first_ns = self._first_ns or now_ns
        while len(records):
            if not self.history.room:
                self.history.open_block(self._books_behind_all())
            part = records[: self.history.room]
            self.history.append(part)
            self.rebuild.update(part)
            records = records[len(part) :]
        self._last_ns = time.monotonic_ns()
        self.rates.update(self._last_ns, self.records)
        self._tell()

    def _books_behind_all(self) -> Books:
        """Return books that the records of unfinished events are in, too."""
        books = self.rebuild.books.copy()
        books.apply(self.rebuild.events.held)
        return books

    def _end(self) -> None:
        self.is_over = True
        self._tell()

    def _tell(self) -> None:
        self._has_news.set()
        self._has_news = asyncio.Event()
