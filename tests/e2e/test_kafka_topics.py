"""Topics that change while services use them: the services report it or resume."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal

import pytest

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.stream_positions import StreamPositions, encode_position
from mdtool.adapters.kafka.topics import describe, open_topics, watched
from mdtool.core.errors import PeerError
from tests.e2e.test_kafka_aggregate import aggregator
from tests.e2e.test_kafka_store import storing
from tests.support.commands import completed
from tests.support.kafka_proxies import KafkaProxy
from tests.support.kafka_topics import Topics, url_of, write_ticks
from tests.support.services import service
from tests.support.waiting import bounded, wait_until


def test_every_service_ends_when_a_topic_is_recreated(kafka, tmp_path):
    bus, store = url_of(kafka), f"sqlite:///{tmp_path}/trades.db"
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(service(command, "--port", 0, "--bus", bus))
            for command in ("serve-tcp", "aggregate", "vwap", "gateway")
        ]
        running.append(stack.enter_context(storing(bus, store)))
        with Topics(bus) as topics:
            topics.remake("dead-letters", 1, "delete")
            name = f"topic {topics.prefix}.dead-letters was deleted"
        for one in running:
            said = one.process.communicate(timeout=200)[1].decode()
            assert one.process.returncode == 1, said
            assert name in said


async def test_a_deleted_topic_is_reported(kafka):
    bus = url_of(kafka)
    topics = await asyncio.to_thread(open_topics, KafkaAddress.parse(bus))
    with Topics(bus) as there:
        await asyncio.to_thread(there.delete, "ticks")
    with pytest.raises(PeerError, match=r"ticks was deleted; restart"):
        async with watched(topics):
            await asyncio.Event().wait()


async def test_added_partitions_are_reported(kafka):
    bus = url_of(kafka)
    topics = await asyncio.to_thread(open_topics, KafkaAddress.parse(bus))
    with Topics(bus) as there:
        await asyncio.to_thread(there.grow, "ticks", 5)
    with pytest.raises(PeerError, match=r"ticks has 5 partitions now, not 3"):
        async with watched(topics):
            await asyncio.Event().wait()


async def test_unavailable_servers_do_not_end_the_watch(kafka, monkeypatch):
    looks, has_looked = 0, asyncio.Event()

    def noted(*arguments):
        nonlocal looks
        looks += 1
        if looks > 4:
            has_looked.set()
        return describe(*arguments)

    monkeypatch.setattr("mdtool.adapters.kafka.topics.describe", noted)
    monkeypatch.setattr("mdtool.adapters.kafka.topics._WATCH_S", 0.01)
    monkeypatch.setattr("mdtool.adapters.kafka.topics._WATCH_TIMEOUT_S", 0.1)
    topics = await asyncio.to_thread(open_topics, KafkaAddress.parse(url_of(kafka)))
    nowhere = KafkaAddress.parse("kafka://127.0.0.1:1")
    async with watched(type(topics)(nowhere, topics.partitions, topics.identities)):
        await has_looked.wait()


@pytest.mark.parametrize("refilled", [False, True])
def test_recreated_ticks_behind_their_aggregates_are_reported(kafka, tmp_path, refilled):
    write_ticks(tmp_path / "ticks.jsonl", 1_000)
    bus = url_of(kafka)
    options = ("--port", 0, "--bus", bus)
    with Topics(bus) as topics:
        with service("serve-tcp", *options) as ingest, aggregator(bus):
            assert completed("send", tmp_path / "ticks.jsonl", ingest.address).returncode == 0
            topics.wait(1_000)
        topics.remake("ticks", 3, "delete")
        if refilled:  # its offsets alone would not tell it from the one before
            for number in range(60):
                topics.produce("ticks", b"more", partition=number % 3)
    ended = completed("aggregate", *options)
    assert ended.returncode == 1
    assert "it was recreated; name another prefix" in ended.stderr.decode()


def test_incomplete_aggregates_are_reported(kafka):
    bus = url_of(kafka)
    with service("serve-tcp", "--port", 0, "--bus", bus), Topics(bus) as topics:
        totals = json.dumps({"offset": 1, "ticks": 7}).encode()
        topics.produce("aggregates", totals, key=b"t/", partition=1)
        name = f"partition 1 of {topics.prefix}.aggregates"
    ended = completed("aggregate", "--port", 0, "--bus", bus)
    assert ended.returncode == 1
    assert f"{name} lacks records; delete the topic" in ended.stderr.decode()


def test_aggregates_that_were_deleted_are_made_from_ticks_again(kafka, tmp_path):
    write_ticks(tmp_path / "ticks.jsonl", 1_000)
    bus = url_of(kafka)
    options = ("--port", 0, "--bus", bus)
    with service("serve-tcp", *options) as ingest:
        assert completed("send", tmp_path / "ticks.jsonl", ingest.address).returncode == 0
    for _ in range(2):
        with Topics(bus) as topics, aggregator(bus):
            topics.wait(1_000)
            topics.delete("aggregates")


def test_records_deleted_before_they_were_read_are_reported(kafka, tmp_path):
    write_ticks(tmp_path / "ticks.jsonl", 1_000)
    bus, store = url_of(kafka), f"sqlite:///{tmp_path}/trades.db"
    options = ("--port", 0, "--bus", bus)
    with contextlib.ExitStack() as stack, Topics(bus) as topics:
        ingest = stack.enter_context(service("serve-tcp", *options))
        member = stack.enter_context(service("aggregate", *options))
        keeper = stack.enter_context(storing(bus, store))
        assert completed("send", tmp_path / "ticks.jsonl", ingest.address).returncode == 0
        topics.wait(1_000)
        for one in (member, keeper):
            one.process.send_signal(signal.SIGSTOP)
        for number in range(30):
            topics.produce("ticks", b"x" * (1 << 20), partition=number % 3)
        topics.forget("ticks", 3)
        for one in (member, keeper):
            one.process.send_signal(signal.SIGCONT)
            assert any(b"are lost" in line for line in one.process.stderr)


def known(positions: StreamPositions, stream_id: str) -> int:
    """A stream's position, asked for until the servers have answered in time."""
    answers: list[int | None] = [None]

    def is_known() -> bool:
        answers.append(positions.position(stream_id))
        return answers[-1] is not None

    wait_until(is_known)
    return answers[-1]


def test_positions_are_0_once_their_records_have_expired(kafka):
    bus = url_of(kafka)
    address = KafkaAddress.parse(bus)
    open_topics(address)
    with Topics(bus) as topics, contextlib.closing(StreamPositions(address)) as before:
        key, value = encode_position("one", 5)
        topics.produce("streams", value, key=key)
        assert known(before, "one") == 5
        topics.forget("streams", 1)
        topics.produce("streams", value, key=b"two")
        topics.forget("streams", 1)
        with contextlib.closing(StreamPositions(address)) as after:
            assert known(after, "one") == 0
            topics.produce("streams", b"9", key=key)
            assert (known(before, "one"), known(after, "one")) == (9, 9)


async def test_a_position_does_not_wait_for_records_that_may_never_come(kafka):
    proxy = KafkaProxy(kafka.proxy_port, kafka.behind_port)
    bus = url_of(kafka).replace(kafka.address, kafka.proxied_address)
    address = KafkaAddress.parse(bus)
    async with proxy.open():
        await asyncio.to_thread(open_topics, address)
        proxy.may_fetch.clear()
        with contextlib.closing(StreamPositions(address)) as positions:
            async with bounded():
                while await asyncio.to_thread(positions.position, "one") is None:
                    pass  # the servers may not know their new topics yet
