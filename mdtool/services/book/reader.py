"""A reader of the order book's lines, at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Final

import numpy as np
import numpy.typing as npt

from mdtool.core import permissions
from mdtool.core.batch import Batch
from mdtool.core.instruments import Instruments
from mdtool.services.book.history import Cursor
from mdtool.services.book.processing import Processing
from mdtool.wire.book_lines import BookLines

BATCH_RECORDS: Final = 5_000
FLUSH_RECORDS: Final = 500


class Shown:
    """Which books somebody sees: those that were requested, and may be read.

    Parameters
    ----------
    symbols : collection of str, optional
        Any names of instruments; without them all.
    reader : permissions.Reader, optional
        What may be read; without it everything.
    """

    def __init__(self, symbols: Collection[str] | None, reader: permissions.Reader | None) -> None:
        self._symbols = symbols
        self._reader = reader

    def of(self, instruments: Instruments) -> npt.NDArray[np.bool_] | None:
        """Return which instruments they are, shape (len,); None for all."""
        if self._symbols is None and self._reader is None:
            return None
        texts = instruments.texts
        shown = np.ones(len(texts), np.bool_)
        if self._symbols is not None:
            shown &= instruments.have_name(self._symbols)
        if self._reader is not None:
            shown &= np.array([self._reader.can_read(text) for text in texts], np.bool_)
        return shown


class Reader:
    """Reads what was processed, from the oldest record in the history on.

    It has books of its own, and applies each record to them once more.

    Parameters
    ----------
    processing : Processing
    depth : int
        How many levels of a side its lines show.
    shown : Shown
        The books to encode lines of.

    Attributes
    ----------
    cursor : Cursor
    """

    def __init__(self, processing: Processing, depth: int, shown: Shown) -> None:
        self.cursor = Cursor()
        self._processing = processing
        self._depth = depth
        self._shown = shown
        self._texts: npt.NDArray[np.object_] | None = None
        """The labels of the instruments that `_is_selected` is for."""
        self._is_selected: npt.NDArray[np.bool_] | None = None
        self._lines = BookLines()
        self._enter()

    async def batches(self) -> AsyncIterator[list[memoryview]]:
        """Yield lines of at most `BATCH_RECORDS` records, `FLUSH_RECORDS` to a piece.

        A batch is what has arrived; none waits to fill.
        """
        history, cursor = self._processing.history, self.cursor
        while await self._processing.more(cursor.number):
            if cursor.number < history.first:
                self._enter()
            if history.has_lost_before(cursor.number):
                self._books.mark_partial()
            batch = history.read(cursor.number, BATCH_RECORDS)
            selected = self._select(batch)
            cursor.number += len(batch)
            yield await asyncio.to_thread(self._encode, batch, selected)

    def _enter(self) -> None:
        """Go to the oldest record in the history."""
        history, cursor = self._processing.history, self.cursor
        cursor.missed += history.first - cursor.number
        cursor.number = history.first
        self._books = history.books()

    def _select(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Return which records are selected."""
        instrument, texts = batch.instrument, batch.instruments.texts
        if texts is not self._texts:
            self._texts = texts
            self._is_selected = self._shown.of(batch.instruments)
        if self._is_selected is None:
            return np.ones(len(batch), np.bool_)
        return self._is_selected[instrument]

    def _encode(self, batch: Batch, selected: npt.NDArray[np.bool_]) -> list[memoryview]:
        pieces = []
        instruments = batch.instruments
        names = (instruments.texts, instruments.publishers)
        for begin in range(0, len(batch), FLUSH_RECORDS):
            at = begin
            for rows in self._books.states(batch[begin : begin + FLUSH_RECORDS], self._depth):
                of_rows = slice(at, at + len(rows))
                chosen = selected[of_rows]
                symbol = batch.instrument[of_rows][chosen]
                pieces.append(self._lines.encode(rows[chosen], symbol, *names))
                at += len(rows)
        return [piece for piece in pieces if len(piece)]
