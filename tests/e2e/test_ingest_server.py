"""The ingest server over real sockets, before an aggregator that keeps a ledger."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from typing import ClassVar

import pytest

from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError, StartupError, UsageError
from mdtool.services.ingest.config import IngestConfig
from mdtool.services.ingest.server import IngestServer
from mdtool.wire._pb import tick_pb2
from mdtool.wire.control import Ack, Committed, ReplyDecoder, Resume, encode_hello
from mdtool.wire.frames import encode_frame
from mdtool.wire.ticks import Reason
from tests.reference.aggregator import PlainAggregator
from tests.reference.ledger import Ledger

NOW_NS = 1_735_201_234_567_000_000


def frame(symbol="AAPL", price=150.25, volume=100, exchange_timestamp=NOW_NS):
    """One Tick, as any client's protobuf library writes it."""
    tick = tick_pb2.Tick(
        symbol=symbol, price=price, volume=volume, exchange_timestamp=exchange_timestamp
    )
    return encode_frame(tick.SerializeToString())


def frames(count, first=1):
    """Ticks whose prices count up from `first`."""
    return b"".join(frame(price=first + k) for k in range(count))


@contextlib.asynccontextmanager
async def serving(aggregator, **settings):
    """Run an ingest server, and yield its address."""
    started = asyncio.get_running_loop().create_future()
    server = IngestServer(IngestConfig(port=0, aggregator=aggregator, **settings))
    task = asyncio.create_task(server.run(lambda at: started.set_result(at["tcp"])))
    await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    try:
        yield started.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def ledger():
    return Ledger()


@pytest.fixture
async def aggregator(ledger):
    plain = PlainAggregator(ledger)
    async with plain.serving():
        yield plain


@pytest.fixture
async def address(aggregator):
    async with serving(aggregator.address) as address:
        yield parse_address(address)


