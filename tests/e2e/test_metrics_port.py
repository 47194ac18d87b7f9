"""Metrics of services without HTTP: at a port of their own, and off unless it is named."""

from __future__ import annotations

import contextlib
import socket

import aiohttp
import grpc.aio
import pytest

from mdtool.adapters import rpc
from mdtool.core.config import variable
from mdtool.core.descriptors import shortage
from mdtool.core.errors import StartupError
from mdtool.core.lifecycle import stop
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.server import Aggregator
from mdtool.services.alerts.config import DetectConfig
from mdtool.services.alerts.service import Detection
from mdtool.services.ingest.config import IngestConfig
from mdtool.services.ingest.server import IngestServer
from mdtool.services.vwap.config import VwapConfig
from mdtool.services.vwap.server import VwapFeed
from mdtool.wire._pb.tick_pb2 import Tick
from tests.support.aggregators import NOON_NS, aggregator, message, tick
from tests.support.feed_sources import followers_of_trades
from tests.support.services import running
from tests.support.vwap_feeds import connected
from tests.support.waiting import bounded

SERVICES = {
    "serve-tcp": (IngestServer, IngestConfig),
    "aggregate": (Aggregator, AggregatorConfig),
    "vwap": (VwapFeed, VwapConfig),
    "detect": (lambda config: Detection(config, lambda alert: None), DetectConfig),
}


def service(name, metrics_port, upstream):
    make, config = SERVICES[name]
    options = {} if name == "aggregate" else {"aggregator": upstream}
    if name != "detect":
        options["port"] = 0
    return make(config(metrics_port=metrics_port, **options))


@pytest.fixture
async def upstream():
    async with aggregator() as market:
        yield market.address


async def scraped(address, accept="text/plain"):
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{address}/metrics", headers={"Accept": accept}) as response,
    ):
        assert response.status == 200
        return response.content_type, await response.text()


@pytest.mark.parametrize("name", SERVICES)
async def test_each_service_counts_pauses_and_its_process(name, upstream):
    async with bounded(), running(service(name, 0, upstream)) as (addresses, _):
        kind, text = await scraped(addresses["metrics"])
        assert kind == "text/plain"
        assert f"mdtool_accept_pauses_total {float(shortage.pauses)}" in text.splitlines()
        assert "process_open_fds" in text
        kind, text = await scraped(addresses["metrics"], "application/openmetrics-text")
        assert kind == "application/openmetrics-text"
        assert text.endswith("# EOF\n")


@pytest.mark.parametrize(("name", "path"), [("serve-tcp", "ticks"), ("vwap", "vwap")])
async def test_connections_are_counted(name, path, upstream):
    async with bounded(), running(service(name, 0, upstream)) as (addresses, _):
        with contextlib.closing(socket.create_connection(addresses["tcp"].split(":"))):
            counted = f'mdtool_sockets{{path="{path}"}} 1.0'
            while counted not in (await scraped(addresses["metrics"]))[1].splitlines():
                pass


async def test_an_aggregator_counts_ticks():
    async with bounded(), aggregator(metrics_port=0) as market:
        await market.send(message(0, [tick(100), tick(200)], ["AAPL"]))
        _, text = await scraped(market.metrics_address)
        assert "mdtool_ticks_total 2.0" in text.splitlines()
        assert 'mdtool_ticks_refused_total{reason="symbol"} 0.0' in text.splitlines()
        assert 'mdtool_batch_ticks_bucket{le="1"} 0.0' in text.splitlines()
        assert 'mdtool_batch_ticks_bucket{le="4"} 1.0' in text.splitlines()
        assert "mdtool_batch_ticks_sum 2.0" in text.splitlines()
        assert "mdtool_streams 1.0" in text.splitlines()
        assert 'mdtool_sockets_opened_total{path="grpc"}' in text


async def test_detect_counts_alerts():
    with followers_of_trades() as followers:
        async with (
            bounded(),
            aggregator() as market,
            running(service("detect", 0, market.address)) as (addresses, _),
        ):
            await followers.acquire()
            await market.send(message(0, [tick(10**8), tick(101, at_s=3_600)], ["AAPL"]))
            counted, text = 'mdtool_alerts_total{kind="band",', ""
            while counted not in text:
                _, text = await scraped(addresses["metrics"])


@pytest.mark.parametrize("name", SERVICES)
async def test_the_port_answers_probes_at_the_host_that_is_set(name, upstream, monkeypatch):
    monkeypatch.setenv("MDTOOL_METRICS_HOST", "127.0.0.2")
    async with bounded(), running(service(name, 0, upstream)) as (addresses, _):
        assert addresses["metrics"].startswith("127.0.0.2:")
        probe = f"http://{addresses['metrics']}/livez"
        async with aiohttp.ClientSession() as session, session.get(probe) as response:
            assert (response.status, await response.json()) == (200, {"status": "ok"})


async def test_a_vwap_feed_that_drains_is_not_ready_and_serves_on(upstream, monkeypatch):
    monkeypatch.setenv(variable("stop", "drain_s"), "600")
    async with bounded(), running(service("vwap", 0, upstream)) as (addresses, task):
        probe = f"http://{addresses['metrics']}/readyz"
        async with aiohttp.ClientSession() as session, connected(addresses["tcp"]) as early:
            assert (await session.get(probe)).status == 200
            stop(task)
            while (await session.get(probe)).status == 200:
                pass
            async with grpc.aio.insecure_channel(upstream) as channel:
                ticks = [Tick(symbol="AAPL", price=1.5, volume=1, exchange_timestamp=NOON_NS)]
                await rpc.Stub(channel).StreamTicks(iter(ticks))
            await early.until(symbol="AAPL", price=1.5)
            async with connected(addresses["tcp"]) as late:
                await late.until(symbol="AAPL", price=1.5)
            task.cancel()  # nobody waits for it any more
            with pytest.raises(AssertionError, match="closed the connection"):
                await early.next()


@pytest.mark.parametrize("name", SERVICES)
async def test_a_port_in_use_is_one_line(name, upstream):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"port {port} .* in use; .* --metrics-port"):
            async with bounded(), running(service(name, port, upstream)):
                pass


@pytest.mark.parametrize("name", SERVICES)
async def test_no_port_is_open_unless_it_is_named(name, upstream):
    async with bounded(), running(service(name, None, upstream)) as (addresses, _):
        assert "metrics" not in addresses
