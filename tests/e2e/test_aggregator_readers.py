"""The calls by which the aggregator's state is read, and readers that are slow or vanish."""

from __future__ import annotations

import asyncio
import contextlib
import copy

import grpc
import grpc.aio
import numpy as np
import pytest

from mdtool.adapters import rpc
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Reason
from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.batches import decode_bars, decode_updates
from tests.support.aggregators import NOON_NS, aggregator, message, tick

S_NS = 10**9


def aggregate_of(symbol):
    return marketdata_pb2.AggregateRequest(symbol=symbol)


def all_updates(stub):
    return stub.StreamUpdates(marketdata_pb2.UpdatesRequest())


async def bars(stub, symbol="AAPL", interval="1s", limit=0, before=0):
    request = marketdata_pb2.BarsRequest(
        symbol=symbol, interval=interval, limit=limit, before=before
    )
    return decode_bars(await stub.GetBars(request))


async def test_an_aggregate_is_the_session_so_far():
    async with aggregator() as running:
        frames = [tick(18950, 100), tick(19025, 50, at_s=1), tick(18800, 7, at_s=2)]
        await running.send(message(0, frames, ["AAPL"]))

        assert await running.stub.GetAggregate(aggregate_of(" aapl")) == marketdata_pb2.Aggregate(
            symbol="AAPL",
            open=189.5,
            high=190.25,
            low=188.0,
            close=188.0,
            volume=157,
            timestamp=NOON_NS + 2 * S_NS,
        )


@pytest.mark.parametrize("symbol", ["MSFT", "", "GOOG"])
async def test_an_unknown_symbol_is_not_found(symbol):
    async with aggregator() as running:
        # GOOG stands in the table, but its only frame was refused.
        await running.send(message(0, [tick(1), Reason.PRICE], ["AAPL", "GOOG"]))

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.GetAggregate(aggregate_of(symbol))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await bars(running.stub, symbol)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("call", ["GetAggregate", "GetBars", "StreamAggregates"])
async def test_a_malformed_request_is_rejected_without_a_log_line(call, caplog):
    async with aggregator() as running:
        connect = running.channel.unary_stream
        if not call.startswith("Stream"):
            connect = running.channel.unary_unary
        answer = connect(f"/marketdata.MarketDataService/{call}")(b"\xff\xff")
        assert await answer.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Traceback" not in caplog.text


async def test_aggregates_of_a_symbol_come_at_once_and_when_it_changes():
    async with aggregator() as running:
        await running.send(message(0, [tick(100), tick(200, symbol=1)], ["AAPL", "MSFT"]))
        call = running.stub.StreamAggregates(aggregate_of("aapl"))
        first = await call.read()
        await running.send(message(2, [tick(201)], ["MSFT"]))
        await running.send(message(3, [tick(102)], ["AAPL"]))
        second = await call.read()

        assert (first.symbol, first.close, first.volume) == ("AAPL", 1.0, 1)
        assert (second.symbol, second.close, second.volume) == ("AAPL", 1.02, 2)
        call.cancel()


async def test_a_reader_of_an_unknown_symbol_gets_its_first_trade():
    async with aggregator() as running:
        call = running.stub.StreamAggregates(aggregate_of("AAPL"))
        everything = running.stub.StreamAggregates(aggregate_of(""))
        await running.send(message(0, [tick(100)], ["AAPL"]))

        assert (await call.read()).close == 1.0
        assert (await everything.read()).symbol == "AAPL"
        call.cancel()
        everything.cancel()


async def test_without_a_symbol_the_aggregates_of_all_come():
    async with aggregator() as running:
        await running.send(message(0, [tick(100), tick(200, symbol=1)], ["AAPL", "MSFT"]))
        call = running.stub.StreamAggregates(aggregate_of(""))
        first = {(await call.read()).symbol for _ in range(2)}
        await running.send(message(2, [tick(300)], ["GOOG"]))

        assert first == {"AAPL", "MSFT"}
        assert (await call.read()).symbol == "GOOG"
        call.cancel()


async def test_updates_bring_all_symbols_first_and_then_those_that_changed():
    async with aggregator() as running:
        symbols = SymbolTable()
        await running.send(message(0, [tick(100), tick(200, symbol=1)], ["AAPL", "MSFT"]))
        call = all_updates(running.stub)
        first = decode_updates(await call.read(), symbols)
        await running.send(message(2, [tick(203, 9, at_s=4), tick(300, symbol=1)], ["MSFT", "X"]))
        second = decode_updates(await call.read(), symbols)

        assert [symbols[index] for index in first.symbol] == ["AAPL", "MSFT"]
        assert [symbols[index] for index in second.symbol] == ["MSFT", "X"]
        assert list(symbols) == ["AAPL", "MSFT", "X"]
        assert second.close.tolist() == [203 * 10**7, 300 * 10**7]
        assert second.volume.tolist() == [10, 1]
        assert second.count.tolist() == [2, 1]
        assert second.timestamp[0] == NOON_NS + 4 * S_NS
        assert second.ingest_timestamp[0] == NOON_NS + 4 * S_NS + 5
        assert second.counts.ticks == 4
        call.cancel()


async def test_the_first_updates_of_an_empty_market_come_at_once():
    async with aggregator() as running:
        call = all_updates(running.stub)

        assert await call.read() == marketdata_pb2.UpdateBatch(
            counts=marketdata_pb2.IngestCounts(refused={reason.label: 0 for reason in Reason})
        )
        call.cancel()


