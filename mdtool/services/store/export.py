"""Exports the trades of a store as a dataset, in an order that is the same for all stores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.datasets.partitions import SYMBOL
from mdtool.adapters.datasets.trade_rows import TradeRows
from mdtool.adapters.datasets.writer import PartitionedWriter, staged
from mdtool.adapters.stores import TradeHistory
from mdtool.adapters.stores.port import MAX_NS, MIN_NS, TradePage
from mdtool.core.errors import InputError
from mdtool.core.symbols import SymbolTable
from mdtool.core.units import NS_PER_DAY, format_price

log = logging.getLogger(__name__)

_CSV: Final = "csv"
_ROWS: Final = 1 << 18
"""Trades in memory at once, unless more share one moment."""


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """The place and form of a dataset.

    Attributes
    ----------
    path : Path
        A folder if it is partitioned, else a file.
    format : str
        One of `mdtool.adapters.datasets.FORMATS`.
    keys : tuple of str
        The keys of its folders, the outer one first.
    replaces : bool
        Whether an existing dataset may be replaced.
    """

    path: Path
    format: str
    keys: tuple[str, ...]
    replaces: bool


@dataclass(frozen=True, slots=True)
class Exported:
    """The size of a dataset that was written."""

    trades: int
    files: int


def export(trades: StoredTrades, spec: DatasetSpec, progress: Callable[[int], None]) -> Exported:
    """Write trades as a dataset, which appears as a whole when this returns.

    Files of several symbols are in order of time.

    Parameters
    ----------
    trades : StoredTrades
    spec : DatasetSpec
    progress : callable
        Called now and then with the number of trades written.

    Raises
    ------
    InputError
        When there are none.
    OutputError
        When it exists already, cannot be written, or its format cannot represent a trade; nothing
        of it remains.
    """
    extension = f".{spec.format}"
    if spec.format == _CSV and (lots := trades.symbols.fractions()):
        symbol, lot = next(iter(lots.items()))
        log.warning(
            "%s: CSV has volumes alone: of %s symbols they are lots, such as %s of %s",
            *(spec.path, f"{len(lots):,}", format_price(lot), symbol),
        )
    with staged(spec.path, extension, spec.replaces, is_folder=bool(spec.keys)) as path:
        with PartitionedWriter(path, spec.format, spec.keys) as writer:
            for rows in trades.by_symbol() if SYMBOL in spec.keys else trades.by_time():
                writer.write(rows)
                progress(writer.trades)
        if not writer.trades:
            raise InputError("the store has no such trades; nothing was written")
        return Exported(writer.trades, writer.files)


class StoredTrades:
    """The trades of some symbols and times, as rows.

    Parameters
    ----------
    history : TradeHistory
        The store.
    symbols : collection of str, optional
        Only these.
    start_ns, end_ns : int, optional
        Only exchange times from the one on and before the other.

    Attributes
    ----------
    symbols : SymbolTable
        Those of the selected symbols that have trades at any time, in order, with their lots.
    count : int
        The number of their trades at any time.
    last_ns : int
        The latest exchange time of them, at any time.
    """

    def __init__(
        self,
        history: TradeHistory,
        symbols: Collection[str] | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> None:
        self._history = history
        self._start_ns = MIN_NS if start_ns is None else start_ns
        self._end_ns = MAX_NS if end_ns is None else end_ns
        totals = [t for t in history.symbols() if symbols is None or t.symbol in symbols]
        self.last_ns = max((t.last_trade_at_ns for t in totals), default=self._start_ns)
        self._counts = [t.trade_count for t in totals]
        self.symbols = SymbolTable(t.symbol for t in totals)
        self.symbols.give_lots({t.symbol: t.lot for t in totals if t.lot})
        self.count = sum(self._counts)
        # By id, so that the order does not depend on the store's numbers of streams.
        self._streams = SymbolTable(sorted(s.stream_id for s in history.streams()))
        self._stream_of = np.empty(0, np.uint32)
        self._read_streams()

    def by_symbol(self) -> Iterator[TradeRows]:
        """Yield rows symbol by symbol, each in order of time, stream and sequence."""
        for index in range(len(self.symbols)):
            yield from self._in_order([index])

    def by_time(self) -> Iterator[TradeRows]:
        """Yield rows in order of time, symbol, stream and sequence."""
        yield from self._in_order(range(len(self.symbols)))

    def _in_order(self, symbols: Sequence[int]) -> Iterator[TradeRows]:
        """Yield rows of symbols in order of time, for spans of time with up to `_ROWS` each."""
        start_ns, last_ns = self._start_ns, min(self._end_ns - 1, self.last_ns)
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

    def first_ns(self) -> int | None:
        """Return the earliest exchange time of the selected trades, None where there are none."""
        earliest = self._earliest_ns(range(len(self.symbols)))
        return None if earliest == MAX_NS else earliest

    def _earliest_ns(self, symbols: Sequence[int]) -> int:
        pages = (self._first_page(index) for index in symbols)
        return min(
            (int(page.trades.ts_event[0]) for page in pages if page is not None), default=MAX_NS
        )

    def _first_page(self, index: int) -> TradePage | None:
        symbol = self.symbols[index]
        return next(self._history.trades(symbol, self._start_ns, self._end_ns), None)

    def _read(
        self, symbols: Sequence[int], start_ns: int, end_ns: int, limit: int | None
    ) -> list[TradeRows] | None:
        """Return the trades of a span, or None when they are more than the limit."""
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
            stream=self._stream_indices(page.stream),
            sequence=page.sequence,
            trades=page.trades.with_symbols(np.full(len(page), index, np.uint32)),
        )

    def _stream_indices(self, numbers: NDArray[np.int64]) -> NDArray[np.uint32]:
        if int(numbers.max()) >= len(self._stream_of):
            self._read_streams()  # a new one
        return self._stream_of[numbers]

    def _read_streams(self) -> None:
        known = self._history.streams()
        self._stream_of = np.zeros(max((s.number for s in known), default=-1) + 1, np.uint32)
        for stream in known:
            self._stream_of[stream.number] = self._streams.intern(stream.stream_id)


def _sorted(rows: TradeRows) -> TradeRows:
    trades = rows.trades
    return rows[np.lexsort((rows.sequence, rows.stream, trades.symbol, trades.ts_event))]
