"""The dedup index: which rows a store has already, by their streams and sequences."""

from __future__ import annotations

from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.datasets.trade_rows import TradeRows
from mdtool.adapters.stores import Store
from mdtool.adapters.stores.port import TradePage
from mdtool.core.errors import InputError
from mdtool.core.units import format_price, format_time

_NONE_WRITTEN: Final = -1


class DedupIndex:
    """Compares rows with the stored trades of the same streams.

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
        self.streams = [stream.stream_id for stream in store.streams()]
        self._numbers = {stream.stream_id: stream.number for stream in store.streams()}
        self._symbols = {totals.symbol for totals in store.symbols()}
        self._highest: dict[str, int] = {}
        """The highest sequence written of each stream that was not stored before."""

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
        looked_up = ~self._is_beyond(rows)
        for symbol in np.unique(rows.trades.symbol[looked_up]).tolist():
            if rows.symbols[symbol] not in self._symbols:
                continue
            times = rows.trades.ts_event[looked_up & (rows.trades.symbol == symbol)]
            begin_ns, end_ns = int(times.min()), int(times.max()) + 1
            for page in self._store.trades(rows.symbols[symbol], begin_ns, end_ns):
                places.exclude_stored(page, symbol, self._numbers, new)
        return new

    def add(self, rows: TradeRows) -> None:
        """Add rows that were written."""
        self._symbols.update(
            rows.symbols[index] for index in np.unique(rows.trades.symbol).tolist()
        )
        is_unknown = False
        for index in np.unique(rows.stream).tolist():
            stream_id = rows.streams[index]
            if stream_id not in self._numbers or stream_id in self._highest:
                highest = int(rows.sequence[rows.stream == index].max())
                self._highest[stream_id] = max(highest, self._highest.get(stream_id, _NONE_WRITTEN))
                is_unknown |= stream_id not in self._numbers
        if is_unknown:
            self._numbers = {stream.stream_id: stream.number for stream in self._store.streams()}

    def _is_beyond(self, rows: TradeRows) -> NDArray[np.bool_]:
        """Return which rows follow all that is stored of their streams."""
        beyond = np.zeros(len(rows), np.bool_)
        for index in np.unique(rows.stream).tolist():
            stream_id = rows.streams[index]
            if stream_id not in self._numbers or stream_id in self._highest:
                highest = self._highest.get(stream_id, _NONE_WRITTEN)
                beyond |= (rows.stream == index) & (rows.sequence > highest)
        return beyond


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
                self._reject(other, "another row")
            new[other] = False

    def exclude_stored(
        self, page: TradePage, symbol: int, numbers: dict[str, int], new: NDArray[np.bool_]
    ) -> None:
        """Clear `new` for rows that are among a symbol's stored trades."""
        rows, trades = self._rows, self._rows.trades
        for index, (begin, end) in self._parts.items():
            number = numbers.get(rows.streams[index])
            stored = np.flatnonzero(page.stream == number) if number is not None else ()
            if not len(stored):
                continue
            sequence = page.sequence[stored]
            at = begin + np.searchsorted(self._sequence[begin:end], sequence)
            found = at < end
            found[found] = self._sequence[at[found]] == sequence[found]
            stored, row = stored[found], self._order[at[found]]
            same = (
                (trades.symbol[row] == symbol)
                & (trades.ts_event[row] == page.trades.ts_event[stored])
                & (trades.price[row] == page.trades.price[stored])
                & (trades.size[row] == page.trades.size[stored])
            )
            if not same.all():
                self._reject(int(row[~same][0]), "the store")
            new[row] = False

    def _reject(self, row: int, other: str) -> NoReturn:
        rows, trades = self._rows, self._rows.trades
        raise InputError(
            f"stream {rows.streams[int(rows.stream[row])]!r} is not the one that was stored: at "
            f"{int(rows.sequence[row])} it has {rows.symbols[int(trades.symbol[row])]} "
            f"{format_price(int(trades.price[row]))} x {int(trades.size[row]):,} of "
            f"{format_time(int(trades.ts_event[row]))}, where {other} has another trade"
        )