async def test_refusals_alone_are_an_update_of_the_counts():
    async with aggregator() as running:
        call = all_updates(running.stub)
        await call.read()
        await running.send(message(0, [Reason.VOLUME]))
        update = await call.read()

        assert len(update.symbol) == 0
        assert update.counts.refused["volume"] == 1
        call.cancel()


async def test_bars_come_newest_first_and_page_backwards():
    async with aggregator() as running:
        frames = [tick(100 + n, at_s=n) for n in range(90)]
        await running.send(message(0, frames, ["AAPL"]))

        newest = await bars(running.stub, limit=3)
        assert newest.start.tolist() == [NOON_NS + n * S_NS for n in (89, 88, 87)]
        older = await bars(running.stub, limit=2, before=int(newest.start[-1]))
        assert older.close.tolist() == [186 * 10**7, 185 * 10**7]
        assert len(await bars(running.stub)) == 90
        minutes = await bars(running.stub, interval="1m")
        assert minutes.count.tolist() == [30, 60]
        assert minutes.start.tolist() == [NOON_NS + 60 * S_NS, NOON_NS]


@pytest.mark.parametrize("interval", ["1s", "1m", "5m", "1h", "1d"])
async def test_every_interval_has_bars(interval):
    async with aggregator() as running:
        await running.send(message(0, [tick(100)], ["AAPL"]))

        assert (await bars(running.stub, interval=interval)).volume.tolist() == [1]


@pytest.mark.parametrize("interval", ["", "2m", "soon", "-1s"])
async def test_an_unknown_interval_is_an_invalid_argument(interval):
    async with aggregator() as running:
        await running.send(message(0, [tick(100)], ["AAPL"]))

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await bars(running.stub, interval=interval)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_late_ticks_amend_their_bar_or_are_counted():
    async with aggregator(bars_lateness_ms=5_000) as running:
        frames = [tick(100, at_s=20), tick(90, at_s=16), tick(80, at_s=1)]
        await running.send(message(0, frames, ["AAPL"]))
        call = all_updates(running.stub)

        assert (await bars(running.stub)).close.tolist() == [10**9, 9 * 10**8]
        assert (await call.read()).counts.late == 1
        call.cancel()


def flood(symbols, steps):
    """Batches that each change every symbol, to the price of the batch's number."""
    names = [f"S{number}" for number in range(symbols)]
    batch = message(0, [tick(1, symbol=number) for number in range(symbols)], names)
    for step in range(1, steps + 1):
        batch.price = np.full(symbols, step, "<i8").tobytes()
        yield copy.copy(batch)
        batch.first_sequence += symbols
        del batch.new_symbols[:]


async def test_a_reader_that_does_not_read_skips_states_but_not_the_last():
    symbols, steps = 2_000, 300
    async with aggregator() as running:
        call = all_updates(running.stub)
        table = SymbolTable()
        decode_updates(await call.read(), table)
        await running.send(*flood(symbols, steps))

        received, ticks = 0, 0
        while ticks < symbols * steps:
            latest = decode_updates(await call.read(), table)
            received += 1
            ticks = latest.counts.ticks
        assert received < steps / 2
        assert set(latest.close.tolist()) == {steps}
        call.cancel()


async def read_one(stub):
    call = all_updates(stub)
    await call.read()
    return call


async def follow_one(stub):
    call = stub.StreamAggregates(aggregate_of("AAPL"))
    await call.read()
    return call


@pytest.mark.parametrize("follow", [read_one, follow_one])
async def test_a_reader_that_cancels_is_forgotten(follow):
    async with aggregator() as running:
        await running.send(message(0, [tick(1)], ["AAPL"]))
        call = await follow(running.stub)
        assert len(running.subscribers) == 1
        call.cancel()
        await running.subscribers.deserted.wait()

        assert len(running.subscribers) == 0


async def test_a_reader_that_cancels_while_it_is_written_to_is_forgotten():
    async with aggregator() as running:
        call = await read_one(running.stub)
        await running.send(*flood(symbols=20_000, steps=30))
        call.cancel()
        await running.subscribers.deserted.wait()

        assert len(running.subscribers) == 0


@pytest.mark.parametrize("follow", [read_one, follow_one])
async def test_a_reader_whose_connection_breaks_is_forgotten(follow):
    async with aggregator() as running:
        await running.send(message(0, [tick(1)], ["AAPL"]))
        host, port = running.address.split(":")
        links = []

        async def relay(reader, writer):
            up_reader, up_writer = await asyncio.open_connection(host, port)
            links.extend((writer, up_writer))
            with contextlib.suppress(ConnectionError):
                await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))

        async def pump(reader, writer):
            while data := await reader.read(65_536):
                writer.write(data)

        async with await asyncio.start_server(relay, "127.0.0.1", 0) as between:
            address = f"127.0.0.1:{between.sockets[0].getsockname()[1]}"
            async with grpc.aio.insecure_channel(address, rpc.OPTIONS) as channel:
                await follow(rpc.Stub(channel))
                for writer in links:
                    writer.transport.abort()
                await running.subscribers.deserted.wait()

        assert len(running.subscribers) == 0


async def test_readers_come_and_go_without_disturbing_those_who_stay():
    async with aggregator() as running:
        await running.send(message(0, [tick(1)], ["AAPL"]))
        staying = await follow_one(running.stub)
        for _ in range(20):
            (await follow_one(running.stub)).cancel()
        await running.send(message(1, [tick(7)], ["AAPL"]))

        assert (await staying.read()).close == 0.07
        staying.cancel()
