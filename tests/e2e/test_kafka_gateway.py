"""Gateways in front of Kafka: any number, each with all that aggregators have committed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal

from tests.support.commands import completed
from tests.support.gateways import gateway_of
from tests.support.kafka_brokers import kafka_broker
from tests.support.kafka_topics import (
    NOON_NS,
    Topics,
    bars_of,
    sessions_of,
    url_of,
    write_ticks,
)
from tests.support.services import service
from tests.support.waiting import bounded

TICKS = 40_000


async def until_volume(client, symbol: str, volume: int) -> dict:
    """Follow a symbol until its volume is so high; return the aggregate."""
    async with client.ws_connect(f"/ws/marketdata?symbol={symbol}") as socket:
        async for message in socket:
            aggregate = json.loads(message.data)
            if "error" not in aggregate and aggregate["volume"] >= volume:
                return aggregate
    raise AssertionError("the socket was closed")


async def until_status(client, status: str) -> None:
    """Ask for the gateway's health until it is so."""
    while (await client.answer("/health"))[1]["status"] != status:  # noqa: ASYNC110 - HTTP
        await asyncio.sleep(0.02)


@contextlib.contextmanager
def stack(url, aggregators=2):
    """An ingest server's address, and aggregators."""
    with contextlib.ExitStack() as running:
        options = ("--port", 0, "--bus", url)
        address = running.enter_context(service("serve-tcp", *options)).address
        one_of = [
            running.enter_context(service("aggregate", *options, "--session-ms", 1_500))
            for _ in range(aggregators)
        ]
        yield address, one_of


def send(path, address) -> None:
    ended = completed("send", path, address)
    assert ended.returncode == 0, ended.stderr.decode()


async def test_all_gateways_have_what_is_on_the_topics(kafka, tmp_path):
    url = url_of(kafka)
    unlimited = {"bus": url, "upstream_requests_per_s": 0}
    sent = write_ticks(tmp_path / "ticks.jsonl", TICKS)
    async with contextlib.AsyncExitStack() as clients:
        address, aggregators = clients.enter_context(stack(url))
        early = await clients.enter_async_context(gateway_of("127.0.0.1:1", **unlimited))
        await until_status(early, "ok")
        status, _ = await early.answer("/api/v1/marketdata/AAPL")
        assert status == 404
        await asyncio.to_thread(send, tmp_path / "ticks.jsonl", address)
        for symbol, session in sessions_of(sent).items():
            await until_volume(early, symbol, session[4])
        for aggregator in aggregators:
            aggregator.end(signal.SIGKILL)
        # One that comes later, when nobody aggregates, has the same.
        late = await clients.enter_async_context(gateway_of("127.0.0.1:1", **unlimited))
        await until_status(late, "ok")
        for symbol, (opened, high, low, close, volume, _) in sessions_of(sent).items():
            for client in (early, late):
                status, aggregate = await client.answer(f"/api/v1/marketdata/{symbol}")
                assert status == 200
                prices = [aggregate[name] for name in ("open", "high", "low", "close")]
                assert prices == [price / 10**9 for price in (opened, high, low, close)]
                assert aggregate["volume"] == str(volume)
                assert "stale" not in aggregate
                for interval, length_s in (("1s", 1), ("1m", 60), ("1h", 3_600)):
                    path = f"/api/v1/bars/{symbol}?interval={interval}&limit=1000"
                    expected = bars_of(sent[symbol], length_s)
                    async with bounded():
                        while await bars(client, path) != expected:
                            pass  # they are on a topic of their own
        before = NOON_NS // 10**6 + 30_000
        page = await bars(early, f"/api/v1/bars/AAPL?interval=1s&limit=5&before={before}")
        assert page == bars_of(sent["AAPL"], 1)[-30:-25]
        every = bars_of(sent["AAPL"], 1)
        assert len(every) == TICKS // 500
        status, _ = await early.answer("/api/v1/bars/AAPL?interval=2s")
        assert status == 400


async def bars(client, path):
    """The bars that are answered."""
    status, answer = await client.answer(path)
    assert status == 200, answer
    return answer["data"]


async def test_a_gateway_is_blocked_while_no_aggregator_runs(kafka, tmp_path):
    write_ticks(tmp_path / "ticks.jsonl", 1_000)
    url = url_of(kafka)
    with contextlib.ExitStack() as running:
        address, (aggregator,) = running.enter_context(stack(url, 1))
        async with gateway_of("127.0.0.1:1", bus=url) as client:
            await until_status(client, "ok")
            aggregator.end(signal.SIGKILL)
            await asyncio.to_thread(send, tmp_path / "ticks.jsonl", address)
            await until_status(client, "blocked")
            _, report = await client.answer("/health")
            assert "no aggregator has read a partition's ticks" in report["aggregator"]["message"]
            running.enter_context(service("aggregate", "--port", 0, "--bus", url))
            await until_status(client, "ok")


async def test_a_gateway_reports_an_unavailable_broker(tmp_path):
    write_ticks(tmp_path / "ticks.jsonl", 1_000)
    folder = tmp_path / "broker"
    folder.mkdir()
    with kafka_broker(folder) as broker:
        url = url_of(broker)
        with stack(url, 1) as (address, _):
            await asyncio.to_thread(send, tmp_path / "ticks.jsonl", address)
            with Topics(url) as topics:
                await asyncio.to_thread(topics.wait, 1_000)
            async with gateway_of("127.0.0.1:1", bus=url) as client:
                await until_status(client, "ok")
                await asyncio.to_thread(broker.kill)
                await until_status(client, "stale")
                status, aggregate = await client.answer("/api/v1/marketdata/AAPL")
                assert (status, aggregate["stale"]) == (200, True)
                await asyncio.to_thread(broker.start)
                await until_status(client, "ok")
                _, aggregate = await client.answer("/api/v1/marketdata/AAPL")
                assert "stale" not in aggregate


def test_a_gateway_does_not_start_without_kafka():
    ended = completed("gateway", "--port", 0, "--bus", "kafka://127.0.0.1:1?wait_s=1")
    assert ended.returncode == 3
    assert b"kafka 127.0.0.1:1: cannot be reached" in ended.stderr
