"""One processing of a sender's stream: its books, its history, and how far it has come."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

import databento_dbn as dbn

from mdtool.adapters.warning_log import WarningLog
from mdtool.core.batch import Batch, Resolver
from mdtool.core.dtypes import MBO, RTYPE_SYMBOL_MAPPING
from mdtool.core.errors import PeerError
from mdtool.core.instruments import Instruments
from mdtool.core.rates import Rates
from mdtool.core.records import Records
from mdtool.core.stream_warnings import warnings_in
from mdtool.core.units import NS_PER_S
from mdtool.engine.book.rebuild import Rebuild
from mdtool.engine.book.state import Books
from mdtool.services.book.history import Backpressure, History
from mdtool.wire.dbn_session import Begin, Data, End, FromLive, FromStart, Message, Refused, Resume

log = logging.getLogger(__name__)

_MBO: Final = "mbo"
_SENDER: Final = "sender"


class Processing:
    """Applies a stream to books, and keeps its latest records for readers.

    Parameters
    ----------
    opening : FromStart or FromLive
        The first request to the sender.
    history_records : int
        The size of the history.
    patience_s : float
        How long a reader that stopped reading blocks the processing.

    Attributes
    ----------
    rebuild : Rebuild
        Its books are those between events: the records of an unfinished event are in none of them.
    history : History
        The latest records, as they came.
    backpressure : Backpressure
        The readers of the history.
    instruments : Instruments
        Those of the stream.
    stream : str or None
        The identity of the stream, once it is known.
    position : int
        How many of the stream's records came before, received or not.
    skipped : int
        Records that the sender left out because this receiver was too slow.
    resumed : int
        How often the stream was resumed without a gap.
    warnings : WarningLog
        What the stream says of records that it lost before it came to the sender.
    is_connected, is_over : bool
        Whether there is a connection to the sender; whether nothing more is processed.
    is_stopped : bool
        Whether it is over because it was stopped.
    error : str or None
        Why it is over before the end of the stream.
    """

    def __init__(
        self, opening: FromStart | FromLive, history_records: int, patience_s: float
    ) -> None:
        self.rebuild = Rebuild()
        self.history = History(history_records)
        self.backpressure = Backpressure(self.history, patience_s)
        self.instruments = Instruments()
        self._resolver = Resolver(self.instruments, _SENDER)
        self.stream: str | None = None
        self.position = 0
        self.skipped = 0
        self.resumed = 0
        self.warnings = WarningLog(_SENDER, is_endless=True)
        self.is_connected = False
        self.is_over = False
        self.is_stopped = False
        self.error: str | None = None
        self.rates = Rates()
        self._opening = opening
        self._first_ns = self._last_ns = 0
        self._snapshot_left = 0
        """Records of a snapshot that are missing; until they come nothing can be resumed."""
        self._has_news = asyncio.Event()

    @property
    def records(self) -> int:
        """How many order book records were processed, those of snapshots included."""
        return self.history.end

    @property
    def elapsed_s(self) -> float:
        """Seconds from the first records to the last ones so far."""
        return (self._last_ns - self._first_ns) / NS_PER_S

    @property
    def request(self) -> FromStart | FromLive | Resume:
        """The request with which a new connection continues this processing."""
        if self.stream is None or self._snapshot_left:
            return self._opening
        return Resume(self.stream, self.position)

    def set_metadata(self, metadata: dbn.Metadata) -> None:
        """Take the header of the stream that is about to begin.

        Raises
        ------
        PeerError
            When books cannot be rebuilt from the schema of the stream.
        """
        if metadata.schema is not None and str(metadata.schema) != _MBO:
            raise PeerError(f"the sender streams {metadata.schema}; books are made of mbo")
        if self.stream is None:
            self.instruments = Instruments()
            self._resolver = Resolver(self.instruments, _SENDER, metadata)

    def receive(self, message: Message) -> None:
        """Process a message of the sender.

        Raises
        ------
        PeerError
            When it does not answer the request, or rejects it.
        """
        match message:
            case Begin():
                self._begin(message)
            case Data(records, position):
                self._snapshot_left -= len(records) if self._snapshot_left else 0
                self._process(records)
                self.position = position
            case End():
                self._end()
            case Refused(reason):
                raise PeerError(f"the sender ended the session: {reason}")

    def fail(self, reason: str) -> None:
        """End before the end of the stream because of an error."""
        log.error("stopped at record %d: %s", self.position, reason)
        self.error = reason
        self._end()

    def stop(self, reason: str) -> None:
        """End before the end of the stream because it is not needed any more."""
        log.info("stopped at record %d: %s", self.position, reason)
        self.is_stopped = True
        self.error = reason
        self._end()

    async def more(self, number: int) -> bool:
        """Wait for more than `number` records; return whether there are as many."""
        while self.history.end <= number and not self.is_over:
            await self._has_news.wait()
        return self.history.end > number

    def _begin(self, begin: Begin) -> None:
        if self.stream is None:
            log.info("processing stream %s from record %d", begin.stream, begin.position)
        elif begin.stream == self.stream and (begin.skipped or self._snapshot_left):
            self.skipped += begin.position - self.position
            log.warning("missed records up to %d; a snapshot replaces them", begin.position)
        elif begin.stream == self.stream and begin.position == self.position:
            self.resumed += 1
            log.info("resumed at record %d without a gap", self.position)
        else:
            raise PeerError(
                f"asked to resume at record {self.position} of stream {self.stream}, the sender "
                f"begins at {begin.position} of {begin.stream}"
            )
        self.stream, self.position = begin.stream, begin.position
        self._snapshot_left = begin.snapshot

    def _process(self, records: Records) -> None:
        if records["rtype"][0] == RTYPE_SYMBOL_MAPPING:
            self._resolver.learn(records)
        batch = self._resolver.batch(records)
        if records.dtype != MBO:
            self._warn(batch)
            return
        now_ns = time.monotonic_ns()
        self._first_ns = self._first_ns or now_ns
        while len(batch):
            if not self.history.room:
                self.history.open_block(self._books_after_all())
            part = batch[: self.history.room]
            self.rebuild.update(part)
            self.history.append(part)
            batch = batch[len(part) :]
        self._last_ns = time.monotonic_ns()
        self.rates.update(self._last_ns, self.records)
        self._notify()

    def _warn(self, control: Batch) -> None:
        """Take control records; where the stream says that it lost records, books are partial."""
        if warnings_in(control.records):
            self.warnings.take(control.records)
            self.rebuild.update(control)
            self.history.note_loss()

    def _books_after_all(self) -> Books:
        """Return books that the records of unfinished events are applied to, too."""
        books = self.rebuild.books.copy()
        books.apply(self.rebuild.events.held)
        return books

    def _end(self) -> None:
        self.is_over = True
        self.warnings.report()
        self._notify()

    def _notify(self) -> None:
        self._has_news.set()
        self._has_news = asyncio.Event()
