"""Who is told what of a topic, over real sockets without anything of HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from mdtool.services.gateway import outbox as outbox_module
from mdtool.services.gateway.backlog import MAX_STATE_BYTES
from mdtool.services.gateway.hub import Hub
from mdtool.services.gateway.outbox import Outbox
from mdtool.services.gateway.tallies import SocketTally
from mdtool.wire.websocket import close_frame, text_frame

PATIENCE_S = 30.0


class Reader:
    """A client's end, which reads when it is told to."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._received = b""

    async def until(self, expected: bytes) -> bytes:
        """What came until something did."""
        loop = asyncio.get_running_loop()
        while expected not in self._received:
            data = await loop.sock_recv(self._end, 1 << 16)
            assert data, f"only {self._received[-200:]!r} came"
            self._received += data
        received, _, self._received = self._received.partition(expected)
        return received + expected

    async def end(self) -> bytes:
        """What came until the connection's end."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._end, 1 << 16):
            self._received += data
        return self._received


@pytest.fixture
async def connect(monkeypatch):
    monkeypatch.setattr(outbox_module, "_LINGER_S", PATIENCE_S)
    loop = asyncio.get_running_loop()
    tally, lost = SocketTally(), asyncio.Event()

    class Server(asyncio.Protocol):
        def connection_lost(self, _error):
            lost.set()

    async with contextlib.AsyncExitStack() as stack:

        async def connect(patience_s: float = PATIENCE_S) -> tuple[Outbox, Reader]:
            server_end, client_end = socket.socketpair()
            client_end.setblocking(False)
            transport, _ = await loop.create_connection(Server, sock=server_end)
            stack.callback(client_end.close)
            stack.callback(transport.close)
            outbox = Outbox(transport, tally, patience_s)
            stack.callback(outbox.close)
            return outbox, Reader(client_end)

        connect.tally = tally
        connect.lost = lost
        yield connect


async def test_everybody_gets_their_own_head_and_the_same_rest(connect):
    hub = Hub()
    readers = []
    for number in range(5):
        outbox, reader = await connect()
        hub.follow("topic", outbox, b"head %d " % number)
        readers.append(reader)
    for payload in (b"first", b"second", b"s" * 200):
        hub.publish("topic", payload)
        for number, reader in enumerate(readers):
            assert await reader.until(payload) == text_frame(b"head %d " % number + payload)
    assert connect.tally.sent == 15


async def test_what_is_published_in_one_turn_goes_out_in_one_write_latest_states_only(connect):
    hub = Hub()
    outbox, reader = await connect()
    hub.follow("AAPL", outbox, b"1 ")
    hub.follow("all", outbox, b"2 ")
    for number in range(3):
        for topic in ("AAPL", "all"):
            hub.publish(topic, b"AAPL %d" % number, "AAPL")
        hub.publish("all", b"MSFT %d" % number, "MSFT")
    loop = asyncio.get_running_loop()
    received = await loop.sock_recv(reader._end, 1 << 16)
    assert _texts(received) == [b"1 AAPL 2", b"2 AAPL 2", b"2 MSFT 2"]
    assert connect.tally.sent == 3


async def test_a_topic_is_there_as_long_as_somebody_follows_it(connect):
    hub = Hub()
    outbox, reader = await connect()
    with hub.subscription("topic", outbox):
        assert "topic" in hub
        with hub.subscription("topic", outbox):
            hub.publish("topic", b"twice")
            await asyncio.sleep(0)
        hub.publish("topic", b"once")
        await asyncio.sleep(0)
    assert len(hub) == 0
    hub.publish("topic", b"never")
    outbox.post(b"the end")
    received = await reader.until(b"the end")
    assert received == b"".join(map(text_frame, [b"twice", b"twice", b"once", b"the end"]))


async def test_who_does_not_read_is_told_of_the_last_state_of_each_kind_once_they_do(connect):
    hub = Hub()
    outbox, reader = await connect()
    follower = hub.follow("all", outbox, b"> ")
    number = 0
    while connect.tally.conflated < 100:
        number += 1
        hub.publish("all", b"A%d;" % number + b"." * 1_000, "A")
        hub.publish("all", b"B%d;" % number + b"." * 1_000, "B")
        await asyncio.sleep(0)
    outbox.post(b"an event")
    received = await reader.until(b"an event")
    last_a, last_b = b"> A%d;" % number, b"> B%d;" % number
    assert received.count(last_a) == received.count(last_b) == 1
    # Nothing was torn: the stream is frames from its beginning to its end.
    assert _texts(received)[-1] == b"an event"
    hub.leave("all", follower)


async def test_what_is_left_is_not_told_any_more(connect):
    hub = Hub()
    outbox, reader = await connect()
    follower = hub.follow("topic", outbox)
    while connect.tally.conflated == 0:
        hub.publish("topic", b"." * 10_000)
        await asyncio.sleep(0)
    hub.publish("topic", b"the last")
    await asyncio.sleep(0)
    hub.leave("topic", follower)
    outbox.post(b"an event")
    assert b"the last" not in await reader.until(b"an event")


async def test_who_reads_nothing_for_too_long_is_closed_and_told_why(connect):
    hub = Hub()
    outbox, reader = await connect(patience_s=0.1)
    hub.follow("topic", outbox)
    while connect.tally.behind == 0:
        hub.publish("topic", b"." * 10_000)
        await asyncio.sleep(0)
    received = await reader.end()
    assert received.endswith(close_frame(4000, "nothing was read for 0.1 s"))
    _texts(received.removesuffix(close_frame(4000, "nothing was read for 0.1 s")))


async def test_who_lets_too_many_events_lie_is_closed_and_told_why(connect):
    outbox, reader = await connect()
    while connect.tally.behind == 0:
        outbox.post(b"." * 10_000)
    outbox.post(b"too late")
    received = await reader.end()
    assert received.endswith(close_frame(4000, "too many messages wait to be read"))


async def test_who_follows_more_than_can_be_kept_is_closed_and_told_why(connect):
    hub = Hub()
    outbox, reader = await connect()
    follower = hub.follow("topic", outbox)
    size = MAX_STATE_BYTES // 20
    for state in range(30):
        follower.send(bytes(size), state)
    assert connect.tally.behind == 1
    assert (await reader.end()).endswith(close_frame(4000, "too much waits to be read"))


async def test_a_connection_that_takes_nothing_is_cut_once_its_outbox_is_closed(
    connect, monkeypatch
):
    monkeypatch.setattr(outbox_module, "_LINGER_S", 0.05)
    outbox, _ = await connect()
    while not outbox._transport.get_write_buffer_size():
        outbox.post(b"." * 10_000)
    outbox.close()
    outbox._transport.close()  # which waits for all to be read
    await connect.lost.wait()


async def test_a_client_that_is_gone_holds_up_nobody(connect):
    hub = Hub()
    (gone, gone_reader), (there, reader) = await connect(), await connect()
    hub.follow("topic", gone)
    hub.follow("topic", there)
    gone_reader._end.close()
    for payload in (b"first", b"second", b"third"):
        hub.publish("topic", payload)
        assert await reader.until(payload) == text_frame(payload)


async def test_a_closed_outbox_writes_nothing(connect):
    hub = Hub()
    outbox, reader = await connect()
    hub.follow("topic", outbox)
    outbox.close()
    hub.publish("topic", b"a state")
    outbox.post(b"an event")
    outbox._transport.close()
    assert await reader.end() == b""


def _texts(stream: bytes) -> list[bytes]:
    """The texts of whole frames."""
    texts = []
    while stream:
        assert stream[0] == 0x81
        length, begin = stream[1], 2
        if length == 126:
            length, begin = int.from_bytes(stream[2:4], "big"), 4
        texts.append(stream[begin : begin + length])
        assert len(texts[-1]) == length
        stream = stream[begin + length :]
    return texts
