"""The stored trades from which windows are restored, up to a cut at which live trades continue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores.errors import StoreInterruptedError
from mdtool.adapters.stores.port import SavedStream, TradeHistory, TradeKey, TradePage
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import NamedTrades, Trades
from mdtool.engine.vwap import Window

_PAGE_TRADES: Final = 10_000
_NO_END: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Backfill:
    """Stored trades, and the positions of their streams.

    Attributes
    ----------
    stored : NamedTrades
        Each symbol's from old to new.
    positions : mapping of str to int
        Of each stream, the sequence before which its trades are among these.
    """

    stored: NamedTrades
    positions: dict[str, int]

    def __len__(self) -> int:
        return len(self.stored)


def read_backfill(
    history: TradeHistory, window: Window, is_cancelled: Callable[[], bool] = lambda: False
) -> Backfill:
    """Return the trades of each symbol's window that the store has at this moment.

    Positions are read first: trades beyond them were committed later and are left out, although a
    page may have them. Who follows the trades since before continues from the positions, and gets
    each trade once.

    Parameters
    ----------
    history : TradeHistory
    window : Window
        By time, it ends at a symbol's latest trade.
    is_cancelled : callable
        Called between two symbols: `interrupt` of a history ends one read, not the next.

    Raises
    ------
    StoreError
        When the store cannot be read.
    StoreInterruptedError
        When it is cancelled.
    """
    cut = _Cut(history.streams())
    table = SymbolTable(totals.symbol for totals in history.symbols())
    parts: list[Trades] = []
    for index, symbol in enumerate(table):
        if is_cancelled():
            raise StoreInterruptedError("the backfill was cancelled")
        parts += reversed([*_blocks(history, index, symbol, window, cut)])
    return Backfill(NamedTrades(table, Trades.concatenate(parts)), cut.positions)


class _Cut:
    """The position of each stream."""

    def __init__(self, streams: Sequence[SavedStream]) -> None:
        self.positions = {
            stream.stream_id: stream.next_sequence
            for stream in streams
            if stream.next_sequence is not None
        }
        by_number = sorted(
            ((stream.number, stream.next_sequence) for stream in streams), key=lambda pair: pair[0]
        )
        # Trades that came from datasets come no other way.
        ends = [_NO_END if end is None else end for _, end in by_number]
        self._numbers = np.array([-1, *(number for number, _ in by_number)], np.int64)
        self._ends = np.array([0, *ends], np.int64)

    def is_before(self, page: TradePage) -> NDArray[np.bool_]:
        """Return which trades are before it; those of streams that are newer are not."""
        place = np.searchsorted(self._numbers, page.stream, side="right") - 1
        is_known = self._numbers[place] == page.stream
        is_before: NDArray[np.bool_] = is_known & (page.sequence < self._ends[place])
        return is_before


def _blocks(
    history: TradeHistory, index: int, symbol: str, window: Window, cut: _Cut
) -> Iterator[Trades]:
    """Yield a symbol's trades in blocks, the newest block first and each from old to new."""
    before: TradeKey | None = None
    left = window.trades or _NO_END
    oldest_ns: int | None = None
    while left > 0:
        page = history.page(symbol, min(left, _PAGE_TRADES), before)
        if not len(page):
            return
        trades, is_in = page.trades, cut.is_before(page)
        if window.span_ns and is_in.any():
            if oldest_ns is None:
                oldest_ns = int(trades.ts_event[is_in][0]) - window.span_ns
            is_in &= trades.ts_event > oldest_ns
        yield trades.with_symbols(np.full(len(page), index, np.uint32))[is_in][::-1]
        left -= int(np.count_nonzero(is_in))
        if oldest_ns is not None and trades.ts_event[-1] <= oldest_ns:
            return
        before = page.key(len(page) - 1)
