"""The VWAP feed of ticks on Kafka: every trade is in its window once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from fractions import Fraction

import pytest

from mdtool.core.errors import StartupError
from tests.e2e.test_kafka_store import storing, until
from tests.support.commands import completed
from tests.support.kafka_brokers import kafka_broker
from tests.support.kafka_topics import sending, url_of, write_ticks
from tests.support.services import logged, service
from tests.support.vwap_feeds import connected, vwap_feed
from tests.support.waiting import bounded

TICKS = 10_000


@pytest.fixture
def said():
    with logged("mdtool.services.vwap", logging.DEBUG) as log:
        yield log


def exactly(ticks) -> float:
    """The VWAP of all ticks, to the nearest 1e-9."""
    notional = sum(cents * 10**7 * volume for cents, volume, _ in ticks)
    return round(Fraction(notional, sum(volume for _, volume, _ in ticks))) / 10**9


async def check(address, sent, times=1) -> None:
    """Every symbol's window has all that was sent, as often as it was."""
    async with connected(address) as client:
        for symbol, ticks in sent.items():
            client.say(f"SUBSCRIBE {symbol}")
            state = await client.until(symbol=symbol, window=times * len(ticks))
            assert state["vwap"] == exactly(ticks)


async def test_ticks_that_are_produced_again_are_in_windows_once(kafka, tmp_path, said, free_port):
    bus = url_of(kafka)
    sent = write_ticks(tmp_path / "ticks.jsonl", TICKS)
    with contextlib.ExitStack() as stack:
        serve_tcp = ("serve-tcp", "--port", free_port, "--bus", bus)
        ingest = stack.enter_context(service(*serve_tcp))
        async with vwap_feed("127.0.0.1:1", bus=bus, window="1000000") as address:
            await said.heard("connected")
            path = tmp_path / "ticks.jsonl"
            process = stack.enter_context(sending(path, ingest.address, TICKS, 5_000))
            async with connected(address) as client, bounded():
                while (await client.next())["window"] < TICKS // 50:
                    pass
            ingest.end(signal.SIGKILL)
            stack.enter_context(service(*serve_tcp))
            await check(address, sent)
            await asyncio.to_thread(process.wait)


async def test_windows_are_filled_from_a_store_of_the_same_bus(kafka, tmp_path, said):
    bus, store = url_of(kafka), f"sqlite:///{tmp_path}/trades.db"
    sent = write_ticks(tmp_path / "ticks.jsonl", TICKS)
    path = tmp_path / "ticks.jsonl"
    with service("serve-tcp", "--port", 0, "--bus", bus) as ingest, storing(bus, store):
        assert completed("send", path, ingest.address).returncode == 0
        await asyncio.to_thread(until, store, TICKS)
        options = {"bus": bus, "store": store, "window": "1000000"}
        async with vwap_feed("127.0.0.1:1", **options) as address:
            await said.heard("windows restored")
            await check(address, sent)
            again = await asyncio.to_thread(completed, "send", path, ingest.address)
            assert again.returncode == 0
            await check(address, sent, times=2)


async def test_a_feed_resumes_when_the_broker_is_available(tmp_path, said):
    folder = tmp_path / "broker"
    folder.mkdir()
    sent = write_ticks(tmp_path / "ticks.jsonl", 1_000)
    path = tmp_path / "ticks.jsonl"
    with kafka_broker(folder) as broker:
        bus = url_of(broker)
        with service("serve-tcp", "--port", 0, "--bus", bus) as ingest:
            async with vwap_feed("127.0.0.1:1", bus=bus, window="1000000") as address:
                await said.heard("connected")
                await asyncio.to_thread(broker.kill)
                await said.heard("trying again")
                await asyncio.to_thread(broker.start)
                await said.heard("connected")
                send = await asyncio.to_thread(completed, "send", path, ingest.address)
                assert send.returncode == 0, send.stderr.decode()
                await check(address, sent)


async def test_a_feed_does_not_start_without_kafka():
    with pytest.raises(StartupError, match="cannot be reached"):
        async with vwap_feed("127.0.0.1:1", bus="kafka://127.0.0.1:1?wait_s=1"):
            pass
