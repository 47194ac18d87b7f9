"""The aggregator's call that hands over every trade once it is committed."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest

from mdtool.adapters import rpc
from mdtool.adapters.aggregator import AggregatorClient
from mdtool.core.errors import PeerError
from mdtool.core.trades import Reason
from mdtool.services.aggregator import live_market
from mdtool.services.aggregator.trade_publisher import TradePublisher
from mdtool.wire._pb import marketdata_pb2, tick_pb2
from tests.support.aggregators import NOON_NS, aggregator, message, tick
from tests.support.waiting import bounded


class Followed:
    """What a feed handed over, and the task that follows it."""

    def __init__(self, address: str, socket: str = "") -> None:
        self.runs = asyncio.Queue()
        self.is_connected = asyncio.Event()
        self.task = asyncio.create_task(self._follow(address, socket))

    async def _follow(self, address: str, socket: str) -> None:
        async with AggregatorClient(address, socket) as feed:
            await feed.follow_trades(self._connected, self.runs.put_nowait)

    def _connected(self, stream):
        self.stream = stream
        self.is_connected.set()

    async def next(self):
        """Stream, first sequence, and rows of symbol, price and volume."""
        run = await self.runs.get()
        trades = run.trades
        rows = zip(trades.symbol.tolist(), trades.price.tolist(), trades.size.tolist(), strict=True)
        named = [(run.symbols[symbol], price, volume) for symbol, price, volume in rows]
        return run.stream_id, run.first_sequence, named


async def test_batches_are_sent_once_with_their_positions():
    async with aggregator() as running:
        await running.send(message(0, [tick(1)], ["OLD"]))
        followed = Followed(running.address)
        await followed.is_connected.wait()
        frames = [tick(100, 5, symbol=1), Reason.PRICE, tick(200, 7)]
        await running.send(message(1, frames, ["AAPL", "MSFT"]))
        await running.send(message(1, [*frames, tick(300, 9)], ["AAPL", "MSFT"]))
        assert await followed.next() == (
            "s",
            1,
            [("MSFT", 10**9, 5), ("AAPL", 2 * 10**9, 7)],
        )
        assert await followed.next() == ("s", 4, [("AAPL", 3 * 10**9, 9)])
        followed.task.cancel()


@pytest.mark.parametrize("is_local", [False, True])
async def test_a_reader_chooses_how_far_apart_trades_come(tmp_path, is_local):
    socket = str(tmp_path / "s") if is_local else ""
    async with aggregator(socket=socket) as running, bounded():
        followed = Followed(running.address, socket)
        await followed.is_connected.wait()
        followed.stream.collect(3_600_000)
        await followed.stream.catch_up()
        for number in range(3):
            await running.send(message(number, [tick(100)], ["AAPL"]))
        assert followed.runs.empty()
        await followed.stream.catch_up()
        assert (await followed.next())[1:] == (0, [("AAPL", 10**9, 1)] * 3)
        followed.stream.collect(0)
        await followed.stream.catch_up()
        await running.send(message(3, [tick(100)], ["AAPL"]))
        assert (await followed.next())[1] == 3
        followed.task.cancel()


async def test_a_wrong_request_ends_the_call():
    async with aggregator() as running, bounded(), rpc.open_channel(running.address) as channel:
        call = channel.stream_stream("/marketdata.MarketDataService/StreamTrades")(iter([b"\xff"]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [batch async for batch in call]
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_client_that_sends_one_request_and_ends_its_side_gets_all_batches():
    async with aggregator() as running, bounded(), rpc.open_channel(running.address) as channel:
        call = channel.unary_stream(
            "/marketdata.MarketDataService/StreamTrades",
            response_deserializer=marketdata_pb2.TickBatch.FromString,
        )(b"")
        await call.initial_metadata()
        for number in range(2):
            await running.send(message(number, [tick(100)], ["AAPL"]))
        batches = aiter(call)
        assert [(await anext(batches)).first_sequence for _ in range(2)] == [0, 1]
        call.cancel()


async def test_ticks_one_by_one_are_handed_over_too():
    async with aggregator() as running:
        followed = Followed(running.address)
        await followed.is_connected.wait()
        one = tick_pb2.Tick(symbol="AAPL", price=1.5, volume=3, exchange_timestamp=NOON_NS)
        await running.stub.StreamTicks(iter([one, one]))
        first, second = await followed.next(), await followed.next()
        assert [first[1:], second[1:]] == [
            (0, [("AAPL", 1_500_000_000, 3)]),
            (1, [("AAPL", 1_500_000_000, 3)]),
        ]
        assert first[0] == second[0]
        followed.task.cancel()


async def test_a_slow_client_is_disconnected_with_the_reason(monkeypatch):
    publishers = []

    def publisher(symbols):
        publishers.append(TradePublisher(symbols, max_behind=200_000))
        return publishers[-1]

    monkeypatch.setattr(live_market, "TradePublisher", publisher)
    async with aggregator() as running, bounded():
        call = running.stub.StreamTrades()
        await call.initial_metadata()
        (follower,) = publishers[0]._followers
        frames = [tick(100)] * 100_000
        sent = 0
        # How much the connection itself holds, nobody knows: a client that reads nothing is
        # behind sooner or later.
        while not follower._is_lost:
            await running.send(message(sent, frames, ["AAPL"]))
            sent += len(frames)
        received = 0

        async def receive() -> None:
            nonlocal received
            async for batch in call:
                received += batch.frames

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await receive()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "more than 200,000 trades waited for a slow reader" in caught.value.details()
        assert received <= sent - 200_000


async def test_an_unavailable_feed_is_reported():
    async with AggregatorClient("127.0.0.1:1") as feed:
        with pytest.raises(PeerError, match=r"127\.0\.0\.1:1 is unavailable"):
            await feed.follow_trades(pytest.fail, pytest.fail)
    async with aggregator() as running:
        followed = Followed(running.address)
        await followed.is_connected.wait()
    with pytest.raises(PeerError):
        await followed.task
