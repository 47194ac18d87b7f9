"""The calls by which ticks reach the aggregator, and what becomes of those it cannot take."""

from __future__ import annotations

import asyncio
import math

import grpc
import numpy as np
import pytest

from mdtool.core.trades import Reason
from mdtool.wire._pb import marketdata_pb2, tick_pb2
from tests.support.aggregators import NOON_NS, aggregator, message, tick


def one(symbol="AAPL", price=189.5, volume=100, at_ns=NOON_NS):
    return tick_pb2.Tick(symbol=symbol, price=price, volume=volume, exchange_timestamp=at_ns)


async def position(running, stream_id):
    request = marketdata_pb2.StreamPositionRequest(stream_id=stream_id)
    return await running.stub.GetStreamPosition(request)


async def totals(running):
    call = running.stub.StreamUpdates(marketdata_pb2.UpdatesRequest())
    update = await call.read()
    call.cancel()
    return update.counts


async def failure(call):
    """Return how a call ended."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return caught.value


async def test_ticks_sent_one_by_one_are_counted_in_the_ack():
    async with aggregator() as running:
        ack = await running.stub.StreamTicks(iter([one(), one(price=190.25), one("MSFT")]))

        assert ack.success
        assert ack.message == "Received 3 ticks"
        assert (await totals(running)).ticks == 3


async def test_wrong_ticks_are_refused_by_reason_and_the_stream_continues():
    bad = [
        *(one(price=price) for price in (math.nan, math.inf, -math.inf, 0.0, -1.0, 1e300)),
        *(one(volume=volume) for volume in (0, -5)),
        *(one(symbol=symbol) for symbol in ("", "  ", "A" * 71, "café")),
        *(one(at_ns=at_ns) for at_ns in (0, -1, NOON_NS // 10**9, NOON_NS // 10**6)),
        tick_pb2.Tick(),
    ]
    async with aggregator() as running:
        ack = await running.stub.StreamTicks(iter([one(), *bad, one(symbol=" aapl ")]))

        assert ack.message == (
            "Received 2 ticks, refused 17 (5 symbol, 6 price, 2 volume, 4 timestamp)"
        )
        assert (await totals(running)).refused == {
            "symbol": 5, "price": 6, "volume": 2, "timestamp": 4, "malformed": 0
        }  # fmt: skip
        assert running.market.session(0)["count"] == 2


async def test_ticks_of_any_price_are_taken_where_the_setting_says_so():
    prices = (-37.63, 0.0, -40.32, math.nan)
    async with aggregator(tick_prices="any") as running:
        ack = await running.stub.StreamTicks(iter([one(price=price) for price in prices]))
        assert ack.message == "Received 3 ticks, refused 1 (1 price)"
        request = marketdata_pb2.AggregateRequest(symbol="AAPL")
        aggregate = await running.stub.GetAggregate(request)
        found = (aggregate.open, aggregate.high, aggregate.low, aggregate.close)
        assert found == (-37.63, 0.0, -40.32, -40.32)


async def test_bytes_that_are_no_tick_end_the_call_and_what_came_before_counts():
    async with aggregator() as running:
        call = running.channel.stream_unary(
            "/marketdata.MarketDataService/StreamTicks",
            response_deserializer=tick_pb2.Ack.FromString,
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(iter([one().SerializeToString(), b"\x0a\xff"]))

        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await totals(running)).ticks == 1


async def test_the_ingest_timestamp_is_the_services_own():
    async with aggregator() as running:
        sent = one()
        sent.ingest_timestamp = 5
        await running.stub.StreamTicks(iter([sent]))

        assert running.market.session(0)["ingest_timestamp"] > NOON_NS


async def test_batches_are_acknowledged_in_order_and_the_position_is_stored():
    async with aggregator() as running:
        acks = await running.send(
            message(0, [tick(100), Reason.PRICE, tick(101)], ["AAPL"]),
            message(3, [Reason.SYMBOL]),
            message(4, [tick(102, symbol=1)], ["MSFT"]),
        )

        # What is committed together is acknowledged once.
        assert acks == [end for end in (3, 4, 5) if end in acks]
        assert acks[-1] == 5
        assert (await position(running, "s")).next_sequence == 5
        assert not (await position(running, "other")).known
        counts = await totals(running)
        assert counts.ticks == 3
        assert counts.refused["price"] == counts.refused["symbol"] == 1


async def test_a_resend_in_another_call_counts_once():
    async with aggregator() as running:
        frames = [tick(cents) for cents in range(100, 110)]
        await running.send(message(50, frames[:6], ["AAPL"]))
        acks = await running.send(message(52, frames[2:8], ["AAPL"]), message(50, frames))

        assert acks in ([58, 60], [60])
        counts = await totals(running)
        assert (counts.ticks, counts.duplicates) == (10, 4 + 8)
        assert running.market.session(0)["volume"] == 10


async def test_one_stream_over_many_calls_at_once_counts_once():
    async with aggregator() as running:
        batches = [message(n, [tick(100 + n)], ["AAPL"] if n == 0 else ()) for n in range(100)]
        await asyncio.gather(*(running.send(*batches) for _ in range(4)))

        counts = await totals(running)
        assert (counts.ticks, counts.duplicates) == (100, 300)


async def test_a_gap_ends_the_call_and_changes_nothing():
    async with aggregator() as running:
        call = running.stub.StreamTickBatches(
            iter([message(0, [tick(1)], ["AAPL"]), message(2, [tick(2)])])
        )
        error = await failure(call)

        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "continues at 1, not at 2" in error.details()
        assert (await position(running, "s")).next_sequence == 1


async def test_symbols_beyond_the_bound_are_refused_and_counted():
    async with aggregator(max_symbols=2) as running:
        frames = [tick(1, symbol=n) for n in (0, 2, 1, 2)]
        acks = await running.send(message(0, [Reason.PRICE, *frames], ["A", "B", "C"]))
        ack = await running.stub.StreamTicks(iter([one("C"), one("A")]))

        assert acks == [5]
        assert ack.message == "Received 1 ticks, refused 1 (1 symbol)"
        counts = await totals(running)
        assert counts.ticks == 3
        assert (counts.refused["symbol"], counts.refused["price"]) == (3, 1)
        assert list(running.market.symbols) == ["A", "B"]


def _with(**changes):
    """A batch of two ticks in which something is not right."""
    batch = message(0, [tick(100), tick(101)], ["AAPL"])
    for name, value in changes.items():
        if name == "new_symbols":
            batch.new_symbols[:] = value
        else:
            setattr(batch, name, value)
    return batch.SerializeToString()


def _numbers(*values):
    return np.array(values, "<i8").tobytes()


GARBAGE = {
    "no message": b"\x0a\xff\xff",
    "random bytes": np.random.default_rng(7).bytes(400),
    "no stream": _with(stream_id=""),
    "long stream id": _with(stream_id="s" * 129),
    "control characters in the stream id": _with(stream_id="a\nb"),
    "sequences beyond uint64": _with(first_sequence=2**64 - 2),
    "a cut column": _with(price=b"\0" * 15),
    "columns of different lengths": _with(volume=_numbers(1)),
    "more frames than ticks": _with(frames=2**32 - 1),
    "fewer frames than ticks": _with(frames=1),
    "a symbol outside the table": _with(symbol=np.array([0, 9], "<u4").tobytes()),
    "a lower-case symbol": _with(new_symbols=["aapl"]),
    "a symbol with blanks": _with(new_symbols=[" AAPL"]),
    "an empty symbol": _with(new_symbols=[""]),
    "a symbol beyond ASCII": _with(new_symbols=["CAFÉ"]),
    "a long symbol": _with(new_symbols=["A" * 71]),
    "a symbol twice": _with(new_symbols=["AAPL", "AAPL"]),
    "an undefined price": _with(price=_numbers(1, 2**63 - 1)),
    "a negative volume": _with(volume=_numbers(-1, 1)),
    "times in milliseconds": _with(exchange_timestamp=_numbers(1_735_214_400_000, NOON_NS)),
    "an unknown reason": _with(
        frames=3, offset=np.array([0, 1], "<u4").tobytes(),
        refused_offset=np.array([2], "<u4").tobytes(), refused_reason=b"\x09",
    ),
    "offsets that fall": _with(
        frames=3, offset=np.array([1, 0], "<u4").tobytes(),
        refused_offset=np.array([2], "<u4").tobytes(), refused_reason=b"\x01",
    ),
}  # fmt: skip


@pytest.mark.parametrize("payload", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_ends_its_own_call_only(payload):
    async with aggregator() as running:
        other = running.stub.StreamTickBatches()
        await other.write(message(0, [tick(100)], ["MSFT"], stream="other"))
        await other.read()

        call = running.channel.stream_stream("/marketdata.MarketDataService/StreamTickBatches")
        error = await failure(call(iter([payload])))
        await other.write(message(1, [tick(102)], stream="other"))

        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()
        assert (await other.read()).next_sequence == 2
        assert not (await position(running, "s")).known
        assert (await totals(running)).ticks == 2
        other.cancel()
