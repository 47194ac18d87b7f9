"""The time of an aggregator from its start until it serves a large store."""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Final

from mdtool.adapters import rpc
from mdtool.adapters.stores import open_store
from mdtool.adapters.stores.steps import Steps
from mdtool.bench.figures import Figure, against
from mdtool.bench.market import SYMBOLS, show_filled, trades_between
from mdtool.bench.processes import service
from mdtool.core.errors import PeerError
from mdtool.core.trades import Frames
from mdtool.core.units import NS_PER_MS
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.markets import restored_market
from mdtool.wire._pb import marketdata_pb2

TRADES: Final = 10_000_000
ROUNDS: Final = 5

_STREAM: Final = "bench"
_STEP: Final = 200_000
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
            frames = Frames.of(trades_between(first, last, NS_PER_MS))
            store.write(steps.take([market.apply(_STREAM, first, frames)]))
            show_filled(last, trades)


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
