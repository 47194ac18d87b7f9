"""The feed of trades: what a subscription begins with, what it misses, and what memory keeps."""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np
import pytest

from mdtool.adapters.market import TradeStream, UnknownSymbolError
from mdtool.adapters.stores.port import TradePage
from mdtool.core.errors import PeerError
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Frames, TradeRun
from mdtool.core.trades import Trades as Columns
from mdtool.services.client import Admission
from mdtool.services.gateway.feeds import trade_starts
from mdtool.services.gateway.feeds import trades as module
from mdtool.services.gateway.feeds.feed import ALL, Audience, Key, Page
from mdtool.services.gateway.feeds.trades import Trades
from mdtool.services.gateway.history import StoredTrades
from mdtool.services.gateway.hub import Hub, Subscription
from mdtool.services.gateway.market import MarketState
from mdtool.services.gateway.parameters import ParameterError
from mdtool.services.limits import Limits

ANYBODY = Admission(Limits()).client("1.2.3.4")
SYMBOLS = SymbolTable(["AAPL", "MSFT"])


def run(first: int, *symbols: int, stream: str = "s", times=None) -> TradeRun:
    """A batch of trades; the price of each is its place in the stream."""
    n = len(symbols)
    place = np.arange(first, first + n, dtype=np.int64)
    time = place if times is None else np.array(times, np.int64)
    columns = Columns(np.array(symbols, np.uint32), place, place + 1, time, time)
    return TradeRun(SYMBOLS, stream, first, Frames.of(columns))


class Source:
    """A stream of trades that the test connects, fills and loses."""

    name = "it"

    def __init__(self) -> None:
        self.calls: asyncio.Queue = asyncio.Queue()
        self.is_followed = False
        self.ended = asyncio.Event()
        self.collected: list[TradeRun] = []
        self.intervals_ms: list[int] = []

    async def follow_trades(self, connected, receive):
        self.receive = receive
        self.stream = TradeStream(self._request, receive)
        lost = asyncio.get_running_loop().create_future()
        self.is_followed = True
        await self.calls.put((connected, lost))
        try:
            await lost
        finally:
            self.is_followed = False
            self.ended.set()
        raise PeerError("it: is unavailable")

    async def connect(self):
        """Connect the next call; return what loses it."""
        connected, lost = await self.calls.get()
        connected(self.stream)
        return lambda: lost.set_result(None)

    def _request(self, interval_ms):
        """Pass on what waits, and answer, as the source of trades does, a turn later."""
        self.intervals_ms.append(interval_ms)
        asyncio.get_running_loop().call_soon(self._answer)

    def _answer(self):
        for run in [*self.collected, TradeRun(SYMBOLS, "", 0, Frames.empty())]:
            self.stream.received(run)
        self.collected.clear()


class Stored:
    """A store with some trades of AAPL, newest last."""

    def __init__(self, *runs: TradeRun) -> None:
        self.runs = runs
        self.requested = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def trades(self, client, symbol, part):
        self.requested.set()
        await self.go.wait()
        if symbol != "AAPL" or not self.runs:
            raise UnknownSymbolError(symbol)
        rows = [
            (time, 1, each.first_sequence + offset, price, size, time, each.stream_id)
            for each in self.runs
            for offset, (price, size, time) in enumerate(
                zip(each.trades.price, each.trades.size, each.trades.ts_event, strict=True)
            )
        ][::-1]
        columns = np.array([row[:6] for row in rows], np.int64).T
        names = [row[6] for row in rows]
        return StoredTrades(TradePage.of(columns), names[: part.limit], len(rows) > part.limit)


class Follower:
    """An outlet and a format: receives `SYMBOL PRICE`, `*` where it is of a snapshot, or a gap."""

    def __init__(self) -> None:
        self.received: asyncio.Queue = asyncio.Queue()

    def header(self, length):
        return b""

    def send(self, update):
        self.received.put_nowait(update[2].decode())

    def send_all(self, updates):
        for update in updates:
            self.send(update)

    def forget(self, owner):
        pass

    def encode(self, trade, is_snapshot=False):
        return f"{trade.symbol} {trade.price}{'*' * is_snapshot}".encode()

    def missed(self, symbol, count):
        return f"{symbol} missed {count}".encode()

    def follow(self, feed, symbol="AAPL", after=None):
        return feed.follow(Key(symbol), Subscription(ANYBODY, self, self), after)

    async def next(self, n=1):
        return [await self.received.get() for _ in range(n)]


@contextlib.asynccontextmanager
async def feed_of(source, history=None):
    market = MarketState()
    market.is_live = True
    for symbol in SYMBOLS:
        market.symbols.intern(symbol)
    feed = Trades(source, history, market, Audience(Hub()))
    running = asyncio.create_task(feed.run())
    await asyncio.sleep(0)
    try:
        yield feed
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(module, "MAX_IN_MEMORY", 100)
    monkeypatch.setattr(trade_starts, "LATEST", 3)
    monkeypatch.setattr(module, "MAX_BATCH", 4)


