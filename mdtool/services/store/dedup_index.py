"""The dedup index: which rows a store has already, by their streams and sequences."""

from __future__ import annotations

from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.datasets.trade_rows import TradeRows
from mdtool.adapters.stores import Store
from mdtool.adapters.stores.port import TradePage
from mdtool.core.errors import InputError
from mdtool.core.units import format_price, format_time


class DedupIndex:
    """Compares rows with the stored trades of the same streams.

    A stream has one trade of each sequence, whatever else differs.

    Parameters
    ----------
    store : Store
        Nobody else writes trades of these streams.

    Attributes
    ----------
    streams : list of str
        Those of the store when it was opened.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._numbers = {stream.stream_id: stream.number for stream in store.streams()}
        self.streams = list(self._numbers)
        self._taken: dict[str, _Sequences] = {}
        """The stored sequences of the streams that rows had so far."""
        self._runs: NDArray[np.int64] | None = None
        """`Store.sequences`, read when rows are first of a stored stream."""

    def is_new(self, rows: TradeRows) -> NDArray[np.bool_]:
        """Return which rows are not stored, bool[n], each trade once.

        Raises
        ------
        InputError
            When another trade has the stream and sequence of a row.
        """
        new = np.ones(len(rows), np.bool_)
        if not len(rows):
            return new
        places = _Places(rows)
        places.exclude_repeated(new)
        stored = self._is_stored(rows)
        found = ~stored
        for symbol in np.unique(rows.trades.symbol[stored]).tolist():
            times = rows.trades.ts_event[stored & (rows.trades.symbol == symbol)]
            begin_ns, end_ns = int(times.min()), int(times.max()) + 1
            for page in self._store.trades(rows.symbols[symbol], begin_ns, end_ns):
                places.find(page, symbol, self._numbers, found)
        if not (found | ~new).all():
            places.reject(int(np.flatnonzero(~found & new)[0]), "the store")
        return new & ~stored

    def add(self, rows: TradeRows) -> None:
        """Add rows that were written."""
        for index in np.unique(rows.stream).tolist():
            stream_id = rows.streams[index]
            self._taken[stream_id].add(np.unique(rows.sequence[rows.stream == index]))
            if stream_id not in self._numbers:
                streams = self._store.streams()
                self._numbers = {stream.stream_id: stream.number for stream in streams}

    def _is_stored(self, rows: TradeRows) -> NDArray[np.bool_]:
        """Return of which rows the stream and sequence are stored."""
        stored = np.zeros(len(rows), np.bool_)
        for index in np.unique(rows.stream).tolist():
            stream_id = rows.streams[index]
            if stream_id not in self._taken:
                self._taken[stream_id] = self._stored_sequences(stream_id)
            own = rows.stream == index
            stored[own] = self._taken[stream_id].has(rows.sequence[own])
        return stored

    def _stored_sequences(self, stream_id: str) -> _Sequences:
        """Return the sequences of a stream that were stored before any of these rows."""
        number = self._numbers.get(stream_id)
        if number is None:
            return _Sequences(np.empty((2, 0), np.int64))
        if self._runs is None:
            self._runs = self._store.sequences()
        begin, end = np.searchsorted(self._runs[0], [number, number + 1])
        return _Sequences(self._runs[1:, begin:end].copy())


class _Sequences:
    """A set of integers as runs of consecutive ones.

    Parameters
    ----------
    runs : int64[2, n]
        Their first and last integers, in order.
    """

    def __init__(self, runs: NDArray[np.int64]) -> None:
        self._runs = runs
        self._count = runs.shape[1]

    def has(self, sequence: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which integers are in the set, bool[n]."""
        if not self._count:
            return np.zeros(len(sequence), np.bool_)
        first, last = self._runs[:, : self._count]
        run = np.searchsorted(first, sequence, side="right") - 1
        is_in: NDArray[np.bool_] = (run >= 0) & (sequence <= last[run])
        return is_in

    def add(self, sequence: NDArray[np.int64]) -> None:
        """Add integers, in order and each once, that are not in the set."""
        ends = np.flatnonzero(np.diff(sequence) != 1)
        runs = np.stack([sequence[np.append(0, ends + 1)], sequence[np.append(ends, -1)]])
        last = int(self._runs[1, self._count - 1]) if self._count else -1
        if runs[0, 0] <= last:
            runs = np.concatenate([self._runs[:, : self._count], runs], axis=1)
            self._runs = _joined(runs[:, np.argsort(runs[0])])
            self._count = self._runs.shape[1]
            return
        if self._count and runs[0, 0] == last + 1:
            self._runs[1, self._count - 1] = runs[1, 0]
            runs = runs[:, 1:]
        end = self._count + runs.shape[1]
        if end > self._runs.shape[1]:  # doubled, so that many small batches cost little
            self._runs = np.pad(self._runs, ((0, 0), (0, 2 * end - self._runs.shape[1])))
        self._runs[:, self._count : end] = runs
        self._count = end


