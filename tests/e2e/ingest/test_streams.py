"""Clients that open with a Hello: what was committed is not asked for again."""

from __future__ import annotations

from mdtool.core.addresses import parse_address
from mdtool.wire.frames import Ack, Resume, encode_hello
from tests.support.ingest_servers import Client, frame, frames, serving


async def test_a_hello_is_answered_with_the_position_and_then_commits(address, ledger):
    client = await Client.connect(address, hello="s")
    assert await client.reply() == Resume(0)
    client.writer.write(frames(2))
    await client.committed(2)
    assert ledger.prices("s") == [1, 2]
    ack = await client.finish(frame(price=0))
    assert ack == Ack(
        True, "Accepted 2 ticks, refused 1 (1 price); stream 's' is committed up to 3"
    )


async def test_a_client_may_send_behind_its_hello_without_waiting(address, ledger):
    client = await Client.connect(address, hello="s")
    ack = await client.finish(frames(3))
    assert ack == Ack(True, "Accepted 3 ticks, refused 0; stream 's' is committed up to 3")
    assert ledger.prices("s") == [1, 2, 3]


async def test_a_stream_resumes_where_it_was_committed(address, ledger):
    first = await Client.connect(address, hello="s")
    first.writer.write(frames(3))
    await ledger.when(lambda: ledger.count() == 3)
    first.vanish()
    second = await Client.connect(address, hello="s")
    assert await second.reply() == Resume(3)
    await second.finish(frames(2, first=4))
    assert ledger.prices("s") == [1, 2, 3, 4, 5]


async def test_a_stream_resumes_at_another_server(aggregator, ledger):
    for k in range(3):
        async with serving(aggregator.address) as address:
            client = await Client.connect(parse_address(address), hello="s")
            assert await client.reply() == Resume(2 * k)
            client.writer.write(frames(2, first=2 * k + 1))
            await ledger.when(lambda k=k: ledger.count() == 2 * k + 2)
            client.vanish()
    assert ledger.prices("s") == [1, 2, 3, 4, 5, 6]


async def test_a_resume_waits_for_what_is_on_its_way(address, ledger):
    ledger.hold()
    first = await Client.connect(address, hello="s")
    assert await first.reply() == Resume(0)
    first.writer.write(frames(2))
    await ledger.when(lambda: ledger.batches == 1)
    second = await Client.connect(address, hello="s")
    taken_over = await first.last_reply()
    assert taken_over == Ack(False, "another connection has opened stream 's'")
    ledger.release()
    assert await second.reply() == Resume(2)
    await second.finish(frames(1, first=3))
    assert ledger.prices("s") == [1, 2, 3]
    assert ledger.duplicates == 0


async def test_a_hello_later_on_closes_the_connection(address, ledger):
    client = await Client.connect(address)
    client.writer.write(frames(1) + encode_hello("s"))
    ack = await client.last_reply()
    assert not ack.success
    assert "control frame" in ack.message
    await ledger.when(lambda: ledger.count() == 1)


async def test_a_client_that_never_reads_its_replies_costs_no_memory(address, ledger):
    client = await Client.connect(address, hello="s")
    client.reader._transport.pause_reading()
    for k in range(200):
        client.writer.write(frames(10, first=10 * k + 1))
        await ledger.when(lambda k=k: ledger.count() == 10 * k + 10)
    client.reader._transport.resume_reading()
    await client.committed(2_000)
