"""The aggregator while its SQLite store cannot be written, and after that."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mdtool.adapters.rpc import STORE_HEALTH
from mdtool.adapters.stores import open_history
from mdtool.adapters.stores.errors import StoreFormatError
from mdtool.services.aggregator import storage
from mdtool.wire._pb import marketdata_pb2
from tests.e2e.test_sqlite_disks import Disk, mount
from tests.support.aggregators import aggregator, message, tick
from tests.support.waiting import bounded
from tests.support.watched_stores import WatchedStore

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
BATCH = 20_000
MAX_UNCOMMITTED = 50_000


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder))
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Let stores say soon that they are locked."""

    def opening(url):
        store = WatchedStore(url)
        store._connection._busy_s = 0.2
        return store

    monkeypatch.setattr(storage, "open_store", opening)


@contextlib.contextmanager
def locked(folder):
    """Another process writes, and does not come to an end."""
    with contextlib.closing(sqlite3.connect(folder / "m.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def taken_away(folder):
    """The folder is moved, as when a disk is taken off."""
    away = folder.with_name("away")
    folder.rename(away)
    yield
    away.rename(folder)


async def watched(service):
    """Watch the health of the store, which is well."""
    health = health_pb2_grpc.HealthStub(service.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service=STORE_HEALTH))
    assert (await watch.read()).status == SERVING
    return watch


def batch(number):
    """Ticks of a cent more each, so that bars and sessions tell them apart."""
    ticks = [tick(100 + number, at_s=number) for _ in range(BATCH)]
    return message(number * BATCH, ticks, ["AAPL"] if number == 0 else [])


async def check_outage(folder, outage, service):
    """Send through an outage; see that nothing is acknowledged in it, and all is kept after it."""
    watch = await watched(service)
    call = service.stub.StreamTickBatches()
    await call.write(batch(0))
    assert (await call.read()).next_sequence == BATCH
    with outage:

        async def send():
            for number in range(1, 8):
                await call.write(batch(number))
            await call.done_writing()

        sending = asyncio.ensure_future(send())
        acknowledged = asyncio.ensure_future(call.read())
        assert (await watch.read()).status == NOT_SERVING
        request = marketdata_pb2.AggregateRequest(symbol="AAPL")
        async with bounded():
            while (taken := (await service.stub.GetAggregate(request)).volume) < 4 * BATCH:
                pass
        assert taken <= BATCH + MAX_UNCOMMITTED + BATCH
        assert not acknowledged.done()
    assert (await acknowledged).next_sequence <= 8 * BATCH
    assert (await watch.read()).status == SERVING
    await sending
    last = (await acknowledged).next_sequence
    while (ack := await call.read()) is not grpc.aio.EOF:
        last = ack.next_sequence
    assert last == 8 * BATCH
    watch.cancel()
    check_kept(folder, 8)


def check_kept(folder, batches):
    with open_history(f"sqlite:///{folder}/m.db") as history:
        assert history.symbols()[0].trade_count == batches * BATCH
        assert history.recount() == []
        bars = history.bars("AAPL", 10**9, 100)
        assert bars["count"].tolist() == [BATCH] * (batches - 1)  # the newest is open


@pytest.mark.parametrize("outage", [locked, taken_away])
async def test_an_outage_blocks_senders_and_loses_nothing(outage, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    store = f"sqlite:///{folder}/m.db"
    async with aggregator(store=store, max_uncommitted=MAX_UNCOMMITTED) as service:
        await check_outage(folder, outage(folder), service)


@contextlib.contextmanager
def full(disk):
    disk.fill()
    yield
    disk.free()


async def test_a_full_disk_blocks_senders_and_loses_nothing(disk):
    store = f"sqlite:///{disk.folder}/m.db"
    async with aggregator(store=store, max_uncommitted=MAX_UNCOMMITTED) as service:
        await check_outage(disk.folder, full(disk), service)


async def test_a_read_only_disk_stores_nothing_until_it_can_be_written(disk):
    store = f"sqlite:///{disk.folder}/m.db"
    async with aggregator(store=store) as service:
        await service.send(batch(0))
    disk.remount("ro")
    ended = await asyncio.to_thread(run, "--store", store)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"mdtool: sqlite {disk.folder}/m.db: ")
    disk.remount("rw")
    async with aggregator(store=store) as service:
        await service.send(batch(0), batch(1))
    check_kept(disk.folder, 2)


async def test_a_store_that_is_replaced_ends_the_service(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()

    async def serve():
        async with aggregator(store=f"sqlite:///{folder}/m.db") as service:
            await service.send(batch(0))
            folder.rename(tmp_path / "away")
            folder.mkdir()
            shutil.copy(tmp_path / "other.db", folder / "m.db")
            with pytest.raises(grpc.aio.AioRpcError):
                await service.send(message(BATCH, [tick(1)], ["AAPL"]))
            await asyncio.wait({service.task})

    async with aggregator(store=f"sqlite:///{tmp_path}/other.db"):
        pass
    with pytest.raises(Exception, match="another store was put in its place"):
        await serve()
    check_kept(tmp_path / "away", 1)


def position(service, stream_id):
    request = marketdata_pb2.StreamPositionRequest(stream_id=stream_id)
    return service.stub.GetStreamPosition(request)


async def test_a_position_in_an_outage_is_unavailable_and_logged_once(tmp_path, caplog):
    caplog.set_level("INFO")
    folder = tmp_path / "data"
    folder.mkdir()
    async with aggregator(store=f"sqlite:///{folder}/m.db") as service:
        watch = await watched(service)
        with taken_away(folder):
            for _ in range(3):
                with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
                    await position(service, "other")
            assert (await watch.read()).status == NOT_SERVING
        assert (await watch.read()).status == SERVING  # by itself
        assert not (await position(service, "other")).known
        watch.cancel()
    said = [record.message for record in caplog.records if "no folder" in record.message]
    assert len(said) == 1, said


async def test_a_store_that_is_overwritten_ends_the_service(tmp_path):
    async def serve():
        async with aggregator(store=f"sqlite:///{tmp_path}/m.db") as service:
            for path in tmp_path.glob("m.db*"):
                path.rename(tmp_path / f"away-{path.name}")
            with contextlib.closing(sqlite3.connect(tmp_path / "m.db")) as other:
                other.execute("CREATE TABLE accounts (number)")
            with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
                await position(service, "other")
            await asyncio.wait({service.task})

    with pytest.raises(StoreFormatError, match="is a SQLite file of another application"):
        await serve()


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "mdtool", "aggregate", "--port", "0", *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=200,
    )


def newer(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 1000")


def torn(path):
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 4000)


@pytest.mark.parametrize(("damage", "said"), [(newer, "is of schema 1000"), (torn, "m.db")])
async def test_a_store_that_cannot_be_used_is_not_retried(damage, said, tmp_path):
    path = tmp_path / "m.db"
    async with aggregator(store=f"sqlite:///{path}") as service:
        await service.send(batch(0))
    damage(path)
    ended = await asyncio.to_thread(run, "--store", f"sqlite:///{path}")
    assert ended.returncode == 3
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("mdtool: ")]
    assert said in line


async def test_a_store_that_is_unavailable_is_retried(tmp_path):
    ended = await asyncio.to_thread(run, "--store", f"sqlite:///{tmp_path}/no/folder/m.db")
    assert ended.returncode == 1
    assert "no folder" in ended.stderr


async def test_a_url_that_names_no_store_is_wrong_usage():
    ended = await asyncio.to_thread(run, "--store", "mysql://db")
    assert ended.returncode == 2
    assert "mysql: no such store" in ended.stderr
