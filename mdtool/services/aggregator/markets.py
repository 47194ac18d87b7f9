"""Markets as the settings bound them: new ones, restored ones, and what they admit of a peer's."""

from __future__ import annotations

import logging
from typing import Final

from mdtool.adapters.stores import Store
from mdtool.core.buckets import parse_sessions
from mdtool.core.lots import LotConverter
from mdtool.core.symbols import SymbolMap, SymbolTable
from mdtool.core.trades import Frames, Reason
from mdtool.core.units import NS_PER_MS, format_price, parse_duration
from mdtool.engine.live_bars import LiveBars
from mdtool.engine.market import Market
from mdtool.services.aggregator.config import INTERVALS, AggregatorConfig
from mdtool.wire.batches import check_symbol, check_trades

log = logging.getLogger(__name__)

INTERVALS_NS: Final = tuple(parse_duration(interval) for interval in INTERVALS)


def new_market(config: AggregatorConfig, bars_kept: int | None = None) -> Market:
    """Return a market with nothing in it.

    Parameters
    ----------
    config : AggregatorConfig
    bars_kept : int, optional
        How many closed bars of each series it keeps; by default, what the settings say.
    """
    bars = LiveBars(
        INTERVALS_NS,
        keep=config.bars_kept if bars_kept is None else bars_kept,
        lateness_ns=config.bars_lateness_ms * NS_PER_MS,
    )
    sessions = parse_sessions(config.session)
    return Market(bars, config.max_symbols, config.max_streams, sessions)


def restored_market(config: AggregatorConfig, store: Store) -> Market:
    """Return a market with the state that a store has.

    Raises
    ------
    StoreError, StoreFormatError
        When it cannot be read.
    """
    market = new_market(config)
    market.restore(store.load(config.max_streams, market.bars.lateness_ns))
    return market


class FrameCheck:
    """Checks a peer's frames, and renumbers their symbols from the peer's table to the market's.

    Parameters
    ----------
    market : Market
        Takes the symbols that it does not have yet.
    table : SymbolTable
        The peer's symbols, which may grow.
    is_trusted : bool
        Whether the peer's trades were checked in this process, and only need the market's symbols.
    """

    def __init__(self, market: Market, table: SymbolTable, *, is_trusted: bool = False) -> None:
        self._market = market
        self._is_trusted = is_trusted
        self._table = table
        self._map = SymbolMap(table, self._intern)
        self._lots = LotConverter(market.symbols)
        self._known_lots = 0

    def admit(self, frames: Frames) -> Frames:
        """Return the frames with the market's symbols, and sizes in the market's lots.

        Trades of symbols that it has no room for are refused, as are sizes that are no multiple of
        the lot.

        Raises
        ------
        BatchError
            For a trade or a symbol that no ingest server would have accepted.
        """
        if not self._is_trusted:
            check_trades(frames.trades)
        symbol = self._map.map(frames.trades.symbol)
        self._take_lots()
        admitted = self._lots.convert(frames.with_symbols(symbol))
        if not self._map.has_missing:
            return admitted
        return admitted.refuse(admitted.trades.symbol == SymbolMap.MISSING, Reason.SYMBOL)

    def _take_lots(self) -> None:
        """Take the lots of the peer's symbols that it has told since the last time."""
        for index, lot in self._table.lots_since(self._known_lots):
            self._known_lots += 1
            known = self._intern(self._table[index])
            if known is None:
                continue
            own = self._lots.take(known, lot)
            if own != lot:
                log.warning(
                    "%s: comes in lots of %s, and is kept in lots of %s: sizes are converted, and "
                    "refused where they are no multiple",
                    self._table[index],
                    format_price(lot),
                    format_price(own),
                )

    def _intern(self, symbol: str) -> int | None:
        check_symbol(symbol)
        index = self._market.intern(symbol)
        if index is None and not self._map.has_missing:
            log.warning("no room for symbol %s: its trades and those of others are refused", symbol)
        return index