class Client:
    """A connection that reads replies one by one."""

    opened: ClassVar[list[Client]] = []

    def __init__(self, reader, writer) -> None:
        self.opened.append(self)
        self.reader, self.writer = reader, writer
        self._decoder = ReplyDecoder()
        self._replies = []

    @classmethod
    async def connect(cls, address, hello=None):
        client = cls(*await asyncio.open_connection(*address))
        if hello is not None:
            client.writer.write(encode_hello(hello))
        return client

    async def reply(self):
        """Return the next reply, None once the server has closed."""
        while not self._replies:
            data = await self.reader.read(1 << 16)
            if not data:
                assert self._decoder.pending_bytes == 0
                return None
            self._replies = self._decoder.feed(data)
        return self._replies.pop(0)

    async def last_reply(self):
        last = None
        while (reply := await self.reply()) is not None:
            last = reply
        return last

    async def committed(self, next_sequence):
        while await self.reply() != Committed(next_sequence):
            pass

    async def finish(self, data=b""):
        """Send the last bytes, close the sending half, and return the Ack."""
        self.writer.write(data)
        self.writer.write_eof()
        return await self.last_reply()

    def vanish(self) -> None:
        """Reset the connection, as the kernel does for a client that died."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.close()


@pytest.fixture(autouse=True)
async def no_client_stays_open():
    yield
    while Client.opened:
        writer = Client.opened.pop().writer
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def send(address, data):
    client = await Client.connect(address)
    return await client.finish(data)


def prices(ledger):
    """What the shared stream of plain clients brought."""
    (stream_id,) = ledger.frames
    return ledger.prices(stream_id)


async def test_ticks_are_committed_before_the_ack_says_so(address, ledger):
    assert await send(address, frames(3)) == Ack(True, "Accepted 3 ticks, refused 0")
    assert prices(ledger) == [1, 2, 3]


async def test_no_ticks_are_acknowledged_too(address, ledger):
    assert await send(address, b"") == Ack(True, "Accepted 0 ticks, refused 0")
    assert ledger.count() == 0


async def test_symbols_are_trimmed_and_upper_cased(address, ledger):
    await send(address, frame(symbol=" aapl ") + frame(symbol="Brk.b"))
    (symbols,) = ledger.symbols.values()
    assert symbols == {0: "AAPL", 1: "BRK.B"}


async def test_an_ack_waits_for_the_commit(address, ledger):
    ledger.hold()
    client = await Client.connect(address)
    finished = asyncio.create_task(client.finish(frames(2)))
    await ledger.when(lambda: ledger.batches == 1)
    assert not finished.done()
    ledger.release()
    assert await finished == Ack(True, "Accepted 2 ticks, refused 0")


async def test_frames_may_be_cut_anywhere(address, ledger):
    client = await Client.connect(address)
    for byte in frames(3):
        client.writer.write(bytes([byte]))
        await client.writer.drain()
    assert await client.finish() == Ack(True, "Accepted 3 ticks, refused 0")
    assert prices(ledger) == [1, 2, 3]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (frame(symbol=""), Reason.SYMBOL),
        (frame(symbol="  "), Reason.SYMBOL),
        (frame(symbol="A" * 71), Reason.SYMBOL),
        (frame(symbol="ÄPFEL"), Reason.SYMBOL),
        (frame(price=float("nan")), Reason.PRICE),
        (frame(price=float("inf")), Reason.PRICE),
        (frame(price=0.0), Reason.PRICE),
        (frame(price=-1.0), Reason.PRICE),
        (frame(price=1e300), Reason.PRICE),
        (frame(volume=0), Reason.VOLUME),
        (frame(volume=-5), Reason.VOLUME),
        (frame(exchange_timestamp=NOW_NS // 1_000_000), Reason.TIMESTAMP),
        (frame(exchange_timestamp=0), Reason.TIMESTAMP),
        (encode_frame(b"\xff\xff\xff"), Reason.MALFORMED),
    ],
)
async def test_a_tick_refused_is_counted_by_reason_and_the_stream_goes_on(
    address, ledger, bad, reason
):
    ack = await send(address, frame(price=1) + bad + frame(price=2))
    assert ack == Ack(True, f"Accepted 2 ticks, refused 1 (1 {reason.label})")
    assert prices(ledger) == [1, None, 2]
    (reasons,) = ledger.reasons.values()
    assert reasons == {1: reason}


async def test_an_ack_names_every_reason(address):
    bad = frame(price=0) + frame(price=-1) + frame(volume=0) + frame(symbol="")
    ack = await send(address, bad + frame())
    assert ack.message == "Accepted 1 tick, refused 4 (1 symbol, 2 price, 1 volume)"


async def test_a_coarse_timestamp_is_named_in_the_log(address, caplog):
    await send(address, frame(exchange_timestamp=1_735_201_234_567))
    assert "1735201234567" in caplog.text
    assert "ms" in caplog.text


@pytest.mark.parametrize("length", [0, 1_000_001, 2**31 - 1, 2**32 - 1])
async def test_a_frame_of_a_wrong_length_closes_its_connection_alone(address, ledger, length):
    other = await Client.connect(address)
    client = await Client.connect(address)
    client.writer.write(frames(2) + struct.pack(">I", length) + frames(2))
    ack = await client.last_reply()
    assert not ack.success
    assert "length 0" in ack.message or "control" in ack.message or f"{length:,}" in ack.message
    assert (await other.finish(frames(1, first=3))).success
    assert prices(ledger) == [1, 2, 3]


async def test_the_longest_frame_is_a_tick_like_any_other(address, ledger):
    filler = b"\x7a" + b"\xb8\x84\x3d"  # field 15, of so many bytes
    tick = tick_pb2.Tick(symbol="AAPL", price=1, volume=1, exchange_timestamp=NOW_NS)
    payload = tick.SerializeToString()
    room = 1_000_000 - len(payload) - 4
    filler = b"\x7a" + bytes([room & 0x7F | 0x80, room >> 7 & 0x7F | 0x80, room >> 14])
    long_frame = encode_frame(payload + filler + bytes(room))
    assert len(long_frame) == 1_000_004
    assert (await send(address, long_frame)).message == "Accepted 1 tick, refused 0"
    assert prices(ledger) == [1]


async def test_half_a_frame_and_a_half_close_is_told(address, ledger):
    ack = await send(address, frames(2) + frame()[:-5])
    unfinished = len(frame()) - 5
    assert ack == Ack(
        False,
        f"Accepted 2 ticks, refused 0; {unfinished} bytes of an unfinished frame were left",
    )
    assert prices(ledger) == [1, 2]


async def test_half_a_frame_and_a_hang_up_keeps_what_came_before(address, ledger, caplog):
    client = await Client.connect(address)
    client.writer.write(frames(2) + frame()[:-5])
    await ledger.when(lambda: ledger.count() == 2)
    client.vanish()
    assert (await send(address, frames(1, first=3))).success
    assert prices(ledger) == [1, 2, 3]


async def test_random_bytes_hurt_nobody(address, ledger):
    for seed in range(50):
        client = await Client.connect(address)
        client.writer.write(random.Random(seed).randbytes(5_000))
        with contextlib.suppress(ConnectionError):
            client.writer.write_eof()
            await client.last_reply()
    before = ledger.count()
    assert (await send(address, frames(3))).success
    assert ledger.count() == before + 3


async def test_many_slow_connections_make_few_batches(address, ledger):
    ledger.hold()
    clients = [await Client.connect(address) for _ in range(100)]
    for k, client in enumerate(clients):
        client.writer.write(frame(price=k + 1))
    acks = [asyncio.create_task(client.finish()) for client in clients]
    await ledger.when(lambda: ledger.batches == 1)
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


async def test_a_hello_is_answered_with_the_position_and_told_of_commits(address, ledger):
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


async def test_a_stream_goes_on_where_it_was_committed(address, ledger):
    first = await Client.connect(address, hello="s")
    first.writer.write(frames(3))
    await ledger.when(lambda: ledger.count() == 3)
    first.vanish()
    second = await Client.connect(address, hello="s")
    assert await second.reply() == Resume(3)
    await second.finish(frames(2, first=4))
    assert ledger.prices("s") == [1, 2, 3, 4, 5]


async def test_a_stream_goes_on_at_another_server(aggregator, ledger):
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


async def test_an_aggregator_that_comes_later_gets_everything(ledger):
    aggregator = PlainAggregator(ledger)
    async with aggregator.serving():
        pass  # now its port is known, and nobody listens there
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


async def test_a_client_that_never_reads_its_replies_costs_no_memory(address, ledger):
    client = await Client.connect(address, hello="s")
    client.reader._transport.pause_reading()
    for k in range(200):
        client.writer.write(frames(10, first=10 * k + 1))
        await ledger.when(lambda k=k: ledger.count() == 10 * k + 10)
    client.reader._transport.resume_reading()
    await client.committed(2_000)


async def test_a_stop_commits_what_was_taken_and_says_so(aggregator, ledger):
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


async def test_a_stop_before_the_commit_tells_the_client_and_fails(aggregator, ledger, monkeypatch):
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


async def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = IngestServer(IngestConfig(port=port))
        with pytest.raises(StartupError, match=f"port {port} on 127.0.0.1 is in use"):
            await server.run(lambda _: None)


async def test_a_host_that_is_not_ours_cannot_be_listened_on():
    server = IngestServer(IngestConfig(host="192.0.2.1", port=0))
    with pytest.raises(StartupError, match="cannot listen on"):
        await server.run(lambda _: None)


def test_an_aggregator_without_a_port_is_wrong_usage():
    with pytest.raises(UsageError, match="HOST:PORT"):
        IngestServer(IngestConfig(aggregator="localhost"))
