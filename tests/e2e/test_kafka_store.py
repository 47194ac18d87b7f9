"""`store --bus`: every trade on Kafka is stored once, by its partition and offset."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import pytest

from mdtool.adapters.stores import open_history
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.store.bus import BusStore
from tests.support.commands import completed
from tests.support.kafka_topics import Topics, sending, sessions_of, url_of, write_ticks
from tests.support.postgres_servers import postgres_server
from tests.support.services import running, service
from tests.support.stores import STORES
from tests.support.waiting import wait_until

TICKS = 20_000


@contextlib.contextmanager
def storing(bus, store):
    """`store --bus`, which listens nowhere."""
    with service("store", "--bus", bus, "--store", store) as running:
        yield running


def totals_in(store):
    with open_history(store) as history:
        return {totals.symbol: totals.trade_count for totals in history.symbols()}


def check_totals(store, sent):
    """Check that totals are those of what was sent, and sessions, bars and totals of the trades."""
    expected = sessions_of(sent)
    assert totals_in(store) == {symbol: session[5] for symbol, session in expected.items()}
    checked = completed("store", "check", "--store", store)
    assert checked.returncode == 0, checked.stdout.decode()


def until(store, count):
    """Look at the store until it has so many trades."""
    wait_until(lambda: sum(totals_in(store).values()) >= count)


@pytest.mark.slow
def test_every_trade_is_stored_once_whatever_is_killed(kafka, tmp_path, free_port):
    sent = write_ticks(tmp_path / "ticks.jsonl", TICKS)
    bus, store = url_of(kafka), f"sqlite:///{tmp_path}/trades.db"
    with contextlib.ExitStack() as stack:
        serve_tcp = ("serve-tcp", "--port", free_port, "--bus", bus)
        ingest = stack.enter_context(service(*serve_tcp))
        keeper = stack.enter_context(storing(bus, store))
        stack.enter_context(sending(tmp_path / "ticks.jsonl", ingest.address, TICKS, 8_000))
        until(store, TICKS // 5)
        keeper.end(signal.SIGKILL)
        ingest.end(signal.SIGKILL)
        stack.enter_context(service(*serve_tcp))
        keeper = stack.enter_context(storing(bus, store))
        until(store, TICKS // 2)
        keeper.end(signal.SIGKILL)
        keeper = stack.enter_context(storing(bus, store))
        until(store, TICKS)
        status, said = keeper.end(signal.SIGTERM)
        assert status == 0, said
    check_totals(store, sent)
    with open_history(store) as history:
        for symbol, ticks in sent.items():
            kept = [
                (price // 10**7, volume, at_ns)
                for page in history.trades(symbol)
                for price, volume, at_ns in zip(
                    page.trades.price.tolist(),
                    page.trades.size.tolist(),
                    page.trades.ts_event.tolist(),
                    strict=True,
                )
            ]
            assert sorted(kept) == sorted(ticks)


@pytest.mark.parametrize("name", sorted(STORES.keys() - {"sqlite"}))
def test_a_database_has_every_trade_once_though_its_writer_is_killed(kafka, name, tmp_path):
    count = 1_500
    sent = write_ticks(tmp_path / "ticks.jsonl", count)
    bus = url_of(kafka)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(STORES[name](tmp_path))()
        ingest = stack.enter_context(service("serve-tcp", "--port", 0, "--bus", bus))
        keeper = stack.enter_context(storing(bus, store))
        with sending(tmp_path / "ticks.jsonl", ingest.address, count, 1_000):
            until(store, count // 5)
            keeper.end(signal.SIGKILL)
            keeper = stack.enter_context(storing(bus, store))
        until(store, count)
        status, said = keeper.end(signal.SIGTERM)
        assert status == 0, said
        check_totals(store, sent)


def test_a_record_that_cannot_be_decoded_is_skipped(kafka, tmp_path):
    sent = write_ticks(tmp_path / "ticks.jsonl", 1_000)
    bus, store = url_of(kafka), f"sqlite:///{tmp_path}/trades.db"
    with service("serve-tcp", "--port", 0, "--bus", bus) as ingest, storing(bus, store) as keeper:
        with Topics(bus) as topics:
            topics.produce("ticks", b"poison")
        with sending(tmp_path / "ticks.jsonl", ingest.address, 1_000, 0):
            pass
        until(store, 1_000)
        _, said = keeper.end(signal.SIGTERM)
        assert "offset 0: skipped: " in said
    assert totals_in(store) == {symbol: len(ticks) for symbol, ticks in sent.items()}


def test_a_store_rejects_a_recreated_topic(kafka, tmp_path):
    write_ticks(tmp_path / "ticks.jsonl", 1_000)
    bus, store = url_of(kafka), f"sqlite:///{tmp_path}/trades.db"
    with service("serve-tcp", "--port", 0, "--bus", bus) as ingest, storing(bus, store):
        assert completed("send", tmp_path / "ticks.jsonl", ingest.address).returncode == 0
        until(store, 1_000)
    with Topics(bus) as topics:
        topics.remake("ticks", 3, "delete")
        for number in range(60):  # its offsets alone would not tell it from the one before
            topics.produce("ticks", b"more", partition=number % 3)
    ended = completed("store", "--bus", bus, "--store", store)
    assert ended.returncode == 1
    assert "was recreated since its trades were stored; name another store" in ended.stderr.decode()


def test_a_store_that_another_process_uses_is_rejected(kafka, tmp_path):
    bus, store = url_of(kafka), f"sqlite:///{tmp_path}/trades.db"
    with storing(bus, store):
        second = completed("store", "--bus", bus, "--store", store)
    assert second.returncode == 3
    assert "trades.db" in second.stderr.decode()


async def test_a_server_that_is_not_there_yet_is_waited_for(kafka, caplog):
    async def store():
        async with running(BusStore(url_of(kafka), url, AggregatorConfig())):
            return True

    with postgres_server() as server:
        url = server.new_url()
        server.kill()
        stopped, storing = (asyncio.create_task(store()) for _ in range(2))
        await asyncio.to_thread(wait_until, lambda: caplog.text.count("; waiting for it") == 2)
        stopped.cancel()
        await asyncio.wait({stopped})
        assert stopped.cancelled()
        server.start()
        assert await storing


@pytest.mark.parametrize("more", [["file.dbn"], ["--stream-id", "name"]])
def test_a_bus_excludes_input(more):
    ended = completed("store", "--bus", "kafka://127.0.0.1:1", *more)
    assert ended.returncode == 2
    assert "takes the place" in ended.stderr.decode()
