"""Makes the sessions and bars of a store again, from its trades."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores import Store
from mdtool.adapters.stores.port import Step, TradePage
from mdtool.adapters.stores.steps import Steps
from mdtool.core.buckets import parse_sessions
from mdtool.core.trades import Frames, Trades
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.markets import new_market

_CHUNK: Final = 1 << 16
_STREAM: Final = "stored"


class Rebuilt(NamedTuple):
    """What was made again."""

    symbols: int
    trades: int
    differing: int
    """Sessions and bars that were other ones before."""


def rebuild(store: Store, config: AggregatorConfig, progress: Callable[[int], None]) -> Rebuilt:
    """Replace the sessions and bars of each symbol, in one transaction, by those of its trades.

    Trades are taken in the order of their arrival: that of each stream, and of several streams that
    of their ingest times. After an interruption, symbols have the ones or the others.

    Parameters
    ----------
    store : Store
        Entered and claimed.
    config : AggregatorConfig
        The settings of the aggregation service: when sessions begin, how late bars accept ticks.
    progress : callable
        Called now and then with the number of trades read.

    Raises
    ------
    StoreError
        When the store cannot be read or written.
    """
    symbols = store.symbols()
    read = differing = 0
    for totals in symbols:
        pages = list(store.trades(totals.symbol))
        trades = _as_arrived(pages)
        read += len(trades)
        differing += store.replace_market(_of_trades(totals.symbol, trades, config))
        progress(read)
    return Rebuilt(len(symbols), read, differing)


def _of_trades(symbol: str, trades: Trades, config: AggregatorConfig) -> Step:
    """Return a step that has the session and all bars of a symbol's trades, and nothing else."""
    market = new_market(replace(config, max_symbols=1, max_streams=1))
    market.intern(symbol)
    steps = Steps(market)
    bars: list[NDArray[np.void]] = []
    done = 0
    for part in _chunks(trades, config):
        market.apply(_STREAM, done, Frames.of(part))
        done += len(part)
        step = steps.take(())
        bars.append(step.bars)
    return replace(step, bars=_latest(np.concatenate(bars)), counts={}, lots={})


def _chunks(trades: Trades, config: AggregatorConfig) -> Iterator[Trades]:
    """Yield trades in parts of one session each, of which each step has the one before."""
    session = parse_sessions(config.session).numbers(trades.ts_event)
    edges = [0, *(np.flatnonzero(np.diff(session)) + 1).tolist(), len(trades)]
    for begin, end in itertools.pairwise(edges):
        for first in range(begin, end, _CHUNK):
            yield trades[first : min(first + _CHUNK, end)]


def _latest(bars: NDArray[np.void]) -> NDArray[np.void]:
    """Return of each bar what came last; of each series, the last open one only."""
    is_open = bars["is_open"] == 1
    keys = np.stack([is_open, bars["interval_ns"], np.where(is_open, 0, bars["start_ns"])])
    _, last = np.unique(keys[:, ::-1], axis=1, return_index=True)
    return bars[::-1][np.sort(last)[::-1]]


def _as_arrived(pages: list[TradePage]) -> Trades:
    """Return trades in the order in which they arrived."""
    trades = Trades.concatenate([page.trades for page in pages])
    stream = np.concatenate([page.stream for page in pages])
    sequence = np.concatenate([page.sequence for page in pages])
    order = np.lexsort((sequence, stream))
    arrived = trades.ts_recv[order]
    edges = np.flatnonzero(np.diff(stream[order])) + 1
    for part in np.split(arrived, edges):  # views: a stream is in order whatever its times say
        np.maximum.accumulate(part, out=part)
    order = order[np.argsort(arrived, kind="stable")]
    return trades[order]