def _joined(runs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return sorted runs with adjacent ones joined."""
    begins = np.append(True, runs[0, 1:] != runs[1, :-1] + 1)
    ends = np.append(begins[1:], True)
    return np.stack([runs[0, begins], runs[1, ends]])


class _Places:
    """Rows sorted by stream and sequence."""

    def __init__(self, rows: TradeRows) -> None:
        self._rows = rows
        self._order = np.lexsort((rows.sequence, rows.stream))
        self._sequence = rows.sequence[self._order]
        stream = rows.stream[self._order]
        used, first = np.unique(stream, return_index=True)
        ends = [*first[1:].tolist(), len(stream)]
        self._parts = dict(zip(used.tolist(), zip(first.tolist(), ends, strict=True), strict=True))

    def exclude_repeated(self, new: NDArray[np.bool_]) -> None:
        """Clear `new` for rows that repeat a row before them."""
        rows, order = self._rows, self._order
        stream = rows.stream[order]
        repeats = np.flatnonzero(
            (stream[1:] == stream[:-1]) & (self._sequence[1:] == self._sequence[:-1])
        )
        for k in repeats.tolist():
            first, other = int(order[k]), int(order[k + 1])
            if any(
                getattr(rows.trades, name)[first] != getattr(rows.trades, name)[other]
                for name in ("symbol", "ts_event", "price", "size")
            ):
                self.reject(other, "another row")
            new[other] = False

    def find(
        self, page: TradePage, symbol: int, numbers: dict[str, int], found: NDArray[np.bool_]
    ) -> None:
        """Set `found` for rows that are among a symbol's stored trades."""
        rows, trades = self._rows, self._rows.trades
        for index, (begin, end) in self._parts.items():
            number = numbers.get(rows.streams[index])
            stored = np.flatnonzero(page.stream == number) if number is not None else ()
            if not len(stored):
                continue
            sequence = page.sequence[stored]
            at = begin + np.searchsorted(self._sequence[begin:end], sequence)
            matches = at < end
            matches[matches] = self._sequence[at[matches]] == sequence[matches]
            stored, row = stored[matches], self._order[at[matches]]
            same = (
                (trades.symbol[row] == symbol)
                & (trades.ts_event[row] == page.trades.ts_event[stored])
                & (trades.price[row] == page.trades.price[stored])
                & (trades.size[row] == page.trades.size[stored])
            )
            found[row[same]] = True

    def reject(self, row: int, other: str) -> NoReturn:
        """Raise InputError: another trade has the stream and sequence of a row."""
        rows, trades = self._rows, self._rows.trades
        raise InputError(
            f"stream {rows.streams[int(rows.stream[row])]!r} is not the one that was stored: at "
            f"{int(rows.sequence[row])} it has {rows.symbols[int(trades.symbol[row])]} "
            f"{format_price(int(trades.price[row]))} x {int(trades.size[row]):,} of "
            f"{format_time(int(trades.ts_event[row]))}, where {other} has another trade"
        )
