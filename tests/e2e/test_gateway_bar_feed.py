"""The gateway's streams of bars, from a real aggregator: shared, opened again, ended."""

from __future__ import annotations

import asyncio
import contextlib

from mdtool.adapters.aggregator import AggregatorClient
from mdtool.services.gateway.bar_feed import EVERY_SYMBOL, BarFeed
from mdtool.services.gateway.limits import UNLIMITED, UpstreamLimit
from tests.support.aggregators import aggregator, message, tick


class Follower:
    """Keeps what it is told, as symbol, close in cents and volume."""

    def __init__(self) -> None:
        self.told = asyncio.Queue()

    def take(self, bars):
        self.told.put_nowait([(bar.symbol, bar.close // 10**7, bar.volume) for bar in bars])

    def refuse(self, error):
        self.told.put_nowait(str(error))


@contextlib.asynccontextmanager
async def feed_of(address: str):
    async with AggregatorClient(address) as client, asyncio.TaskGroup() as tasks:
        yield BarFeed(client, UpstreamLimit(UNLIMITED, 1), tasks)


async def test_followers_of_a_series_share_its_call_and_are_told_at_once():
    async with aggregator() as running, feed_of(running.address) as feed:
        await running.send(message(0, [tick(100)], ["AAPL"]))
        first, second = Follower(), Follower()
        with feed.following("AAPL", "1s", first):
            assert await first.told.get() == [("AAPL", 100, 1)]
            with feed.following("AAPL", "1s", second):
                assert second.told.get_nowait() == [("AAPL", 100, 1)]
                assert (len(feed), len(running.subscribers)) == (1, 1)
                await running.send(message(1, [tick(101, 2), tick(102, 3, at_s=1)], ["AAPL"]))
                expected = [("AAPL", 101, 3), ("AAPL", 102, 3)]
                assert await first.told.get() == await second.told.get() == expected
        assert len(feed) == 0
        await running.subscribers.deserted.wait()


async def test_the_bars_of_every_symbol_are_a_series_too():
    async with aggregator() as running, feed_of(running.address) as feed:
        await running.send(message(0, [tick(100), tick(200, symbol=1)], ["AAPL", "MSFT"]))
        follower, late = Follower(), Follower()
        with feed.following(EVERY_SYMBOL, "1m", follower):
            assert await follower.told.get() == [("AAPL", 100, 1), ("MSFT", 200, 1)]
            await running.send(message(2, [tick(201)], ["MSFT"]))
            assert await follower.told.get() == [("MSFT", 201, 2)]
            with feed.following(EVERY_SYMBOL, "1m", late):
                assert late.told.get_nowait() == [("AAPL", 100, 1), ("MSFT", 201, 2)]


async def test_an_interval_that_is_not_kept_is_refused_and_leaves_nothing_behind():
    async with aggregator() as running, feed_of(running.address) as feed:
        follower = Follower()
        with feed.following("AAPL", "7m", follower):
            assert "no bars of 7m" in await follower.told.get()
            assert len(feed) == 0


async def test_a_series_outlives_the_aggregator(free_port):
    follower, joined = Follower(), Follower()
    async with contextlib.AsyncExitStack() as stack:
        async with aggregator(port=free_port) as running:
            feed = await stack.enter_async_context(feed_of(running.address))
            stack.enter_context(feed.following("AAPL", "1s", follower))
            await running.send(message(0, [tick(100, at_s=60)], ["AAPL"]))
            assert await follower.told.get() == [("AAPL", 100, 1)]
        async with aggregator(port=free_port) as running:
            await running.send(message(0, [tick(200)], ["AAPL"]))
            assert await follower.told.get() == [("AAPL", 200, 1)]
            with feed.following("AAPL", "1s", joined):
                assert joined.told.get_nowait() == [("AAPL", 200, 1)]
