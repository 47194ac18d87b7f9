"""The trades of a store as rows, in an order that does not depend on what kind of store it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.datasets.trade_rows import TradeRows
from mdtool.adapters.stores import TradeHistory
from mdtool.adapters.stores.port import MAX_NS, MIN_NS, TradePage
from mdtool.core.symbols import SymbolTable
from mdtool.core.units import NS_PER_DAY

_ROWS: Final = 1 << 18
"""Trades held at once, unless more than that share one moment."""


class StoredTrades:
    """Those of some symbols and times.

    Parameters
    ----------
    history : TradeHistory
        Where they are.
    symbols : frozenset of str, optional
        Only these.
    start_ns, end_ns : int, optional
        Only exchange times from the one on and before the other.

    Attributes
    ----------
    symbols : SymbolTable
        Those wanted that have trades at any time, in order.
    count : int
        How many trades these have at any time.
    """

    def __init__(
        self,
        history: TradeHistory,
        symbols: frozenset[str] | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> None:
        self._history = history
        self._start_ns = MIN_NS if start_ns is None else start_ns
        self._end_ns = MAX_NS if end_ns is None else end_ns
        totals = [t for t in history.symbols() if symbols is None or t.symbol in symbols]
        self._last_ns = max((t.last_trade_at_ns for t in totals), default=self._start_ns)
        self._counts = [t.trade_count for t in totals]
        self.symbols = SymbolTable(t.symbol for t in totals)
        self.count = sum(self._counts)
        # By id, so that streams of one name are in one order whatever numbers a store gave them.
        self._streams = SymbolTable(sorted(s.stream_id for s in history.streams()))
        self._stream_of = np.empty(0, np.uint32)
        self._learn_streams()

    def by_symbol(self) -> Iterator[TradeRows]:
        """Yield rows symbol by symbol, each in order of time, stream and sequence."""
        for index in range(len(self.symbols)):
            yield from self._in_order([index])

    def by_time(self) -> Iterator[TradeRows]:
        """Yield rows in order of time, symbol, stream and sequence."""
        yield from self._in_order(range(len(self.symbols)))

    def _in_order(self, symbols: Sequence[int]) -> Iterator[TradeRows]:
        """Yield rows of symbols in order of time: as long a time at once as has so many rows."""
        start_ns, last_ns = self._start_ns, min(self._end_ns - 1, self._last_ns)
        if sum(self._counts[index] for index in symbols) <= _ROWS:
            span_ns = self._end_ns - start_ns
        else:
            start_ns = max(start_ns, self._earliest_ns(symbols))
            span_ns = NS_PER_DAY
        while start_ns <= last_ns:
            end_ns = min(start_ns + span_ns, self._end_ns)
            parts = self._read(symbols, start_ns, end_ns, _ROWS if span_ns > 1 else None)
            if parts is None:
                span_ns = max(1, span_ns // 8)
                continue
            if parts:
                yield _sorted(TradeRows.concatenate(parts))
            if 4 * sum(map(len, parts)) <= _ROWS:
                span_ns *= 2
            start_ns = end_ns

    def _earliest_ns(self, symbols: Sequence[int]) -> int:
        pages = (self._first_page(index) for index in symbols)
        return min((int(page.timestamp[0]) for page in pages if page is not None), default=MAX_NS)

    def _first_page(self, index: int) -> TradePage | None:
        symbol = self.symbols[index]
        return next(self._history.trades(symbol, self._start_ns, self._end_ns), None)

    def _read(
        self, symbols: Sequence[int], start_ns: int, end_ns: int, limit: int | None
    ) -> list[TradeRows] | None:
        """Return the trades of a time, or None when they are more than the limit."""
        parts: list[TradeRows] = []
        count = 0
        for index in symbols:
            for page in self._history.trades(self.symbols[index], start_ns, end_ns):
                count += len(page)
                if limit is not None and count > limit:
                    return None
                parts.append(self._rows(index, page))
        return parts

    def _rows(self, index: int, page: TradePage) -> TradeRows:
        return TradeRows(
            symbols=self.symbols,
            streams=self._streams,
            symbol=np.full(len(page), index, np.uint32),
            stream=self._stream_indices(page.stream),
            sequence=page.sequence,
            price=page.price,
            volume=page.volume,
            exchange_timestamp=page.timestamp,
            ingest_timestamp=page.ingest_timestamp,
        )

    def _stream_indices(self, numbers: NDArray[np.int64]) -> NDArray[np.uint32]:
        if int(numbers.max()) >= len(self._stream_of):
            self._learn_streams()  # one that began meanwhile
        return self._stream_of[numbers]

    def _learn_streams(self) -> None:
        known = self._history.streams()
        self._stream_of = np.zeros(max((s.number for s in known), default=-1) + 1, np.uint32)
        for stream in known:
            self._stream_of[stream.number] = self._streams.intern(stream.stream_id)


def _sorted(rows: TradeRows) -> TradeRows:
    keys = (rows.sequence, rows.stream, rows.symbol, rows.exchange_timestamp)
    return rows.take(np.lexsort(keys))
