"""The feed of bars, from a real aggregator: series are shared, opened again, and ended."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from mdtool.adapters.aggregator import AggregatorClient
from mdtool.services.client import Admission
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.feeds.bars import Bars
from mdtool.services.gateway.feeds.feed import ALL, Audience, Key, Page
from mdtool.services.gateway.hub import Hub, Subscription
from mdtool.services.gateway.market import MarketState, MarketStream
from mdtool.services.gateway.parameters import ParameterError
from mdtool.services.gateway.upstream import Upstream
from mdtool.services.limits import LimitError, Limits
from tests.support.aggregators import NOON_NS, aggregator, message, tick

ANYBODY = Admission(Limits()).client("1.2.3.4")
MINUTE_NS = 60 * 10**9


class Follower:
    """Receives bars as symbol, close in cents and volume; the outlet and the format at once."""

    def __init__(self) -> None:
        self.received = asyncio.Queue()
        self.errors = asyncio.Queue()

    def header(self, length):
        return b""

    def send(self, update):
        self.received.put_nowait(update[2])

    def send_all(self, updates):
        for update in updates:
            self.send(update)

    def forget(self, owner):
        pass

    def encode(self, bar, is_snapshot=False):
        return f"{bar.symbol} {bar.close // 10**7} {bar.volume}".encode()

    @contextlib.contextmanager
    def following(self, feed, symbol, interval, client=ANYBODY):
        subscription = Subscription(client, self, self, fail=self.errors.put_nowait)
        end = feed.follow(Key(symbol, interval), subscription)
        try:
            yield
        finally:
            end()

    async def next(self, n=1):
        return sorted([(await self.received.get()).decode() for _ in range(n)])


@contextlib.asynccontextmanager
async def feed_of(address: str):
    async with AggregatorClient(address) as client, asyncio.TaskGroup() as tasks:
        upstream = Upstream.remote("aggregator", GatewayConfig())
        market = MarketStream(client, MarketState(), Hub())
        yield Bars(market, upstream, Audience(Hub()), tasks)


async def test_followers_of_a_series_share_its_call_and_are_sent_its_bars_at_once():
    async with aggregator() as running, feed_of(running.address) as feed:
        await running.send(message(0, [tick(100)], ["AAPL"]))
        first, second = Follower(), Follower()
        with first.following(feed, "AAPL", "1s"):
            assert await first.next() == ["AAPL 100 1"]
            with second.following(feed, "AAPL", "1s"):
                assert second.received.get_nowait() == b"AAPL 100 1"
                assert len(running.subscribers) == 1
                await running.send(message(1, [tick(101, 2), tick(102, 3, at_s=1)], ["AAPL"]))
                expected = ["AAPL 101 3", "AAPL 102 3"]
                assert await first.next(2) == await second.next(2) == expected
        await running.subscribers.deserted.wait()


async def test_a_symbol_and_every_symbol_are_two_series():
    async with aggregator() as running, feed_of(running.address) as feed:
        await running.send(message(0, [tick(100), tick(200, symbol=1)], ["AAPL", "MSFT"]))
        every, one, late = Follower(), Follower(), Follower()
        with every.following(feed, ALL, "1m"), one.following(feed, "MSFT", "1m"):
            assert await every.next(2) == ["AAPL 100 1", "MSFT 200 1"]
            assert await one.next() == ["MSFT 200 1"]
            await running.send(message(2, [tick(201)], ["MSFT"]))
            assert await every.next() == await one.next() == ["MSFT 201 2"]
            with late.following(feed, ALL, "1m"):
                assert await late.next(2) == ["AAPL 100 1", "MSFT 201 2"]
            assert every.received.empty()
            assert one.received.empty()


async def test_an_interval_that_does_not_exist_ends_the_subscription():
    async with aggregator() as running, feed_of(running.address) as feed:
        follower = Follower()
        with follower.following(feed, "AAPL", "7m"):
            assert "no bars of 7m" in str(await follower.errors.get())


async def test_a_series_outlives_the_aggregator(free_port):
    follower, joined = Follower(), Follower()
    async with contextlib.AsyncExitStack() as stack:
        async with aggregator(port=free_port) as running:
            feed = await stack.enter_async_context(feed_of(running.address))
            stack.enter_context(follower.following(feed, "AAPL", "1s"))
            await running.send(message(0, [tick(100, at_s=60)], ["AAPL"]))
            assert await follower.next() == ["AAPL 100 1"]
        async with aggregator(port=free_port) as running:
            await running.send(message(0, [tick(200)], ["AAPL"]))
            assert await follower.next() == ["AAPL 200 1"]
            with joined.following(feed, "AAPL", "1s"):
                assert await joined.next() == ["AAPL 200 1"]


@pytest.mark.usefixtures("no_refill")
async def test_a_client_that_follows_too_many_new_series_is_limited():
    client = Admission(Limits(upstream_per_s=1, upstream_burst=1)).client("1.2.3.4")
    async with aggregator() as running, feed_of(running.address) as feed:
        subscription = Subscription(client, Follower(), Follower())
        ends = [feed.follow(Key(f"S{number}", "1m"), subscription) for number in range(11)]
        with pytest.raises(LimitError):
            feed.follow(Key("MORE", "1m"), subscription)
        for end in ends:
            end()


async def pages(feed, page):
    """All bars from a page on, as minutes since noon, by page."""
    found = []
    while True:
        found_page = await feed.history(ANYBODY, Key("AAPL", "1m"), page)
        assert not found_page.is_stale
        found.append([(bar.start - NOON_NS) // MINUTE_NS for bar in found_page.rows])
        if found_page.next is None:
            return found
        page = Page(page.limit, found_page.next, page.from_ns, page.to_ns, page.is_ascending)


@pytest.mark.parametrize("store", [False, True], ids=["in memory", "stored"])
async def test_pages_have_every_bar_once_in_both_orders(tmp_path, store):
    settings = {"store": f"sqlite:///{tmp_path}/bars.db?synchronous=normal"} if store else {}
    keep = {"bars_kept": 3} if store else {}
    async with aggregator(**settings, **keep) as running, feed_of(running.address) as feed:
        ticks = [tick(100 + minute, at_s=60 * minute) for minute in range(10)]
        await running.send(message(0, ticks, ["AAPL"]))
        key = Key("AAPL", "1m")
        assert await pages(feed, Page(4)) == [[9, 8, 7, 6], [5, 4, 3, 2], [1, 0]]
        assert await pages(feed, Page(5, is_ascending=True)) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
        part = {"from_ns": NOON_NS + 2 * MINUTE_NS, "to_ns": NOON_NS + 7 * MINUTE_NS}
        assert await pages(feed, Page(2, **part)) == [[6, 5], [4, 3], [2]]
        assert await pages(feed, Page(2, **part, is_ascending=True)) == [[2, 3], [4, 5], [6]]
        cursor = (await feed.history(ANYBODY, key, Page(1))).next
        with pytest.raises(ParameterError, match="cursor: of another symbol or interval"):
            await feed.history(ANYBODY, Key("AAPL", "1s"), Page(1, cursor))
