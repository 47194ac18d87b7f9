"""Readers of the order book's lines, each at its own pace, and how long they are waited for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.core.records import Records
from mdtool.services.book.processing import Processing
from mdtool.wire.book_lines import BookLines

BATCH_RECORDS: Final = 5_000
FLUSH_RECORDS: Final = 500
CHUNK_RECORDS: Final = 1 << 15
"""More than may be processed at one go: so much room in the history is kept."""
_LEAST_LOOK_S: Final = 0.01


class Reader:
    """Goes through what was processed, from the oldest record that is kept.

    It has books of its own, and applies each record to them once more.

    Parameters
    ----------
    processing : Processing
    depth : int
        How many levels of a side its lines show.
    symbols : collection of str, optional
        Those that it wants lines of, else all.

    Attributes
    ----------
    number : int
        The number of the record that it takes next.
    missed : int
        Records that were forgotten before it took them.
    handed_s : float or None
        When it was handed what it has not taken yet, on the loop's clock.
    """

    def __init__(self, processing: Processing, depth: int, symbols: Collection[str] | None) -> None:
        self.number = 0
        self.missed = 0
        self.handed_s: float | None = None
        self._processing = processing
        self._depth = depth
        self._symbols = symbols
        self._lines = BookLines(processing.symbology.symbols)
        self._enter()

    async def batches(self) -> AsyncIterator[list[memoryview]]:
        """Yield lines of at most `BATCH_RECORDS` records, `FLUSH_RECORDS` to a piece.

        A batch is what there is; it is not waited for one to fill.
        """
        history = self._processing.history
        while await self._processing.more(self.number):
            if self.number < history.first:
                self._enter()
            records = history.read(self.number, BATCH_RECORDS)
            wanted, symbol = self._choose(records)
            self.number += len(records)
            yield await asyncio.to_thread(self._encode, records, wanted, symbol)

    def _enter(self) -> None:
        """Go to the oldest record that is kept."""
        history = self._processing.history
        self.missed += history.first - self.number
        self.number = history.first
        self._books = history.books()

    def _choose(self, records: Records) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint32]]:
        """Return which records are wanted, and the symbols of all."""
        symbol, table = self._processing.symbology.symbols_of(records)
        if self._symbols is None:
            return np.ones(len(records), np.bool_), symbol
        chosen = [index for name in self._symbols if (index := table.find(name)) is not None]
        return np.isin(symbol, chosen), symbol

    def _encode(
        self, records: Records, wanted: npt.NDArray[np.bool_], symbol: npt.NDArray[np.uint32]
    ) -> list[memoryview]:
        pieces = []
        for begin in range(0, len(records), FLUSH_RECORDS):
            at = begin
            for rows in self._books.states(records[begin : begin + FLUSH_RECORDS], self._depth):
                of_rows = slice(at, at + len(rows))
                chosen = wanted[of_rows]
                pieces.append(self._lines.encode(rows[chosen], symbol[of_rows][chosen]))
                at += len(rows)
        return [piece for piece in pieces if len(piece)]


class Readers:
    """Those who read the lines of one processing.

    Processing waits for the slowest of them, so that nobody who keeps taking misses anything; but
    not for one who has taken nothing for `patience_s`.
    """

    def __init__(self, processing: Processing, patience_s: float) -> None:
        self._processing = processing
        self._patience_s = patience_s
        self._readers: set[Reader] = set()
        self._when_free: Callable[[], None] | None = None
        self._look_again: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def joined(self, reader: Reader) -> Iterator[None]:
        """Wait for the reader within the block."""
        self._readers.add(reader)
        try:
            yield
        finally:
            self._readers.discard(reader)
            self.moved()

    def are_behind(self) -> bool:
        """Tell whether the next records would make somebody miss some who still takes them."""
        history = self._processing.history
        if history.room >= CHUNK_RECORDS:
            return False
        now_s = asyncio.get_running_loop().time()
        return any(
            reader.number < history.next_first and self._is_moving(reader, now_s)
            for reader in self._readers
        )

    def when_free(self, call: Callable[[], None]) -> None:
        """Have `call` called once, when nobody is behind any more."""
        self._when_free = call
        self._watch()

    def moved(self) -> None:
        """Take note that a reader has taken something, or left."""
        if self._when_free is not None and not self.are_behind():
            call, self._when_free = self._when_free, None
            call()

    def _is_moving(self, reader: Reader, now_s: float) -> bool:
        return reader.handed_s is None or now_s - reader.handed_s < self._patience_s

    def _watch(self) -> None:
        """Look now and then whether whom all wait for has stopped taking anything."""
        if self._look_again is not None:
            self._look_again.cancel()
        self.moved()
        if self._when_free is not None:
            loop = asyncio.get_running_loop()
            self._look_again = loop.call_later(self._patience_s / 4 + _LEAST_LOOK_S, self._watch)
