"""Channels to services, and the proxies that an environment names."""

from __future__ import annotations

import asyncio
import random

import grpc
import pytest

from mdtool.adapters import rpc
from mdtool.adapters.aggregator import AggregatorClient
from mdtool.core.addresses import parse_address
from mdtool.core.config import variable
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.server import Aggregator
from mdtool.wire._pb import marketdata_pb2
from tests.reference.market_source import MarketSource
from tests.support.descriptors import no_descriptor_left
from tests.support.services import running
from tests.support.waiting import bounded

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")


class Proxy:
    """A proxy that notes the first line of each request, and closes its connection."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(self, reader, writer):
        self.requests.put_nowait(await reader.readline())
        writer.close()


@pytest.fixture
async def proxy(monkeypatch, no_settings):
    proxy = Proxy()
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        for name in PROXIES:
            monkeypatch.setenv(name, f"http://{host}:{port}")
            monkeypatch.setenv(name.upper(), f"http://{host}:{port}")
        for name in ("no_proxy", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield proxy


async def position(address: str) -> int:
    async with rpc.open_channel(address) as channel:
        request = marketdata_pb2.StreamPositionRequest(stream_id="s")
        reply = await rpc.Stub(channel).GetStreamPosition(request)
    return reply.next_sequence


@pytest.mark.parametrize("may_use", ["false", "true"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_no_proxy_stands_before_loopback(proxy, monkeypatch, host, may_use):
    monkeypatch.setenv(variable("connect", "use_proxy"), may_use)
    async with running(Aggregator(AggregatorConfig(port=0))) as service:
        _, _, port = service.addresses["grpc"].rpartition(":")
        await position(f"{host}:{port}")
    assert proxy.requests.empty()


async def test_a_proxy_stands_between_services_only_where_that_is_configured(proxy, monkeypatch):
    with pytest.raises(grpc.aio.AioRpcError):
        await position("aggregate.invalid:50051")
    assert proxy.requests.empty()
    monkeypatch.setenv(variable("connect", "use_proxy"), "true")
    with pytest.raises(grpc.aio.AioRpcError):
        await position("aggregate.invalid:50051")
    assert (await proxy.requests.get()).startswith(b"CONNECT aggregate.invalid:50051 ")


async def test_a_service_that_answers_late_is_reached():
    async def relay(reader, writer):
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    async def forward(reader, writer):
        await asyncio.sleep(0.5)  # longer than the longest delay between attempts
        far = await asyncio.open_connection(*parse_address(service.addresses["grpc"]))
        await asyncio.gather(relay(reader, far[1]), relay(far[0], writer))

    async with (
        running(Aggregator(AggregatorConfig(port=0))) as service,
        await asyncio.start_server(forward, "127.0.0.1", 0) as server,
    ):
        host, port = server.sockets[0].getsockname()
        async with bounded():
            assert await position(f"{host}:{port}") == 0


async def test_without_descriptors_a_call_fails_with_one_readable_line(caplog, free_port):
    async with rpc.open_channel(f"127.0.0.1:{free_port}") as channel:
        call = rpc.Stub(channel).GetStreamPosition
        request = marketdata_pb2.StreamPositionRequest(stream_id="s")
        with no_descriptor_left(), pytest.raises(grpc.aio.AioRpcError) as failed:
            await call(request)
    assert rpc.reason(failed.value).endswith(": Too many open files")
    assert caplog.records == []


async def test_no_cancellation_is_lost_where_a_call_fails_at_the_same_moment(no_settings):
    chance = random.Random(1)
    cancelled = 0
    async with MarketSource().serving() as source, AggregatorClient(source.address) as client:
        for _ in range(1_000):
            following = asyncio.create_task(client.follow_trades(id, id))
            for _ in range(chance.randrange(60)):
                await asyncio.sleep(0)
            ends_as_cancelled = following.cancel()
            await asyncio.wait([following])
            assert following.cancelled() == ends_as_cancelled
            cancelled += ends_as_cancelled
    assert 0 < cancelled < 1_000
