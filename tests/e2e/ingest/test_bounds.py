"""Many clients, no aggregator, a slow one, a stop: nothing is lost, nothing piles up."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import aiohttp
import grpc
import pytest

from mdtool.adapters.bus import grpc as grpc_bus
from mdtool.core.addresses import parse_address
from mdtool.core.config import variable
from mdtool.core.errors import PeerError, StartupError, UsageError
from mdtool.core.lifecycle import stop
from mdtool.services.ingest.config import IngestConfig
from mdtool.services.ingest.intake import Intake
from mdtool.services.ingest.server import IngestServer
from mdtool.wire.frames import Ack, Resume
from tests.reference.aggregator import PlainAggregator
from tests.support.ingest_servers import Client, frame, frames, prices, send, serving
from tests.support.services import logged, running
from tests.support.waiting import bounded


async def test_many_slow_connections_make_few_batches(address, ledger, monkeypatch):
    taken, are_all_taken = 0, asyncio.Event()
    publish = Intake.publish

    def counted(intake, stream, published):
        nonlocal taken
        publish(intake, stream, published)
        taken += published.count
        if taken == 100:
            are_all_taken.set()

    monkeypatch.setattr(Intake, "publish", counted)
    ledger.hold()
    clients = [await Client.connect(address) for _ in range(100)]
    for k, client in enumerate(clients):
        client.writer.write(frame(price=k + 1))
    acks = [asyncio.create_task(client.finish()) for client in clients]
    await ledger.when(lambda: ledger.batches == 1)
    await are_all_taken.wait()
    ledger.release()
    for ack in await asyncio.gather(*acks):
        assert ack == Ack(True, "Accepted 1 tick, refused 0")
    assert sorted(prices(ledger)) == list(range(1, 101))
    assert ledger.batches < 50


async def test_a_thousand_connections_at_once(address, ledger):
    clients = await asyncio.gather(*(Client.connect(address) for _ in range(1_000)))
    for k, client in enumerate(clients):
        client.writer.write(frame(price=k + 1))
    await ledger.when(lambda: ledger.count() == 1_000)
    acks = await asyncio.gather(
        *(client.finish(frame(price=1_001 + k)) for k, client in enumerate(clients))
    )
    assert acks == [Ack(True, "Accepted 2 ticks, refused 0")] * 1_000
    assert sorted(prices(ledger)) == list(range(1, 2_001))


async def test_a_rejected_client_that_is_still_sending_reads_why(address, ledger):
    client = await Client.connect(address, hello="s")
    assert await client.reply() == Resume(0)
    client.writer.write(frames(2) + b"\xff" * 11)
    for _ in range(50):
        client.writer.write(bytes(100_000))
        await client.writer.drain()
    rejected = await client.last_reply()
    assert isinstance(rejected, Ack)
    assert not rejected.success
    async with bounded():
        await ledger.when(lambda: ledger.count() == 2)
    again = await Client.connect(address, hello="s")
    assert await again.reply() == Resume(2)


async def test_an_aggregator_that_comes_later_gets_everything(ledger):
    aggregator = PlainAggregator(ledger)
    async with serving(aggregator.address) as address:
        plain = asyncio.create_task(send(parse_address(address), frames(10)))
        named = await Client.connect(parse_address(address), hello="s")
        named.writer.write(frames(5))
        async with aggregator.serving():
            assert (await plain).success
            await named.committed(5)
    assert ledger.prices("s") == [1, 2, 3, 4, 5]
    assert ledger.count() == 15


async def test_an_aggregator_that_restarts_gets_each_tick_once(ledger):
    aggregator = PlainAggregator(ledger)
    async with contextlib.AsyncExitStack() as stack:
        async with aggregator.serving():
            address = parse_address(await stack.enter_async_context(serving(aggregator.address)))
            client = await Client.connect(address)
            client.writer.write(frames(10))
            await ledger.when(lambda: ledger.count() == 10)
            ledger.hold()
            client.writer.write(frames(10, first=11))
            await ledger.when(lambda: ledger.batches >= 2)
        ledger.release()
        async with aggregator.serving():
            assert (await client.finish(frames(5, first=21))).success
    assert prices(ledger) == list(range(1, 26))


async def test_readers_pause_when_nothing_is_committed(aggregator, ledger):
    """What is held is bounded: a client that goes on sending is blocked."""
    limit = 1_000
    async with serving(aggregator.address, max_uncommitted=limit) as address:
        ledger.hold()
        client = await Client.connect(parse_address(address))
        data = frames(10_000)
        repeats = 40  # 13 MB, beyond what two socket buffers hold
        writing = asyncio.create_task(_write_all(client, data, repeats))
        await ledger.when(lambda: ledger.batches == 1)
        # Somebody else finds the door closed as well, and gets through once there is room.
        other = asyncio.create_task(send(parse_address(address), frames(1)))
        assert not writing.done()
        ledger.release()
        await writing
        ack = await client.finish()
        assert ack.message == f"Accepted {repeats * 10_000} ticks, refused 0"
        assert (await other).success
    assert ledger.count() == repeats * 10_000 + 1
    assert prices(ledger).count(10_000) == repeats


async def _write_all(client, data, repeats):
    for _ in range(repeats):
        client.writer.write(data)
        await client.writer.drain()


async def test_a_stop_commits_what_was_taken_and_logs_it(aggregator, ledger):
    async with serving(aggregator.address) as address:
        plain = await Client.connect(parse_address(address))
        plain.writer.write(frames(3))
        named = await Client.connect(parse_address(address), hello="s")
        named.writer.write(frames(2))
        await named.committed(2)
        await ledger.when(lambda: ledger.count() == 5)
    assert await plain.last_reply() == Ack(
        False, "Accepted 3 ticks, refused 0, all of them committed; the server stops"
    )
    assert await named.last_reply() is None


async def test_an_aggregator_whose_name_is_unknown_is_reported_and_waited_for(monkeypatch):
    monkeypatch.setattr(grpc_bus, "_PATIENCE_S", 0.1)
    config = IngestConfig(aggregator="no-such-host.invalid:50051", port=0)
    with logged(grpc_bus.__name__) as log:
        async with bounded(), running(IngestServer(config)) as (addresses, task):
            await log.heard("aggregator no-such-host.invalid:50051 cannot be reached; ")
            client = await Client.connect(parse_address(addresses["tcp"]), hello="s")
            client.writer.write(frames(1))
            assert not task.done()


async def test_a_drain_serves_on_and_the_stop_ends_uploads_between_two_frames(
    aggregator, ledger, monkeypatch
):
    monkeypatch.setenv(variable("stop", "drain_s"), "600")
    config = IngestConfig(aggregator=aggregator.address, port=0, metrics_port=0)
    async with bounded(), running(IngestServer(config)) as (addresses, task):
        address = parse_address(addresses["tcp"])
        uploading = await Client.connect(address, hello="s")
        uploading.writer.write(frames(2))
        await uploading.committed(2)
        async with aiohttp.ClientSession(f"http://{addresses['metrics']}") as session:
            assert (await session.get("/readyz")).status == 200
            stop(task)
            while (await session.get("/readyz")).status == 200:
                pass
            assert (await session.get("/livez")).status == 200
        assert await send(address, frames(1)) == Ack(True, "Accepted 1 tick, refused 0")
        uploading.writer.write(frames(1, first=3) + frames(1, first=4)[:-1])
        await uploading.committed(3)
        task.cancel()  # nobody waits for it any more
        assert await uploading.last_reply() is None
    assert ledger.prices("s") == [1, 2, 3]


async def test_a_stop_before_the_commit_fails_and_informs_the_client(
    aggregator, ledger, monkeypatch
):
    monkeypatch.setattr("mdtool.services.ingest.server.SETTLE_S", 0.05)
    replies = []

    async def stop_too_early():
        async with serving(aggregator.address) as address:
            client = await Client.connect(parse_address(address))
            replies.append(asyncio.create_task(client.last_reply()))
            client.writer.write(frames(3))
            await ledger.when(lambda: ledger.batches == 1)

    ledger.hold()
    with pytest.raises(PeerError, match=r"3 ticks taken that aggregator .* has not committed"):
        await stop_too_early()
    assert await replies[0] == Ack(
        False, "Accepted 3 ticks, refused 0, not all of them committed; the server stops"
    )


async def test_a_stop_before_the_commit_is_no_loss_to_clients_that_resume(
    aggregator, ledger, monkeypatch, caplog
):
    monkeypatch.setattr("mdtool.services.ingest.server.SETTLE_S", 0.05)
    ledger.hold()
    async with serving(aggregator.address) as address:
        client = await Client.connect(parse_address(address), hello="s")
        client.writer.write(frames(3))
        await ledger.when(lambda: ledger.batches == 1)
    assert "stopped with 3 ticks taken" in caplog.text
    ledger.release()
    async with serving(aggregator.address) as address:
        client = await Client.connect(parse_address(address), hello="s")
        resume = await client.reply()
        await client.finish(frames(3)[len(frames(resume.next_sequence)) :])
    assert ledger.prices("s") == [1, 2, 3]


async def test_a_refusal_for_good_ends_the_server(aggregator, ledger, monkeypatch):
    """It would meet the same batch again; started anew, it asks its clients to resume."""
    monkeypatch.setattr("mdtool.services.ingest.server.SETTLE_S", 0.05)
    ledger.refusal = grpc.StatusCode.FAILED_PRECONDITION

    async def serve():
        async with serving(aggregator.address) as address:
            client = await Client.connect(parse_address(address))
            client.writer.write(frames(3))
            await client.last_reply()

    with pytest.raises(PeerError, match=r"aggregator .* refused \(failed_precondition\): told to"):
        await serve()


async def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = IngestServer(IngestConfig(port=port))
        with pytest.raises(StartupError, match=f"port {port} on 127.0.0.1 is in use"):
            await server.run(lambda _: None)


async def test_a_host_that_is_not_ours_cannot_be_listened_on():
    server = IngestServer(IngestConfig(host="192.0.2.1", auth="none", port=0))
    with pytest.raises(StartupError, match="cannot listen on"):
        await server.run(lambda _: None)


def test_an_aggregator_without_a_port_is_wrong_usage():
    with pytest.raises(UsageError, match="HOST:PORT"):
        IngestServer(IngestConfig(aggregator="localhost"))
