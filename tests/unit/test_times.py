"""A market's messages are applied as they arrive and published once; old ones show in health."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import numpy as np
import pytest

from mdtool.core.symbols import SymbolTable
from mdtool.services.gateway.health import Health
from mdtool.services.gateway.hub import Hub
from mdtool.services.gateway.market import MarketState, MarketStream
from mdtool.services.times import AGE_BOUNDS_S, RECENT_S, Ages
from mdtool.wire.batches import Counts, Updates


class Aggregator:
    """An aggregator whose messages arrive all at once, again whenever it is told to."""

    address = "127.0.0.1:1"

    def __init__(self) -> None:
        self.symbols = SymbolTable(["AAPL", "MSFT"])
        self.messages: asyncio.Queue[list[Updates]] = asyncio.Queue()

    async def follow(self, receive):
        while True:
            for updates in await self.messages.get():
                receive(self.symbols, updates)
            self.messages.task_done()

    async def follow_commits(self, receive):
        receive(True)
        await asyncio.Event().wait()


def updates(symbol: int, price: int, age_s: float = 0.0) -> Updates:
    ingested_ns = time.time_ns() - int(age_s * 10**9)
    columns = (price, price, price, price, 1, 1, 1, ingested_ns)
    return Updates(
        np.array([symbol], np.uint32), *(np.array([c], np.int64) for c in columns), Counts()
    )


@pytest.fixture
async def stream():
    aggregator, hub = Aggregator(), Hub()
    stream = MarketStream(aggregator, MarketState(), hub)
    task = asyncio.create_task(stream.run())

    async def send(*messages: Updates) -> None:
        written = asyncio.Event()
        aggregator.messages.put_nowait([*messages])
        await aggregator.messages.join()
        hub.when_written(written.set)
        await written.wait()

    stream.send = send
    yield stream
    task.cancel()
    await asyncio.wait([task])


async def test_messages_that_have_arrived_are_applied_and_published_once(stream):
    published = []
    stream.listen(lambda changed: published.append(changed.tolist()))
    await stream.send(*(updates(n % 2, n) for n in range(1, 8)))
    assert published == [[0, 1]]
    assert stream.messages == 7
    state = stream.state
    closes = {symbol: state.session(index)[3] for index, symbol in enumerate(state.symbols)}
    assert closes == {"AAPL": 6, "MSFT": 7}


async def test_the_age_of_what_was_known_before_the_connection_does_not_count(stream):
    await stream.send(updates(0, 1, age_s=3_600))
    assert stream.ages.recent_s() is None
    await stream.send(updates(0, 2, age_s=300))
    assert 300 <= stream.ages.recent_s() < 600


@pytest.mark.parametrize(("age_s", "status"), [(0.0, "ok"), (3_600.0, "degraded")])
async def test_health_is_degraded_above_an_age(stream, age_s, status):
    sources = SimpleNamespace(market=stream)
    health = Health(sources, None, max_age_ms=600_000)
    await stream.send(updates(0, 1))
    await stream.send(updates(0, 2, age_s))
    assert health.status(1_000 * stream.ages.recent_s()) == status


def test_the_highest_age_of_the_last_seconds_is_remembered_until_they_are_over():
    now_s = [0.0]
    ages = Ages(lambda: now_s[0])
    ages.add(0.3)
    ages.add(0.002)
    assert ages.recent_s() == 0.3
    now_s[0] = 1.5 * RECENT_S
    ages.add(0.004)
    assert ages.recent_s() == 0.3
    now_s[0] = 2.5 * RECENT_S
    assert ages.recent_s() == 0.004
    now_s[0] = 3.5 * RECENT_S
    assert ages.recent_s() is None
    assert sum(ages.buckets) == 3
    assert ages.buckets[AGE_BOUNDS_S.index(0.5)] == 1
    assert ages.total_s == pytest.approx(0.306)
