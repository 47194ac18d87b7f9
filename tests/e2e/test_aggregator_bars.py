"""The stream of bars: the newest at once, then what changes, to readers of one symbol or of all."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import grpc.aio
import pytest

from mdtool.adapters.aggregator import AggregatorClient
from mdtool.adapters.market import RefusedError, UnavailableError
from mdtool.core.symbols import SymbolTable
from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.batches import decode_bar_updates
from tests.support.aggregators import NOON_NS, aggregator, message, tick

S_NS = 10**9


class Reader:
    """A call of `StreamBars`, message by message."""

    def __init__(self, stub, symbol: str = "", interval: str = "1s") -> None:
        request = marketdata_pb2.BarUpdatesRequest(symbol=symbol, interval=interval)
        self.call = stub.StreamBars(request)
        self.symbols = SymbolTable()

    async def read(self) -> list[tuple[str, int, int, int]]:
        """Symbol, seconds after noon, close in cents and volume of each bar of a message."""
        updates = decode_bar_updates(await self.call.read(), self.symbols)
        bars = updates.bars
        columns = (updates.symbol, bars.start, bars.close, bars.volume)
        return [
            (self.symbols[symbol], (start - NOON_NS) // S_NS, close // 10**7, volume)
            for symbol, start, close, volume in zip(*(c.tolist() for c in columns), strict=True)
        ]


async def test_a_reader_of_a_symbol_gets_its_newest_bar_and_then_changes():
    async with aggregator() as running:
        frames = [tick(100), tick(101, 2, at_s=1), tick(900, symbol=1)]
        await running.send(message(0, frames, ["AAPL", "MSFT"]))
        reader = Reader(running.stub, " aapl")

        assert await reader.read() == [("AAPL", 1, 101, 2)]
        await running.send(message(3, [tick(901, at_s=9)], ["MSFT"]))
        await running.send(message(4, [tick(102, 3, at_s=1)], ["AAPL"]))
        assert await reader.read() == [("AAPL", 1, 102, 5)]
        reader.call.cancel()


async def test_bars_that_began_and_ended_between_two_messages_are_sent():
    async with aggregator() as running:
        await running.send(message(0, [tick(100)], ["AAPL"]))
        reader = Reader(running.stub, "AAPL")
        await reader.read()
        await running.send(message(1, [tick(100 + s, at_s=s) for s in range(4)], ["AAPL"]))

        expected = [("AAPL", 0, 100, 2), *(("AAPL", s, 100 + s, 1) for s in (1, 2, 3))]
        assert await reader.read() == expected
        reader.call.cancel()


async def test_a_late_tick_brings_the_bar_that_it_amends():
    async with aggregator(bars_lateness_ms=5_000) as running:
        frames = [tick(100, at_s=s) for s in range(10)]
        await running.send(message(0, frames, ["AAPL"]))
        reader, minutes = Reader(running.stub, "AAPL"), Reader(running.stub, "AAPL", "1m")
        await reader.read()
        assert await minutes.read() == [("AAPL", 0, 100, 10)]
        await running.send(message(10, [tick(777, 7, at_s=6)], ["AAPL"]))

        assert await reader.read() == [("AAPL", 6, 777, 8)]
        assert await minutes.read() == [("AAPL", 0, 100, 17)]
        reader.call.cancel()
        minutes.call.cancel()


async def test_without_a_symbol_the_bars_of_all_come_those_of_new_symbols_too():
    async with aggregator() as running:
        await running.send(message(0, [tick(100), tick(200, symbol=1)], ["AAPL", "MSFT"]))
        reader = Reader(running.stub)

        assert await reader.read() == [("AAPL", 0, 100, 1), ("MSFT", 0, 200, 1)]
        await running.send(message(2, [tick(300, at_s=5), tick(201, symbol=1)], ["GOOG", "MSFT"]))
        assert await reader.read() == [("GOOG", 5, 300, 1), ("MSFT", 0, 201, 2)]
        reader.call.cancel()


async def test_an_unknown_symbol_is_sent_from_its_first_trade_on():
    async with aggregator() as running:
        reader = Reader(running.stub, "NEW")
        await running.send(message(0, [tick(100), tick(200, symbol=1)], ["AAPL", "NEW"]))

        assert await reader.read() == [("NEW", 0, 200, 1)]
        reader.call.cancel()


@pytest.mark.parametrize("interval", ["", "2m", "soon", "-1s"])
async def test_an_unknown_interval_is_an_invalid_argument(interval):
    async with aggregator() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await Reader(running.stub, "AAPL", interval).read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_client_receives_bars_until_the_service_stops():
    received = asyncio.Queue()
    async with contextlib.AsyncExitStack() as stack:
        async with aggregator() as running:
            await running.send(message(0, [tick(100)], ["AAPL"]))
            client = await stack.enter_async_context(AggregatorClient(running.address))
            following = asyncio.create_task(
                client.follow_bars("AAPL", "1m", lambda *told: received.put_nowait(told))
            )
            symbols, updates = await received.get()
            assert [symbols[index] for index in updates.symbol] == ["AAPL"]
            assert updates.bars.close.tolist() == [10**9]
        with pytest.raises(UnavailableError):
            await following


async def test_the_client_reports_an_unknown_interval():
    async with aggregator() as running, AggregatorClient(running.address) as client:
        for interval, why in [("7m", "no bars of 7m"), ("1w", "mdtool aggregate INPUT --interval")]:
            with pytest.raises(RefusedError, match=why):
                await client.follow_bars("AAPL", interval, lambda *_: None)
