"""Markets as the aggregation service's settings bound them: new ones, or restored from a store."""

from __future__ import annotations

from typing import Final

from mdtool.adapters.stores import Store
from mdtool.core.units import NS_PER_MS, parse_duration
from mdtool.engine.live_bars import LiveBars
from mdtool.engine.market import Market
from mdtool.services.aggregator.config import INTERVALS, AggregatorConfig

INTERVALS_NS: Final = tuple(parse_duration(interval) for interval in INTERVALS)


def new_market(config: AggregatorConfig, bars_kept: int | None = None) -> Market:
    """Return a market with nothing in it.

    Parameters
    ----------
    config : AggregatorConfig
    bars_kept : int, optional
        How many closed bars of each series it keeps, else as many as the settings say.
    """
    bars = LiveBars(
        INTERVALS_NS,
        keep=config.bars_kept if bars_kept is None else bars_kept,
        lateness_ns=config.bars_lateness_ms * NS_PER_MS,
    )
    return Market(bars, config.max_symbols, config.max_streams)


def restored_market(config: AggregatorConfig, store: Store) -> Market:
    """Return a market that goes on with what a store holds.

    Raises
    ------
    StoreError, StoreFormatError
        When that cannot be read.
    """
    market = new_market(config)
    saved = store.load(config.max_streams, market.bars.lateness_ns)
    market.restore(saved.symbols, saved.sessions, saved.bars, saved.positions, saved.counts)
    return market
