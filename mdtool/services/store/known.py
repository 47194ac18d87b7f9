"""Which trades a store has already, told by their places in their streams."""

from __future__ import annotations

from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.datasets.trade_rows import TradeRows
from mdtool.adapters.stores import Store
from mdtool.adapters.stores.port import TradePage
from mdtool.core.errors import InputError
from mdtool.core.units import format_price, format_time

_NOT_WRITTEN: Final = -1


class Known:
    """Compares trades with those that a store holds of the same streams.

    Parameters
    ----------
    store : Store
        One that nobody else brings trades of these streams.

    Attributes
    ----------
    streams : list of str
        Those of the store, as it was at first.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.streams = [stream.stream_id for stream in store.streams()]
        self._numbers = {stream.stream_id: stream.number for stream in store.streams()}
        self._symbols = {totals.symbol for totals in store.symbols()}
        self._highest: dict[str, int] = {}
        """Of the streams that the store had nothing of, the highest sequence that it has by now."""

    def is_new(self, rows: TradeRows) -> NDArray[np.bool_]:
        """Return which rows the store does not have, each trade once.

        Raises
        ------
        InputError
            When another trade is in the place of one of them: the streams are not the same.
        """
        new = np.ones(len(rows), np.bool_)
        if not len(rows):
            return new
        places = _Places(rows)
        places.leave_out_repeated(new)
        looked_up = ~self._is_beyond(rows)
        for symbol in np.unique(rows.symbol[looked_up]).tolist():
            if rows.symbols[symbol] not in self._symbols:
                continue
            times = rows.exchange_timestamp[looked_up & (rows.symbol == symbol)]
            begin_ns, end_ns = int(times.min()), int(times.max()) + 1
            for page in self._store.trades(rows.symbols[symbol], begin_ns, end_ns):
                places.leave_out(page, symbol, self._numbers, new)
        return new

    def learn(self, rows: TradeRows) -> None:
        """Take note of rows that were written."""
        self._symbols.update(rows.symbols[index] for index in np.unique(rows.symbol).tolist())
        is_unknown = False
        for index in np.unique(rows.stream).tolist():
            stream_id = rows.streams[index]
            if stream_id not in self._numbers or stream_id in self._highest:
                highest = int(rows.sequence[rows.stream == index].max())
                self._highest[stream_id] = max(highest, self._highest.get(stream_id, _NOT_WRITTEN))
                is_unknown |= stream_id not in self._numbers
        if is_unknown:
            self._numbers = {stream.stream_id: stream.number for stream in self._store.streams()}

    def _is_beyond(self, rows: TradeRows) -> NDArray[np.bool_]:
        """Return which rows come after all that the store has of their streams."""
        beyond = np.zeros(len(rows), np.bool_)
        for index in np.unique(rows.stream).tolist():
            stream_id = rows.streams[index]
            if stream_id not in self._numbers or stream_id in self._highest:
                highest = self._highest.get(stream_id, _NOT_WRITTEN)
                beyond |= (rows.stream == index) & (rows.sequence > highest)
        return beyond


class _Places:
    """Rows by stream and sequence."""

    def __init__(self, rows: TradeRows) -> None:
        self._rows = rows
        self._order = np.lexsort((rows.sequence, rows.stream))
        self._sequence = rows.sequence[self._order]
        stream = rows.stream[self._order]
        used, first = np.unique(stream, return_index=True)
        ends = [*first[1:].tolist(), len(stream)]
        self._parts = dict(zip(used.tolist(), zip(first.tolist(), ends, strict=True), strict=True))

    def leave_out_repeated(self, new: NDArray[np.bool_]) -> None:
        """Clear `new` for rows that are in the place of one before them, and the same."""
        rows, order = self._rows, self._order
        stream = rows.stream[order]
        repeats = np.flatnonzero(
            (stream[1:] == stream[:-1]) & (self._sequence[1:] == self._sequence[:-1])
        )
        for k in repeats.tolist():
            first, other = int(order[k]), int(order[k + 1])
            if any(
                getattr(rows, name)[first] != getattr(rows, name)[other]
                for name in ("symbol", "exchange_timestamp", "price", "volume")
            ):
                self._refuse(other, "another row")
            new[other] = False

    def leave_out(
        self, page: TradePage, symbol: int, numbers: dict[str, int], new: NDArray[np.bool_]
    ) -> None:
        """Clear `new` for rows that are among a symbol's stored trades."""
        rows = self._rows
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
                (rows.symbol[row] == symbol)
                & (rows.exchange_timestamp[row] == page.timestamp[stored])
                & (rows.price[row] == page.price[stored])
                & (rows.volume[row] == page.volume[stored])
            )
            if not same.all():
                self._refuse(int(row[~same][0]), "the store")
            new[row] = False

    def _refuse(self, row: int, who: str) -> NoReturn:
        rows = self._rows
        raise InputError(
            f"stream {rows.streams[int(rows.stream[row])]!r} is not the one that was stored: at "
            f"{int(rows.sequence[row])} it has {rows.symbols[int(rows.symbol[row])]} "
            f"{format_price(int(rows.price[row]))} x {int(rows.volume[row]):,} of "
            f"{format_time(int(rows.exchange_timestamp[row]))}, where {who} has another trade"
        )