async def test_the_latest_come_first_and_then_each_trade_of_the_symbols_followed():
    async with feed_of(source := Source()) as feed:
        await source.connect()
        source.receive(run(0, 0, 0, 1, 0, 0))
        one, every = Follower(), Follower()
        one.follow(feed)
        every.follow(feed, ALL)
        assert await one.next(3) == ["AAPL 1*", "AAPL 3*", "AAPL 4*"]
        assert await every.next(3) == ["MSFT 2*", "AAPL 3*", "AAPL 4*"]
        source.receive(run(5, 1, 0))
        assert await one.next() == ["AAPL 6"]
        assert await every.next(2) == ["MSFT 5", "AAPL 6"]


async def test_of_a_large_batch_the_last_of_each_symbol_are_sent_and_the_others_counted():
    async with feed_of(source := Source()) as feed:
        await source.connect()
        source.receive(run(0, 1))
        every = Follower()
        every.follow(feed, ALL)
        assert await every.next() == ["MSFT 0*"]
        source.receive(run(1, *[0] * 10, 1, 1, 0))
        assert await every.next(7) == [
            "AAPL missed 7",
            *("AAPL 8", "AAPL 9", "AAPL 10", "MSFT 11", "MSFT 12", "AAPL 13"),
        ]


async def test_trades_are_collected_at_their_source_while_nobody_follows_them():
    async with feed_of(source := Source()) as feed:
        await source.connect()
        source.collected.append(run(0, 0))
        rows = await feed.history(ANYBODY, Key("AAPL"), Page(9))
        assert [trade.price for trade in rows.rows] == [0]
        source.collected.append(run(1, 0))
        follower, other = Follower(), Follower()
        ends = [follower.follow(feed, after="s:0"), other.follow(feed)]
        assert await follower.next() == ["AAPL 1"]
        assert await other.next(2) == ["AAPL 0*", "AAPL 1*"]
        assert set(source.intervals_ms[-2:]) == {0}
        for end in ends:
            end()
        assert source.intervals_ms[-1] == source.intervals_ms[0] > 0


async def test_a_request_does_not_wait_for_a_source_that_was_lost():
    async with feed_of(source := Source()) as feed:
        await source.connect()
        source.receive(run(0, 0))
        source.stream._request = lambda _: source.stream.lost()
        rows = await feed.history(ANYBODY, Key("AAPL"), Page(9))
        assert len(rows.rows) == 1


async def test_a_subscription_resumes_behind_a_trade_that_is_in_memory():
    async with feed_of(source := Source()) as feed:
        await source.connect()
        source.receive(run(0, *[0] * 9, 1))
        follower, every = Follower(), Follower()
        follower.follow(feed, after="s:4")
        every.follow(feed, ALL, after="s:7")
        assert await follower.next(4) == ["AAPL 5", "AAPL 6", "AAPL 7", "AAPL 8"]
        assert await every.next(2) == ["AAPL 8", "MSFT 9"]
        source.receive(run(10, 0))
        assert await follower.next() == await every.next() == ["AAPL 10"]


async def test_behind_a_trade_that_memory_lost_an_unknown_number_was_missed():
    async with feed_of(source := Source()) as feed:
        await source.connect()
        source.receive(run(0, *[0] * 90))
        source.receive(run(90, *[0] * 90))
        follower = Follower()
        follower.follow(feed, after="s:4")
        assert await follower.next(4) == [
            "AAPL missed None",
            *(f"AAPL {n}*" for n in (177, 178, 179)),
        ]


async def test_a_stream_that_was_lost_is_a_gap():
    async with feed_of(source := Source()) as feed:
        lose = await source.connect()
        source.receive(run(0, 0, 0))
        follower, late = Follower(), Follower()
        follower.follow(feed)
        assert await follower.next(2) == ["AAPL 0*", "AAPL 1*"]
        lose()
        await source.connect()
        assert await follower.next() == ["AAPL missed None"]
        source.receive(run(7, 0))
        assert await follower.next() == ["AAPL 7"]
        late.follow(feed, after="s:1")
        assert await late.next(2) == ["AAPL missed None", "AAPL 0*"]


async def test_what_is_no_sequence_is_rejected():
    async with feed_of(Source()) as feed:
        for after in ("", "7", ":7", "s:", "s:-1", "s:x"):
            with pytest.raises(ParameterError, match="after: expects"):
                Follower().follow(feed, after=after)


async def test_with_a_store_the_stream_is_followed_while_somebody_follows():
    async with feed_of(source := Source(), Stored(run(0, 0, 0, 0, 0))) as feed:
        assert not source.is_followed
        follower = Follower()
        end = follower.follow(feed)
        await source.connect()
        assert await follower.next(3) == ["AAPL 1*", "AAPL 2*", "AAPL 3*"]
        source.receive(run(4, 0))
        assert await follower.next() == ["AAPL 4"]
        end()
        end()
        await source.ended.wait()


