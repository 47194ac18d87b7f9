"""Compares the totals, sessions and bars of a store with its trades, and counts repeated ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores import Store
from mdtool.adapters.stores.port import MAX_NS, MIN_NS, WrongTotals
from mdtool.core.buckets import Buckets
from mdtool.core.units import counted, format_duration, format_time, parse_duration
from mdtool.engine.saved_state import SavedState
from mdtool.services.aggregator.config import INTERVALS

_SHORTEST_NS: Final = min(parse_duration(interval) for interval in INTERVALS)
_PAGE_BARS: Final = 10_000
_LARGEST: Final = 2**63 - 1
"""The largest volume of a session."""
_LATE: Final = "late"
"""The name of the store's total of ticks that were too old for bars."""


def describe(wrong: WrongTotals) -> Iterator[str]:
    """Yield a line for each total of a symbol that differs from its trades."""
    stored, real = wrong
    if stored.trade_count != real.trade_count:
        yield (
            f"{stored.symbol}: trade_count is {stored.trade_count:,}, "
            f"its trades are {real.trade_count:,}"
        )
    if stored.last_trade_at_ns != real.last_trade_at_ns:
        yield (
            f"{stored.symbol}: last_trade_at is {_moment(stored.last_trade_at_ns)}, "
            f"that of its trades {_moment(real.last_trade_at_ns)}"
        )


def repeated_places(store: Store, wrong: Sequence[WrongTotals]) -> Iterator[str]:
    """Yield a line if trades of a store have the stream and the sequence of another one.

    What others store meanwhile is not compared.

    Parameters
    ----------
    store : Store
    wrong : sequence of WrongTotals
        The totals that differ from their trades.
    """
    n_trades = sum(totals.trade_count for totals in store.symbols())
    n_trades += sum(real.trade_count - stored.trade_count for stored, real in wrong)
    _, first, last = store.sequences()
    repeated = n_trades - int((last - first + 1).sum())
    if repeated > 0:
        yield f"{counted(repeated, 'trade')} with the stream and the sequence of another one"


class MarketCheck:
    """Compares the sessions and bars of a store with its trades.

    Symbols without a session are skipped: a writer without a market wrote their trades. Trades that
    bars lack because they came too late are compared for all symbols together, as they are counted.

    Parameters
    ----------
    store : Store
        Entered and claimed, so that nothing changes meanwhile.
    progress : callable
        Called now and then with the number of trades read.
    sessions : Buckets
        Those of the market.
    """

    def __init__(self, store: Store, progress: Callable[[int], None], sessions: Buckets) -> None:
        self._sessions = sessions
        self._store = store
        self._progress = progress
        self._read = 0

    def differences(self) -> Iterator[str]:
        """Yield a line for each difference."""
        state = self._store.load(max_streams=1, lateness_ns=0)
        missing = 0
        for index, symbol in enumerate(state.symbols):
            session = state.sessions[index]
            number = self._sessions.numbers(session["timestamp"].reshape(1))
            start_ns, end_ns = self._sessions.starts(np.append(number, number + 1)).tolist()
            past, past_volume = self._of_trades(symbol, end_ns=start_ns)
            own, own_volume = self._of_trades(symbol, start_ns, end_ns)
            later, later_volume = self._of_trades(symbol, start_ns=end_ns)
            count, volume = past + own + later, past_volume + own_volume + later_volume
            # A session that has not rolled since an earlier version wrote it is of all trades.
            if int(session["count"]) == count:
                own, own_volume, later = count, volume, 0
            yield from _compare(f"{symbol}: the session", session, own, own_volume)
            if later:
                yield f"{symbol}: the store has {later:,} trades behind the session"
            bars, barred = self._of_bars(state, index, symbol)
            if bars > count or barred > volume:
                yield (
                    f"{symbol}: bars of {format_duration(_SHORTEST_NS)} have {bars:,} trades and "
                    f"a volume of {barred:,}, the store {count:,} and {volume:,}"
                )
            missing += max(0, count - bars)
        late = state.counts.get(_LATE, 0)
        if missing > late:
            yield f"bars lack {missing:,} trades of all symbols; {late:,} came too late for them"

    def _of_trades(
        self, symbol: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS
    ) -> tuple[int, int]:
        count = volume = 0
        for page in self._store.trades(symbol, start_ns, end_ns):
            count += len(page)
            volume += _sum(page.trades.size)
            self._read += len(page)
            self._progress(self._read)
        return count, volume

    def _of_bars(self, state: SavedState, index: int, symbol: str) -> tuple[int, int]:
        """Return the number and volume of the trades in the shortest bars."""
        bars = state.bars
        chosen = bars["is_open"] == 1
        chosen &= (bars["symbol"] == index) & (bars["interval_ns"] == _SHORTEST_NS)
        count, volume = int(bars["count"][chosen].sum()), _sum(bars["volume"][chosen])
        before_ns = 0
        while len(page := self._store.bars(symbol, _SHORTEST_NS, _PAGE_BARS, before_ns)):
            count += int(page["count"].sum())
            volume += _sum(page["volume"])
            before_ns = int(page["start_ns"][-1])
        return count, volume


def _compare(what: str, row: np.void, count: int, volume: int) -> Iterator[str]:
    if int(row["count"]) != count:
        yield f"{what} has {int(row['count']):,} trades, the store {count:,}"
    if int(row["volume"]) != min(volume, _LARGEST):
        yield f"{what} has a volume of {int(row['volume']):,}, its trades {volume:,}"


def _sum(column: NDArray[np.int64]) -> int:
    """Return the exact sum of values that are not negative, which may exceed int64."""
    return (int((column >> 32).sum()) << 32) + int((column & (2**32 - 1)).sum())


def _moment(ts_ns: int) -> str:
    return format_time(ts_ns) if ts_ns else "none"
