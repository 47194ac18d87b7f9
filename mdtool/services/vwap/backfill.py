"""Windows' trades read from a store, up to a cut that live trades go on from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores.port import SavedStream, TradeHistory, TradeKey, TradePage
from mdtool.engine.vwap import Window
from mdtool.services.vwap.board import Backfill, Integers

_PAGE_TRADES: Final = 10_000
_COLUMNS: Final = 4
_NO_END: Final = 2**63 - 1


def read_backfill(history: TradeHistory, window: Window) -> Backfill:
    """Return what each symbol's window holds, of the trades that the store has at this moment.

    Positions are read first: what is beyond them was committed later and is left out, although a
    page may have it already. So whoever follows the trades since before takes from there, and
    meets each once.

    Parameters
    ----------
    history : TradeHistory
    window : Window
        By time, it goes back from a symbol's latest trade.

    Raises
    ------
    StoreError
        When it cannot be read.
    """
    cut = _Cut(history.streams())
    symbols = [totals.symbol for totals in history.symbols()]
    rows = [np.empty((0, _COLUMNS), np.int64)]
    for index, symbol in enumerate(symbols):
        rows += reversed([*_rows(history, index, symbol, window, cut)])
    columns = np.concatenate(rows).T.copy()
    return Backfill(
        symbols=symbols,
        symbol=columns[0],
        price=columns[1],
        volume=columns[2],
        timestamp=columns[3],
        positions=cut.positions,
    )


class _Cut:
    """How far each stream had come."""

    def __init__(self, streams: Sequence[SavedStream]) -> None:
        self.positions = {
            stream.stream_id: stream.next_sequence
            for stream in streams
            if stream.next_sequence is not None
        }
        by_number = sorted(
            ((stream.number, stream.next_sequence) for stream in streams), key=lambda pair: pair[0]
        )
        # What only came from datasets comes no other way.
        ends = [_NO_END if end is None else end for _, end in by_number]
        self._numbers = np.array([-1, *(number for number, _ in by_number)], np.int64)
        self._ends = np.array([0, *ends], np.int64)

    def takes(self, page: TradePage) -> NDArray[np.bool_]:
        """Tell which trades are before it; none is of a stream that was not known then."""
        place = np.searchsorted(self._numbers, page.stream, side="right") - 1
        is_known = self._numbers[place] == page.stream
        is_before: NDArray[np.bool_] = is_known & (page.sequence < self._ends[place])
        return is_before


def _rows(
    history: TradeHistory, index: int, symbol: str, window: Window, cut: _Cut
) -> Iterator[Integers]:
    """Yield a symbol's trades in blocks, the newest block first and each from old to new."""
    before: TradeKey | None = None
    wanted = window.trades or _NO_END
    oldest_ns: int | None = None
    while wanted > 0:
        page = history.page(symbol, min(wanted, _PAGE_TRADES), before)
        if not len(page):
            return
        is_in = cut.takes(page)
        if window.span_ns and is_in.any():
            if oldest_ns is None:
                oldest_ns = int(page.timestamp[is_in][0]) - window.span_ns
            is_in &= page.timestamp > oldest_ns
        columns = (np.full(len(page), index), page.price, page.volume, page.timestamp)
        yield np.stack(columns, axis=1)[is_in][::-1]
        wanted -= int(np.count_nonzero(is_in))
        if oldest_ns is not None and page.timestamp[-1] <= oldest_ns:
            return
        before = page.key(len(page) - 1)
