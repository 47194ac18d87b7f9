"""The time of an aggregator from its start until it serves a large store."""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Final

import numpy as np

from mdtool.adapters import rpc
from mdtool.adapters.stores import open_store
from mdtool.adapters.stores.steps import Steps
from mdtool.bench.figures import Figure, against
from mdtool.bench.market import SYMBOLS, show_filled
from mdtool.bench.processes import service
from mdtool.core.errors import PeerError
from mdtool.core.trades import Frames, Trades
from mdtool.core.units import NS_PER_MS, PRICE_SCALE
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.markets import restored_market
from mdtool.wire._pb import marketdata_pb2

TRADES: Final = 10_000_000
ROUNDS: Final = 5

_STREAM: Final = "bench"
_STEP: Final = 200_000
_START_NS: Final = 1_735_201_234_567 * NS_PER_MS
_EMPTY: Final = "a start with an empty store"


async def measure(trades: int = TRADES, rounds: int = ROUNDS) -> list[Figure]:
    """Return the median seconds of a start with a store of so many trades, and with an empty one.

    Raises
    ------
    PeerError
        When the service does not resume where the stored trades end.
    """
    with tempfile.TemporaryDirectory() as folder:
        full, empty = f"sqlite:///{folder}/full.db", f"sqlite:///{folder}/empty.db"
        fill(full, trades)
        times = [(await _start(full, trades), await _start(empty, 0)) for _ in range(1 + rounds)]
    filled_s, empty_s = zip(*times[1:], strict=True)  # the first ones warm up
    return [
        against(
            "restart", statistics.median(filled_s), "s", _EMPTY, statistics.median(empty_s), "lower"
        )
    ]


def fill(url: str, trades: int) -> None:
    """Write trades, sessions and bars to a store; on a terminal show progress."""
    with open_store(url) as store:
        market = restored_market(AggregatorConfig(), store)
        for symbol in SYMBOLS:
            market.intern(symbol)
        steps = Steps(market)
        for first in range(0, trades, _STEP):
            last = min(first + _STEP, trades)
            store.write(steps.take([market.apply(_STREAM, first, _frames(first, last))]))
            show_filled(last, trades)


def _frames(first: int, last: int) -> Frames:
    """Return trades of all symbols in turns, a millisecond apart."""
    number = np.arange(first, last)
    random = np.random.default_rng(first)
    time_ns = _START_NS + number * NS_PER_MS
    trades = Trades(
        symbol=(number % len(SYMBOLS)).astype(np.uint32),
        price=random.integers(100, 200, len(number)) * PRICE_SCALE,
        size=random.integers(1, 1_000, len(number)),
        ts_event=time_ns,
        ts_recv=time_ns + NS_PER_MS,
    )
    return Frames.of(trades)


async def _start(url: str, trades: int) -> float:
    """Return the seconds until the service answered at which position the stream resumes."""
    began_s = time.perf_counter()
    async with service("aggregate", "--store", url) as address:
        async with rpc.open_channel(address) as channel:
            request = marketdata_pb2.StreamPositionRequest(stream_id=_STREAM)
            reply = await rpc.Stub(channel).GetStreamPosition(request)
        elapsed_s = time.perf_counter() - began_s
    if reply.next_sequence != trades:
        raise PeerError(f"{address} resumes at {reply.next_sequence}, not at {trades}")
    return elapsed_s
