"""Services that start while Kafka is unavailable: they wait for it, and can be stopped."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
import pytest

from mdtool.adapters.stores import open_history
from mdtool.core.tcp import ReservedPort
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.kafka_aggregator import KafkaAggregator
from mdtool.services.ingest.config import IngestConfig
from mdtool.services.ingest.server import IngestServer
from mdtool.services.store.bus import BusStore
from mdtool.services.vwap.config import VwapConfig
from mdtool.services.vwap.server import VwapFeed
from tests.support.commands import completed
from tests.support.gateways import gateway_of
from tests.support.kafka_brokers import kafka_broker
from tests.support.kafka_topics import url_of, write_ticks
from tests.support.services import port_for, running
from tests.support.waiting import bounded, wait_until

TICKS = 1_000

SERVICES = {
    "serve-tcp": lambda bus, port, _: IngestServer(
        IngestConfig(port=0, bus=bus, metrics_port=port)
    ),
    "aggregate": lambda bus, port, _: KafkaAggregator(
        AggregatorConfig(port=0, bus=bus, metrics_port=port)
    ),
    "vwap": lambda bus, port, _: VwapFeed(VwapConfig(port=0, bus=bus, metrics_port=port)),
    "store": lambda bus, port, store: BusStore(bus, store, AggregatorConfig(), metrics_port=port),
}


async def status(port: int, path: str) -> int:
    """The status of an answer, once there is one."""
    async with bounded(), aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with session.get(f"http://127.0.0.1:{port}/{path}") as answer:
                    return answer.status
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_that_waits_is_alive_and_not_ready(name, request, free_port, tmp_path):
    bus = f"kafka://127.0.0.1:{port_for(request)}"
    service = SERVICES[name](bus, free_port, f"sqlite:///{tmp_path}/trades.db")
    started = asyncio.Event()
    task = asyncio.create_task(service.run(lambda _: started.set()))
    assert [await status(free_port, path) for path in ("livez", "readyz", "metrics")] == [
        200,
        503,
        200,
    ]
    task.cancel()
    async with bounded():
        await asyncio.wait({task})
    assert task.cancelled()
    assert not started.is_set()


async def test_a_gateway_that_waits_is_alive_and_not_ready(request, caplog):
    bus = f"kafka://127.0.0.1:{port_for(request)}"
    async with gateway_of("127.0.0.1:1", bus=bus) as client:
        await asyncio.to_thread(wait_until, lambda: "; waiting for it" in caplog.text)
        answers = {path: await client.answer(path) for path in ("/livez", "/readyz", "/health")}
        assert {path: code for path, (code, _) in answers.items()} == {
            "/livez": 200,
            "/readyz": 503,
            "/health": 503,
        }
        assert (await client.answer("/api/v1/marketdata/AAPL"))[0] == 503
        assert (await client.answer("/api/v2/bars/AAPL"))[0] == 503
    assert caplog.text.count("; waiting for it") == 1


async def test_all_services_resume_once_kafka_is_there(tmp_path):
    write_ticks(tmp_path / "ticks.jsonl", TICKS)
    folder, store = tmp_path / "broker", f"sqlite:///{tmp_path}/trades.db"
    folder.mkdir()
    with contextlib.ExitStack() as held, kafka_broker(folder) as broker:
        broker.kill()
        bus = url_of(broker).replace("&wait_s=60", "")
        ports = {name: held.enter_context(ReservedPort("127.0.0.1")).port for name in SERVICES}
        async with contextlib.AsyncExitStack() as stack:
            starting = {
                name: asyncio.create_task(
                    stack.enter_async_context(running(make(bus, ports[name], store)))
                )
                for name, make in SERVICES.items()
            }
            client = await stack.enter_async_context(gateway_of("127.0.0.1:1", bus=bus))
            assert [await status(port, "readyz") for port in ports.values()] == [503] * 4
            await asyncio.to_thread(broker.start)
            services = {name: await task for name, task in starting.items()}
            assert [await status(port, "readyz") for port in ports.values()] == [200] * 4
            address = services["serve-tcp"].addresses["tcp"]
            sent = await asyncio.to_thread(completed, "send", tmp_path / "ticks.jsonl", address)
            assert sent.returncode == 0, sent.stderr.decode()
            async with bounded():
                while (await client.answer("/health"))[1]["ticks"] != TICKS:
                    pass
            await asyncio.to_thread(wait_until, lambda: stored(store) == TICKS)


def stored(url: str) -> int:
    """How many trades a store has."""
    with open_history(url) as history:
        return sum(each.trade_count for each in history.symbols())
