"""Stores in servers, which are killed, lost and restarted, with several clients."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mdtool.adapters.rpc import STORE_HEALTH
from mdtool.adapters.stores import open_history, open_store
from mdtool.adapters.stores.errors import StoreClaimedError, StoreUnavailableError
from mdtool.adapters.stores.port import SymbolTotals
from mdtool.wire._pb import marketdata_pb2
from tests.support.aggregators import aggregator, message, tick
from tests.support.gateways import gateway_of
from tests.support.mongodb_servers import mongodb_server
from tests.support.postgres_servers import PASSWORD, postgres_server
from tests.support.processes import ChildProcess
from tests.support.store_proxies import MongoProxy, PostgresProxy
from tests.support.stores import MS, NOON_NS, STORES, step, until_taken
from tests.support.stream_writer import RUN_FRAMES, SYMBOLS, frames
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]


class Kind(NamedTuple):
    """What there is for tests of one kind of server."""

    server: object
    proxy: object
    frames: int
    """As many as one process writes in a few seconds."""
    extra: str
    hasty: str
    """What a URL ends in of a client that soon gives up a server that is not there."""


KINDS = {
    "postgresql": Kind(postgres_server, PostgresProxy, 20_000, "postgres", ""),
    "mongodb": Kind(mongodb_server, MongoProxy, 5_000, "mongodb", "?serverSelectionTimeoutMS=500"),
}


@pytest.fixture(params=KINDS, scope="module")
def name(request):
    return request.param


@pytest.fixture
def kind(name):
    return KINDS[name]


@pytest.fixture
def url(name, tmp_path):
    """A new database of a server that keeps running."""
    with STORES[name](tmp_path) as new_url:
        yield new_url()


@pytest.fixture(scope="module")
def mortal_server(name):
    """A server that tests kill, and that runs again when they end."""
    with KINDS[name].server() as server:
        yield server


@contextlib.contextmanager
def writing(url, stream, count):
    """A process that writes a stream; when the block ends it has come to its end."""
    command = [sys.executable, "-m", "tests.support.stream_writer", url, stream, str(count)]
    with ChildProcess(command, cwd=ROOT) as process:
        yield process
    assert process.returncode == 0


def totals(count, streams=1):
    """The totals after so many frames of so many streams."""
    last = NOON_NS + (count - 1) * MS
    half = streams * count // 2
    return [SymbolTotals("AAPL", half, last - MS), SymbolTotals("MSFT", half, last)]


def test_two_processes_write_at_once(url, kind):
    count = kind.frames // 10
    with writing(url, "a", count), writing(url, "b", count), writing(url, "a", count):
        pass
    with open_history(url) as reader:
        assert reader.symbols() == totals(count, streams=2)
        assert [each.next_sequence for each in reader.streams()] == [count, count]
        assert reader.recount() == []


def test_a_server_is_killed_while_it_is_written(mortal_server, kind):
    url = mortal_server.new_url()
    with open_history(url) as reader, writing(url, "a", kind.frames):
        for restart in range(3):
            wanted = (restart + 1) * 10 * RUN_FRAMES
            until_taken(lambda wanted=wanted: reached(reader, wanted))
            mortal_server.restart()
    with open_history(url) as reader:
        assert reader.symbols() == totals(kind.frames)
        assert reader.recount() == []


def reached(reader, wanted):
    if sum(each.trade_count for each in reader.symbols()) < wanted:
        raise StoreUnavailableError("not yet")


def test_a_stopped_server_is_unavailable_until_it_restarts(mortal_server, kind):
    url = mortal_server.new_url()
    with (
        open_store(url) as store,
        open_history(url) as reader,
        open_history(url + kind.hasty) as hasty,
    ):
        store.claim()
        store.write(step(SYMBOLS, frames("a", 0, 10)))
        mortal_server.kill()
        for ask in (
            lambda: store.write(step(SYMBOLS, frames("a", 10, 10))),
            hasty.symbols,
            lambda: hasty.bars("AAPL", 10**9, 1),
        ):
            with pytest.raises(StoreUnavailableError) as raised:
                ask()
            assert PASSWORD not in str(raised.value)
        mortal_server.start()
        store.write(step(SYMBOLS, frames("a", 10, 10)))
        assert reader.symbols() == totals(20)
        with open_store(url) as late, pytest.raises(StoreClaimedError):
            late.claim()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_whose_answer_is_lost_enters_once(url, kind, when):
    port = url.rpartition(":")[2].partition("/")[0]
    proxy = kind.proxy(int(port))
    with proxy, open_store(url.replace(port, str(proxy.port))) as store:
        store.write(step(SYMBOLS, frames("a", 0, 10)))
        proxy.cut_next_commit(when)
        store.write(step(SYMBOLS, frames("a", 10, 10)))
        assert proxy.cuts == 1
        assert store.symbols() == totals(20)
        assert store.position("a") == 20
        assert store.recount() == []


async def test_an_aggregator_serves_on_while_its_server_is_gone(mortal_server):
    url = mortal_server.new_url()
    async with aggregator(store=url) as service:
        health = health_pb2_grpc.HealthStub(service.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=STORE_HEALTH))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await service.send(message(0, [tick(100)], ["AAPL"]))
        mortal_server.kill()
        call = service.stub.StreamTickBatches()
        await call.write(message(1, [tick(101)], ["AAPL"]))
        acknowledged = asyncio.ensure_future(call.read())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        request = marketdata_pb2.AggregateRequest(symbol="AAPL")
        assert (await service.stub.GetAggregate(request)).volume == 2
        assert not acknowledged.done()
        mortal_server.start()
        assert (await acknowledged).next_sequence == 2
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await call.done_writing()
        watch.cancel()
    with open_history(url) as reader:
        assert [each.trade_count for each in reader.symbols()] == [2]
        assert reader.recount() == []


async def test_an_aggregator_waits_for_a_server_that_is_not_there_yet(
    mortal_server, free_port, caplog
):
    url = mortal_server.new_url()
    mortal_server.kill()

    async def serve():
        async with aggregator(store=url, metrics_port=free_port) as service:
            assert await status("readyz") == 200
            await service.send(message(0, [tick(100)], ["AAPL"]))

    async def status(path):
        async with aiohttp.request("GET", f"http://127.0.0.1:{free_port}/{path}") as response:
            return response.status

    serving = asyncio.create_task(serve())
    await asyncio.to_thread(wait_until, lambda: "; waiting for it" in caplog.text)
    assert (await status("livez"), await status("readyz"), await status("metrics")) == (
        200,
        503,
        200,
    )
    assert PASSWORD not in caplog.text
    mortal_server.start()
    await serving
    with open_history(url) as reader:
        assert [each.trade_count for each in reader.symbols()] == [1]


async def test_a_gateway_serves_the_history_of_a_server(url):
    with open_store(url) as store:
        store.write(step(SYMBOLS, frames("a", 0, 10)))
    async with gateway_of("127.0.0.1:1", store=url) as client:
        status, answer = await client.answer("/api/v1/symbols")
        assert status == 200
        assert [each["symbol"] for each in answer["data"]["available"]] == SYMBOLS
        status, answer = await client.answer("/api/v1/trades/AAPL?limit=3")
        assert status == 200
        assert [each["volume"] for each in answer["data"]["data"]] == ["2", "7", "5"]


def test_without_its_client_the_extra_is_named(name, kind):
    script = (
        "import sys; sys.modules.update(psycopg=None, pymongo=None)\n"
        "from mdtool.adapters.stores import open_store\n"
        f"open_store('{name}://localhost/market')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "ConfigError" in done.stderr
    assert f"pip install 'mdtool[{kind.extra}]'" in done.stderr
