"""The feed of the live view: a thread that reads a source, and applies due records to books."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.adapters.dbn_source import RecordSource
from mdtool.cli.live.playback import Playback
from mdtool.core.batch import Batch
from mdtool.core.dtypes import F_LAST, MBO
from mdtool.core.errors import MdtoolError
from mdtool.core.records import Records, index_timestamps, is_trade
from mdtool.core.stream_warnings import warnings_in
from mdtool.engine.book.joined import JoinedView, by_symbol
from mdtool.engine.book.rebuild import WholeEvents
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import BookView

MOST_AT_ONCE: Final = 8192
"""The most records applied at once, in less than a millisecond: the longest wait of a frame."""
TRADES_KEPT: Final = 64
_END_WAIT_S: Final = 0.1


class Tape:
    """The last `TRADES_KEPT` trades of each book."""

    def __init__(self) -> None:
        self._trades: dict[int, Records] = {}

    def add(self, batch: Batch) -> None:
        """Add the trades among MBO records, which have the action `T`."""
        trades = batch[is_trade(batch.records)]
        if not len(trades):
            return
        for instrument in np.unique(trades.instrument).tolist():
            latest = trades.records[trades.instrument == instrument][-TRADES_KEPT:]
            before = self._trades.get(instrument, latest[:0])
            self._trades[instrument] = np.concatenate([before, latest])[-TRADES_KEPT:]

    def last(self, instruments: Collection[int], count: int) -> Records:
        """Return the last trades of some books, at most `count`, latest first, as MBO records."""
        of_each = [self._trades[each] for each in instruments if each in self._trades]
        if not of_each:
            return np.empty(0, np.void)
        trades = np.concatenate(of_each)
        if len(of_each) > 1:
            trades = trades[np.argsort(index_timestamps(trades), kind="stable")]
        return trades[::-1][:count]


class Feed:
    """Plays a source into books, in a thread of its own.

    Books change by whole events, one batch at a time; within `held` they do not change. All
    attributes and methods except `start` and `close` are for use within it.

    Parameters
    ----------
    source : RecordSource
        Read by the thread alone. Records other than MBO are skipped.
    playback : Playback
    clock_ns : callable
        A monotonic clock.
    consolidates : bool
        Whether the books of a symbol at all publishers are shown as one.

    Attributes
    ----------
    books : Books
    tape : Tape
    records : int
        How many records were applied.
    bytes_played : int
        How many bytes of the source these took, about.
    played_ns : int
        When the last ones were applied, by `clock_ns`.
    has_ended : bool
    error : MdtoolError or None
        Why the source ended early.
    crash : BaseException or None
        The error of the thread itself.
    """

    def __init__(
        self,
        source: RecordSource,
        playback: Playback,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        consolidates: bool = False,
    ) -> None:
        self.playback = playback
        self.books = Books()
        self.tape = Tape()
        self.records = 0
        self.bytes_played = 0
        self.played_ns = clock_ns()
        self.has_ended = False
        self.error: MdtoolError | None = None
        self.crash: BaseException | None = None
        self._source = source
        self._consolidates = consolidates
        self._shown: int | None = None
        self._clock_ns = clock_ns
        self._events = WholeEvents()
        self._turn = threading.Condition()
        self._is_free = threading.Event()
        self._is_free.set()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="book-feed", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, unless it is blocked in its source: then it is left behind."""
        self._is_closed = True
        with self.held():
            pass
        self._thread.join(_END_WAIT_S)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep the thread from changing anything within the block."""
        # A lock alone would mostly return to the thread that has just released it.
        self._is_free.clear()
        with self._turn:
            self._is_free.set()
            yield
            self._turn.notify()

    @property
    def shown(self) -> int | None:
        """The instrument on the screen, at first the first one; a step is an event of it."""
        return None if self._shown is None else int(self._shown_as(np.array([self._shown]))[0])

    @property
    def books_shown(self) -> dict[int, list[int]]:
        """The instruments of the books of each one that can be shown, as they were first met."""
        if self._consolidates:
            return by_symbol(self.books, self._source.instruments.first_of_symbol)
        return {instrument: [instrument] for instrument in self.books.instruments().tolist()}

    @property
    def dataset(self) -> str:
        """The dataset of the source."""
        return self._source.metadata.dataset

    @property
    def size_bytes(self) -> int | None:
        """The size of the source; None for pipes and connections, which are taken to be live."""
        return self._source.size_bytes

    def symbol(self, instrument: int) -> str:
        """Return the symbol of an instrument."""
        return self._source.instruments[instrument].text

    def view(self, instrument: int, books: Sequence[int]) -> BookView | JoinedView:
        """Return the books of an instrument in `books_shown`, read as one."""
        views = [BookView(self.books, each) for each in books]
        return JoinedView(instrument, views) if self._consolidates else views[0]

    def show_next(self, offset: int) -> None:
        """Show the book so many places further in the order of `books_shown`."""
        shown = [*self.books_shown]
        if self.shown is not None:
            # A book of it, for it may stand for others whose books have records alone.
            place = (shown.index(self.shown) + offset) % len(shown)
            self._shown = self.books_shown[shown[place]][0]

    def _shown_as(self, instruments: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Return what stands for each of some instruments on the screen."""
        if not self._consolidates:
            return instruments
        first: npt.NDArray[np.int64] = self._source.instruments.first_of_symbol[instruments]
        return first

    def _run(self) -> None:
        try:
            self._read()
        except MdtoolError as error:
            self.error = error
        except BaseException as error:  # noqa: BLE001 - the view raises it
            self.crash = error
        self.has_ended = True

    def _read(self) -> None:
        read_before = 0
        for batch in self._source:
            if self._is_closed:
                return
            if batch.records.dtype == MBO:
                self._play(batch, read_before)
            elif warnings_in(batch.records):
                with self._turn:
                    held = self._events.release()
                    if len(held):
                        self._apply(held)
                    self.books.mark_partial()
            read_before = self._source.bytes_read
        with self._turn:
            if len(self._events.held):
                self._apply(self._events.held)

    def _play(self, batch: Batch, read_before: int) -> None:
        """Apply records as they become due."""
        timestamps_ns = index_timestamps(batch.records)
        n_bytes = self._source.bytes_read - read_before
        done = 0
        while done < len(batch):
            self._is_free.wait()
            with self._turn:
                if self._is_closed:
                    return
                now_ns = self._clock_ns()
                ahead = slice(done, done + MOST_AT_ONCE)
                if self.playback.steps:
                    count, is_whole = self._step(batch[ahead])
                else:
                    count, is_whole = self.playback.due(timestamps_ns[ahead], now_ns), False
                if not count:
                    self._turn.wait(self.playback.wait_s(int(timestamps_ns[done]), now_ns))
                    continue
                for whole in self._events.feed(batch[done : done + count]):
                    self._apply(whole)
                done += count
                if is_whole:
                    self.playback.stepped()
                self.playback.played(int(timestamps_ns[done - 1]))
                self.played_ns = now_ns
                self.bytes_played = read_before + n_bytes * done // len(batch)

    def _step(self, batch: Batch) -> tuple[int, bool]:
        """Return how many records make a step, and whether an event of the shown book ends it."""
        instruments = self._shown_as(batch.instrument)
        shown = int(instruments[0]) if self.shown is None else self.shown
        is_end = ((batch.records["flags"] & F_LAST) != 0) & (instruments == shown)
        return (int(is_end.argmax()) + 1, True) if is_end.any() else (len(batch), False)

    def _apply(self, batch: Batch) -> None:
        """Apply records of whole events."""
        self.books.apply(batch)
        self.tape.add(batch)
        self.records += len(batch)
        if self._shown is None:
            self._shown = int(batch.instrument[0])