async def test_trades_that_the_store_and_memory_have_are_sent_once():
    store = Stored(run(0, 0, 0, 0, 0))
    store.go.clear()
    async with feed_of(source := Source(), store) as feed:
        follower = Follower()
        follower.follow(feed, after="s:1")
        await source.connect()
        await store.requested.wait()
        source.receive(run(3, 0, 0))
        store.go.set()
        assert await follower.next(3) == ["AAPL 2", "AAPL 3", "AAPL 4"]
        source.receive(run(5, 0))
        assert await follower.next() == ["AAPL 5"]


async def test_trades_in_memory_from_before_the_resumed_one_are_not_sent_again():
    store = Stored(run(0, *[0] * 8))
    async with feed_of(source := Source(), store) as feed:
        Follower().follow(feed)
        lose = await source.connect()
        source.receive(run(0, 0, 0))
        lose()
        await source.connect()
        source.receive(run(5, 0, 0))
        follower = Follower()
        follower.follow(feed, after="s:1")
        assert await follower.next(6) == [f"AAPL {number}" for number in range(2, 8)]
        source.receive(run(8, 0))
        assert await follower.next() == ["AAPL 8"]


async def test_other_streams_resume_by_the_time_at_which_trades_were_received():
    store = Stored(run(0, 0, 0, 0), run(70, 0, 0, stream="t", times=[1, 9]))
    async with feed_of(source := Source(), store) as feed:
        follower = Follower()
        follower.follow(feed, after="s:1")
        await source.connect()
        assert await follower.next(3) == ["AAPL 2", "AAPL 70", "AAPL 71"]


async def test_behind_a_trade_that_is_not_stored_an_unknown_number_was_missed():
    async with feed_of(source := Source(), Stored(run(5, 0, 0, 0, 0))) as feed:
        follower = Follower()
        follower.follow(feed, after="s:1")
        await source.connect()
        expected = ["AAPL missed None", "AAPL 6*", "AAPL 7*", "AAPL 8*"]
        assert await follower.next(4) == expected


async def test_a_subscription_that_ends_while_the_store_reads_gets_nothing():
    store = Stored(run(0, 0))
    store.go.clear()
    async with feed_of(source := Source(), store) as feed:
        follower, other = Follower(), Follower()
        end = follower.follow(feed)
        other.follow(feed)
        await source.connect()
        await store.requested.wait()
        end()
        store.go.set()
        assert await other.next() == ["AAPL 0*"]
        assert follower.received.empty()


async def test_memory_is_paged_in_order_of_time():
    async with feed_of(source := Source()) as feed:
        await source.connect()
        source.receive(run(0, *[0] * 5, times=[3, 1, 2, 3, 1]))
        for is_ascending, expected in ((True, [1, 4, 2, 0, 3]), (False, [3, 0, 2, 4, 1])):
            page, found = Page(2, is_ascending=is_ascending), []
            while page is not None:
                rows = await feed.history(ANYBODY, Key("AAPL"), page)
                found += [trade.price for trade in rows.rows]
                page = rows.next and Page(2, rows.next, is_ascending=is_ascending)
            assert found == expected
        rows = await feed.history(ANYBODY, Key(ALL), Page(9, from_ns=2, to_ns=3))
        assert [trade.sequence for trade in rows.rows] == ["s:2"]
        assert (await feed.history(ANYBODY, Key("MSFT"), Page(1))).rows == []
        with pytest.raises(UnknownSymbolError):
            await feed.history(ANYBODY, Key("NONE"), Page(1))
        cursor = (await feed.history(ANYBODY, Key("AAPL"), Page(1))).next
        with pytest.raises(ParameterError, match="cursor: of another symbol"):
            await feed.history(ANYBODY, Key("MSFT"), Page(1, cursor))


async def test_memory_keeps_the_last_trades_of_all_symbols():
    async with feed_of(source := Source()) as feed:
        await source.connect()
        expected = []
        for first in range(0, 950, 38):
            source.receive(run(first, *[number % 2 for number in range(first, first + 38)]))
            expected = [f"s:{number}" for number in range(max(0, first + 38 - 100), first + 38)]
            rows = await feed.history(ANYBODY, Key(ALL), Page(1_000, is_ascending=True))
            assert [trade.sequence for trade in rows.rows] == expected
            rows = await feed.history(ANYBODY, Key("MSFT"), Page(1_000, is_ascending=True))
            assert [trade.sequence for trade in rows.rows] == expected[1::2]
        source.receive(run(1_000, *[0] * 250))
        rows = await feed.history(ANYBODY, Key(ALL), Page(1_000, is_ascending=True))
        assert [trade.price for trade in rows.rows] == list(range(1_150, 1_250))


async def test_who_subscribes_before_a_trade_is_written_gets_it_once():
    async with feed_of(source := Source()) as feed:
        await source.connect()
        source.receive(run(0, 0))
        first, late = Follower(), Follower()
        first.follow(feed)
        assert await first.next() == ["AAPL 0*"]
        source.receive(run(1, 0))
        feed.follow(Key("AAPL"), Subscription(ANYBODY, late, first))
        source.receive(run(2, 0))
        assert await late.next(3) == ["AAPL 0*", "AAPL 1*", "AAPL 2"]
        assert await first.next(2) == ["AAPL 1", "AAPL 2"]
