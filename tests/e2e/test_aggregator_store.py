"""The aggregation service with a store: what it acknowledges is kept, and taken up again."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mdtool.adapters.rpc import STORE_HEALTH
from mdtool.adapters.stores import open_history, open_store
from mdtool.adapters.stores.errors import (
    StoreClaimedError,
    StoreError,
    StoreFormatError,
    StoreUnavailableError,
)
from mdtool.core.config import variable
from mdtool.services.aggregator import committer, storage
from mdtool.wire._pb import marketdata_pb2, tick_pb2
from tests.support.aggregators import NOON_NS, aggregator, message, tick
from tests.support.stores import STORES
from tests.support.waiting import bounded
from tests.support.watched_stores import WatchedStore

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/market.db"


@pytest.fixture(params=STORES)
def any_url(request, tmp_path):
    """A store of each kind."""
    with STORES[request.param](tmp_path) as new_url:
        yield new_url()


@pytest.fixture
def stores(monkeypatch):
    """The stores that services have opened, the latest one last."""
    opened = []

    def opening(url):
        opened.append(WatchedStore(url))
        return opened[-1]

    monkeypatch.setattr(storage, "open_store", opening)
    return opened


async def position(service, stream="s"):
    request = marketdata_pb2.StreamPositionRequest(stream_id=stream)
    reply = await service.stub.GetStreamPosition(request)
    return reply.next_sequence if reply.known else None


async def aggregate(service, symbol="AAPL"):
    return await service.stub.GetAggregate(marketdata_pb2.AggregateRequest(symbol=symbol))


async def bars(service, interval="1s", limit=0, before=0):
    request = marketdata_pb2.BarsRequest(
        symbol="AAPL", interval=interval, limit=limit, before=before
    )
    reply = await service.stub.GetBars(request)
    starts = memoryview(reply.start).cast("q")
    return [(start - NOON_NS) // 10**9 for start in starts]


def stored(url):
    """The trades in the store, by symbol."""
    with open_history(url) as history:
        return {total.symbol: total.trade_count for total in history.symbols()}


async def owner(service, principal, stream="s"):
    claim = marketdata_pb2.StreamClaim(stream_id=stream, principal=principal)
    return (await service.stub.ClaimStream(claim)).principal


async def test_a_stream_stays_its_first_principals_after_a_restart(any_url):
    async with aggregator(store=any_url) as service:
        assert await owner(service, "key:a") == "key:a"
        assert await owner(service, "key:b") == "key:a"
        call = service.stub.StreamTickBatches()
        await call.write(message(0, [tick(100)], ["AAPL"]))
        await call.read()
        call.cancel()
    async with aggregator(store=any_url) as service:
        assert await owner(service, "key:b") == "key:a"
        assert await position(service) == 1
        assert await owner(service, "key:b", "another") == "key:b"
        for stream, principal in (("", "key:a"), ("s", ""), ("s", "a\0b"), ("s\0", "key:a")):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await owner(service, principal, stream)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_whose_a_stream_is_is_not_known_while_the_store_is_unavailable(url, stores):
    async with aggregator(store=url) as service:
        stores[0].errors.append(StoreUnavailableError("told to"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await owner(service, "key:a")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await owner(service, "key:b") == "key:b"


async def test_nothing_is_acknowledged_before_it_is_written(url, stores):
    async with aggregator(store=url) as service:
        stores[0].may_write.clear()
        call = service.stub.StreamTickBatches()
        await call.write(message(0, [tick(100), tick(101)], ["AAPL"]))
        await stores[0].begun()
        acknowledged = asyncio.ensure_future(call.read())
        asked = asyncio.ensure_future(position(service))

        assert (await aggregate(service)).volume == 2  # readers see it at once
        assert not acknowledged.done()
        assert not asked.done()
        assert stored(url) == {}

        stores[0].may_write.set()
        assert (await acknowledged).next_sequence == 2
        assert await asked == 2
        assert stored(url) == {"AAPL": 2}


async def test_what_gathers_while_one_group_is_written_is_the_next(url, stores):
    async with aggregator(store=url) as service:
        stores[0].may_write.clear()
        call = service.stub.StreamTickBatches()
        await call.write(message(0, [tick(100)], ["AAPL"]))
        await stores[0].begun()
        for number in range(1, 20):
            await call.write(message(number, [tick(100 + number)]))
        async with bounded():
            while (await aggregate(service)).volume < 20:
                pass
        stores[0].may_write.set()

        acks = [await call.read(), await call.read()]
        assert [ack.next_sequence for ack in acks] == [1, 20]
        assert [[run.next_sequence for run in step.runs] for step in stores[0].written] == [
            [1],
            [20],
        ]
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_what_is_uncommitted_is_bounded(url, stores):
    async with aggregator(store=url, max_uncommitted=10) as service:
        stores[0].may_write.clear()
        call = service.stub.StreamTickBatches()
        for number in range(10):
            batch = [tick(100)] * 8
            await call.write(message(8 * number, batch, ["AAPL"] if number == 0 else []))
        await call.done_writing()
        await stores[0].begun()
        async with bounded():
            while (await aggregate(service)).volume < 16:
                pass
        for _ in range(50):  # it has had every chance to take more
            assert (await aggregate(service)).volume == 16

        stores[0].may_write.set()
        acks = [ack.next_sequence async for ack in call]
        assert acks[-1] == 80
        assert (await aggregate(service)).volume == 80


async def test_an_unavailable_store_is_waited_for_and_reported(url, stores, caplog):
    caplog.set_level(logging.INFO, committer.__name__)
    async with aggregator(store=url) as service:
        health = health_pb2_grpc.HealthStub(service.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=STORE_HEALTH))
        assert (await watch.read()).status == SERVING
        stores[0].errors += [StoreUnavailableError("the store is locked")] * 3
        sending = asyncio.ensure_future(service.send(message(0, [tick(100)], ["AAPL"])))

        assert (await watch.read()).status == NOT_SERVING
        assert await sending == [1]
        assert (await watch.read()).status == SERVING
        watch.cancel()
        assert stored(url) == {"AAPL": 1}
    lines = [record.message for record in caplog.records if record.name == committer.__name__]
    assert lines == [
        "the store is locked; nothing is acknowledged until the store is available again",
        "the store is available again",
    ]


async def test_a_store_that_can_store_no_more_ends_the_service(url, stores, monkeypatch):
    monkeypatch.setenv(variable("stop", "drain_s"), "600")  # for a stop, not for a failure

    async def serve():
        async with aggregator(store=url) as service:
            stores[0].errors.append(StoreError("no more"))
            with pytest.raises(grpc.aio.AioRpcError):
                await service.send(message(0, [tick(100)], ["AAPL"]))
            await asyncio.wait({service.task})

    with pytest.raises(StoreError, match="no more"):
        await serve()
    assert stored(url) == {}


async def test_single_ticks_are_acknowledged_once_they_are_written(url, stores):
    async with aggregator(store=url) as service:
        stores[0].may_write.clear()

        async def ticks():
            for price in (100.0, 101.0):
                yield tick_pb2.Tick(
                    symbol="AAPL", price=price, volume=3, exchange_timestamp=NOON_NS
                )

        answer = asyncio.ensure_future(service.stub.StreamTicks(ticks()))
        await stores[0].begun()
        async with bounded():
            while (await aggregate(service)).volume < 6:
                pass
        assert not answer.done()

        stores[0].may_write.set()
        assert (await answer).message == "Received 2 ticks"
        assert stored(url) == {"AAPL": 2}


async def test_a_service_resumes_where_the_one_before_it_stopped(any_url):
    late = tick(90, at_s=-3600)
    async with aggregator(store=any_url) as service:
        await service.send(message(0, [tick(100, 2), tick(99, at_s=1), late], ["AAPL"]))
        before = await aggregate(service)
    async with aggregator(store=any_url) as service:
        assert await aggregate(service) == before
        assert await position(service) == 3
        assert service.market.bars.late == 1
        assert await service.send(message(0, [tick(100, 2), tick(99, at_s=1), late], ["AAPL"])) == [
            3
        ]
        assert await aggregate(service) == before
        assert service.market.counts.duplicates == 3
        assert await service.send(message(3, [tick(101, 4, at_s=2)], ["MSFT", "AAPL"])) == [4]
        assert (await aggregate(service, "MSFT")).volume == 4
        assert await bars(service) == [1, 0]
    assert stored(any_url) == {"AAPL": 3, "MSFT": 1}


async def test_a_stream_that_memory_has_forgotten_is_looked_up(any_url):
    first = message(0, [tick(100), tick(101)], ["AAPL"], stream="first")
    async with aggregator(store=any_url, max_streams=1) as service:
        await service.send(first, message(0, [tick(102)], stream="second"))
        assert service.market.position("first") is None

        assert await service.send(first) == [2]
        assert service.market.position("second") is None
        assert await position(service, "second") == 1
        with pytest.raises(grpc.aio.AioRpcError, match="continues at 2, not at 3"):
            await service.send(message(3, [tick(103)], ["AAPL"], stream="first"))
        assert await position(service, "third") is None
        assert (await aggregate(service)).volume == 3
    assert stored(any_url) == {"AAPL": 3}


async def test_bars_further_back_than_memory_come_from_the_store(any_url):
    seconds = list(range(0, 600, 2))
    ticks = [tick(100 + at, at_s=at) for at in seconds]
    options = {"store": any_url, "bars_kept": 5, "bars_lateness_ms": 0}
    async with aggregator(**options) as service:
        await service.send(message(0, ticks, ["AAPL"]))
        assert await bars(service) == seconds[:-7:-1]
        assert await bars(service, limit=6, before=NOON_NS + 400 * 10**9) == seconds[199:193:-1]
        assert await bars(service, limit=4, before=NOON_NS + 594 * 10**9) == [592, 590, 588, 586]
        assert await bars(service, limit=4, before=NOON_NS + 2 * 10**9) == [0]
    async with aggregator(**options) as service:
        assert await bars(service) == seconds[:-7:-1]
        assert await bars(service, "1m") == [540, 480, 420, 360, 300, 240]


async def test_a_stop_commits_what_was_taken(url, stores):
    async with contextlib.AsyncExitStack() as stack:
        service = await stack.enter_async_context(aggregator(store=url))
        stores[0].may_write.clear()
        call = service.stub.StreamTickBatches()
        await call.write(message(0, [tick(100)], ["AAPL"]))
        await stores[0].begun()
        await call.write(message(1, [tick(100)]))
        async with bounded():
            while (await aggregate(service)).volume < 2:
                pass
        service.task.cancel()
        stores[0].may_write.set()
    assert stored(url) == {"AAPL": 2}


async def test_a_stop_does_not_wait_for_an_unavailable_store(url, stores, caplog):
    async with contextlib.AsyncExitStack() as stack:
        service = await stack.enter_async_context(aggregator(store=url))
        stores[0].errors += [StoreUnavailableError("gone")] * 1_000
        call = service.stub.StreamTickBatches()
        await call.write(message(0, [tick(100)] * 7, ["AAPL"]))
        await stores[0].begun()
        service.task.cancel()
    assert "stopped with 7 ticks taken that the store does not have" in caplog.text
    assert stored(url) == {}


async def test_a_store_that_another_holds_is_not_taken(url, monkeypatch):
    monkeypatch.setattr(storage, "_CLAIM_SPARE_S", 0.1)
    monkeypatch.setenv("MDTOOL_STOP_WITHIN_S", "0.1")
    async with aggregator(store=url) as service:
        with pytest.raises(StoreClaimedError):
            async with aggregator(store=url):
                pass
        assert await service.send(message(0, [tick(100)], ["AAPL"])) == [1]


async def test_a_store_that_another_is_about_to_leave_is_waited_for(url, monkeypatch):
    waits = asyncio.Event()
    monkeypatch.setattr(storage.log, "info", lambda *_: waits.set())
    with open_store(url) as other:
        other.claim()
        async with contextlib.AsyncExitStack() as stack:
            starting = asyncio.ensure_future(stack.enter_async_context(aggregator(store=url)))
            await waits.wait()
            other.__exit__(None, None, None)
            service = await starting
            assert await service.send(message(0, [tick(100)], ["AAPL"])) == [1]


async def test_what_is_no_store_is_no_reason_to_try_again(tmp_path):
    (tmp_path / "notes.txt").write_text("It is no database.\n" * 100)
    with pytest.raises(StoreFormatError, match=r"notes\.txt"):
        async with aggregator(store=f"sqlite:///{tmp_path}/notes.txt"):
            pass
