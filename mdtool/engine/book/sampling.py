"""Samples of a stream's books: at one moment, or at the ends of intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mdtool.core.batch import Batch
from mdtool.core.dtypes import MBO
from mdtool.core.instruments import Instruments
from mdtool.core.records import index_timestamps
from mdtool.engine.book import kernel as k
from mdtool.engine.book.joined import JoinedView, by_symbol
from mdtool.engine.book.rebuild import Rebuild
from mdtool.engine.book.snapshot import Snapshot
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import BookView, views


class Sampler(Protocol):
    """Takes a stream as it arrives and yields snapshots of its books.

    Attributes
    ----------
    rebuild : Rebuild
    """

    rebuild: Rebuild

    def update(self, batch: Batch) -> Iterator[Snapshot]:
        """Take MBO or control records; yield snapshots of the moments that they end.

        To be exhausted before the next call: a snapshot is taken when it is requested.
        """
        ...

    def close(self) -> Iterator[Snapshot]:
        """Yield the last snapshots, at the end of the stream."""
        ...


class FinalSampler:
    """Samples every book once, as it is at the end of the stream.

    An event that has not ended by then is in no snapshot.

    Parameters
    ----------
    depth : int, optional
        At most so many levels of a side, else all.
    rebuild : Rebuild, optional
        The books to update in place of new ones, where a stream is resumed.
    has_orders : bool
        Whether snapshots have the orders of their levels.
    consolidated : Instruments, optional
        Those of the books, if the books of a symbol at all publishers give one snapshot.
    """

    def __init__(
        self,
        depth: int | None = None,
        rebuild: Rebuild | None = None,
        has_orders: bool = False,
        consolidated: Instruments | None = None,
    ) -> None:
        self.rebuild = rebuild or Rebuild()
        self._consolidated = consolidated
        self._depth = depth
        self._has_orders = has_orders

    def update(self, batch: Batch) -> Iterator[Snapshot]:
        """Take MBO or control records; yield nothing."""
        self.rebuild.update(batch)
        yield from ()

    def close(self) -> Iterator[Snapshot]:
        """Yield a snapshot of every book, each of the time of its last record."""
        books = self.rebuild.books
        if self._consolidated is not None:
            yield from _consolidated(books, books.instruments(), self._consolidated, self._depth)
            return
        for view in views(books):
            yield Snapshot.of(view, self._depth, has_orders=self._has_orders)


class IntervalSampler:
    """Samples, at the end of each interval, every book of which an event ended in it.

    Intervals start at whole multiples of their length since the epoch, and their starts are
    inclusive. Where index timestamps decrease, the time stays as it is.

    Parameters
    ----------
    interval_ns : int
    depth : int, optional
        At most so many levels of a side, else all.
    after_ns : int, optional
        Intervals that end by then give no snapshots; what happens in them is in the books.
    rebuild : Rebuild, optional
        The books to update in place of new ones.
    has_orders, consolidated
        As `FinalSampler`.
    """

    def __init__(
        self,
        interval_ns: int,
        depth: int | None = None,
        after_ns: int | None = None,
        rebuild: Rebuild | None = None,
        has_orders: bool = False,
        consolidated: Instruments | None = None,
    ) -> None:
        self.rebuild = rebuild or Rebuild()
        self._consolidated = consolidated
        self._has_orders = has_orders
        self._interval_ns = interval_ns
        self._depth = depth
        self._after_ns = after_ns
        self._end_ns = 0
        self._counts = np.empty(0, np.int64)

    def update(self, batch: Batch) -> Iterator[Snapshot]:
        """Take MBO or control records; yield snapshots of the intervals that they end."""
        if batch.records.dtype != MBO:
            self.rebuild.update(batch)
            return
        now_ns = np.maximum.accumulate(index_timestamps(batch.records))
        np.maximum(now_ns, self.rebuild.latest_ns, out=now_ns)
        begin = 0
        while begin < len(batch):
            end = int(np.searchsorted(now_ns, self._end_ns))
            self.rebuild.update(batch[begin:end])
            if end < len(batch):
                yield from self._take()
                self._end_ns = (int(now_ns[end]) // self._interval_ns + 1) * self._interval_ns
            begin = end

    def close(self) -> Iterator[Snapshot]:
        """Yield snapshots of the interval that the stream's end cuts short."""
        yield from self._take()

    def _take(self) -> Iterator[Snapshot]:
        books = self.rebuild.books
        counts = books.state.books[: len(books), k.B_EVENTS].copy()
        before = np.zeros_like(counts)
        before[: len(self._counts)] = self._counts
        self._counts = counts
        if self._after_ns is not None and self._end_ns <= self._after_ns:
            return
        changed = books.instruments()[counts != before]
        if self._consolidated is not None:
            yield from _consolidated(books, changed, self._consolidated, self._depth, self._end_ns)
            return
        for instrument in changed.tolist():
            view = BookView(books, instrument)
            yield Snapshot.of(view, self._depth, self._end_ns, self._has_orders)


def _consolidated(
    books: Books,
    chosen: npt.NDArray[np.int64],
    instruments: Instruments,
    depth: int | None,
    ts_ns: int | None = None,
) -> Iterator[Snapshot]:
    """Yield a snapshot of each symbol of which one of the chosen instruments is."""
    first = instruments.first_of_symbol
    of_symbol = by_symbol(books, first)
    for symbol in dict.fromkeys(first[chosen].tolist()):
        joined = JoinedView(symbol, [BookView(books, each) for each in of_symbol[symbol]])
        yield Snapshot.of(joined, depth, ts_ns)
