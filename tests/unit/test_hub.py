"""Subscriptions to topics and the outboxes of clients, over real sockets without HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket

import pytest

from mdtool.services.gateway import outbox as outbox_module
from mdtool.services.gateway.backlog import MAX_EVENTS, MAX_STATE_BYTES, Event
from mdtool.services.gateway.hub import Changes, Hub, Subscription
from mdtool.services.gateway.outbox import Outbox
from mdtool.services.gateway.snapshots import AT_ONCE
from mdtool.services.holdings import Tally
from mdtool.wire.websocket import close_frame, text_frame

PATIENCE_S = 30.0


class Reader:
    """The end of a client, which reads on request."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._received = b""

    async def until(self, expected: bytes) -> bytes:
        """What came, up to some bytes."""
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
    tally, lost = Tally(), asyncio.Event()

    class Server(asyncio.Protocol):
        def connection_lost(self, _error):
            lost.set()

    async with contextlib.AsyncExitStack() as stack:

        async def connect(patience_s: float = PATIENCE_S, **words) -> tuple[Outbox, Reader]:
            server_end, client_end = socket.socketpair()
            client_end.setblocking(False)
            transport, _ = await loop.create_connection(Server, sock=server_end)
            stack.callback(client_end.close)
            stack.callback(transport.close)
            outbox = Outbox(transport, tally, patience_s, **words)
            stack.callback(outbox.close)
            return outbox, Reader(client_end)

        connect.tally = tally
        connect.lost = lost
        yield connect


class Plain:
    """Rows are written as they are."""

    def encode(self, row, is_snapshot=False):
        return row

    def missed(self, symbol, count):
        return f"missed {count} of {symbol}".encode()


def subscription(outbox: Outbox, head: bytes = b"") -> Subscription:
    return Subscription(None, outbox, Plain(), head)


async def test_every_subscriber_gets_its_own_head_and_the_same_payload(connect):
    hub = Hub()
    readers = []
    for number in range(5):
        outbox, reader = await connect()
        hub.subscribe("topic", subscription(outbox, b"head %d " % number))
        readers.append(reader)
    for payload in (b"first", b"second", b"s" * 200):
        hub.publish("topic", payload)
        for number, reader in enumerate(readers):
            assert await reader.until(payload) == text_frame(b"head %d " % number + payload)
    assert connect.tally.sent == 15


async def test_what_is_published_in_one_turn_is_one_write_with_the_latest_states(connect):
    hub = Hub()
    outbox, reader = await connect()
    hub.subscribe("AAPL", subscription(outbox, b"1 "))
    hub.subscribe("all", subscription(outbox, b"2 "))
    for number in range(3):
        for topic in ("AAPL", "all"):
            hub.publish(topic, b"AAPL %d" % number, "AAPL")
        hub.publish("all", b"MSFT %d" % number, "MSFT")
    loop = asyncio.get_running_loop()
    received = await loop.sock_recv(reader._end, 1 << 16)
    assert _texts(received) == [b"1 AAPL 2", b"2 AAPL 2", b"2 MSFT 2"]
    assert connect.tally.sent == 3


async def test_a_topic_exists_while_somebody_subscribes_to_it(connect):
    hub = Hub()
    outbox, reader = await connect()
    end_first = hub.subscribe("topic", subscription(outbox))
    assert "topic" in hub
    end_second = hub.subscribe("topic", subscription(outbox))
    hub.publish("topic", b"twice")
    await asyncio.sleep(0)
    end_second()
    hub.publish("topic", b"once")
    await asyncio.sleep(0)
    end_first()
    assert len(hub) == 0
    hub.publish("topic", b"never")
    outbox.post(b"the end")
    received = await reader.until(b"the end")
    assert received == b"".join(map(text_frame, [b"twice", b"twice", b"once", b"the end"]))


async def test_a_slow_client_gets_the_last_of_each_state_once_it_reads(connect):
    hub = Hub()
    outbox, reader = await connect()
    hub.subscribe("all", subscription(outbox, b"> "))
    number = 0
    while connect.tally.conflated < 100:
        number += 1
        hub.publish("all", b"A%d;" % number + b"." * 1_000, "A")
        hub.publish("all", b"B%d;" % number + b"." * 1_000, "B")
        await asyncio.sleep(0)
    outbox.post(b"a message")
    received = await reader.until(b"a message")
    last_a, last_b = b"> A%d;" % number, b"> B%d;" % number
    assert received.count(last_a) == received.count(last_b) == 1
    # Nothing was torn: the stream is frames from its beginning to its end.
    assert _texts(received)[-1] == b"a message"


async def test_a_slow_client_gets_the_last_events_behind_the_number_it_missed(connect):
    hub = Hub()
    outbox, reader = await connect()
    hub.subscribe("topic", subscription(outbox, b"> "))
    number = 0
    while connect.tally.dropped < 100:
        number += 1
        hub.publish("topic", b"%d;" % number + b"." * 1_000, Event("AAPL"))
        await asyncio.sleep(0)
    texts = _texts(await reader.until(b"> %d;" % number + b"." * 1_000))
    (place,) = [at for at, text in enumerate(texts) if b"missed" in text]
    assert texts[place] == b"> missed %d of AAPL" % connect.tally.dropped
    numbers = [int(text[2:].partition(b";")[0]) for text in texts if b"missed" not in text]
    assert numbers[:place] == [*range(1, place + 1)]
    assert numbers[place:] == [*range(number - MAX_EVENTS + 1, number + 1)]
    assert connect.tally.conflated == 0


async def test_a_subscription_that_ended_writes_nothing_more(connect):
    hub = Hub()
    outbox, reader = await connect()
    end = hub.subscribe("topic", subscription(outbox))
    while connect.tally.conflated == 0:
        hub.publish("topic", b"." * 10_000)
        await asyncio.sleep(0)
    hub.publish("topic", b"the last")
    await asyncio.sleep(0)
    end()
    outbox.post(b"a message")
    assert b"the last" not in await reader.until(b"a message")


async def test_a_message_of_a_held_block_precedes_its_updates(connect):
    outbox, reader = await connect()
    kept, dropped = subscription(outbox), subscription(outbox)
    with outbox.held():
        outbox.send(kept.update(b"first", "state"))
        outbox.send(dropped.update(b"never", "state"))
        outbox.send_all([kept.update(b"second", "state")])
        outbox.forget(dropped)
        outbox.post(b"a reply")
    assert _texts(await reader.until(b"second")) == [b"a reply", b"first", b"second"]


async def test_a_client_that_reads_nothing_for_too_long_is_closed_with_the_reason(connect):
    hub = Hub()
    outbox, reader = await connect(patience_s=0.1)
    hub.subscribe("topic", subscription(outbox))
    while connect.tally.behind == 0:
        hub.publish("topic", b"." * 10_000)
        await asyncio.sleep(0)
    received = await reader.end()
    assert received.endswith(close_frame(4000, "nothing was read for 0.1 s"))
    _texts(received.removesuffix(close_frame(4000, "nothing was read for 0.1 s")))


async def test_a_client_with_too_many_messages_is_closed_with_the_reason(connect):
    outbox, reader = await connect()
    while connect.tally.behind == 0:
        outbox.post(b"." * 10_000)
    outbox.post(b"too late")
    received = await reader.end()
    assert received.endswith(close_frame(4000, "too many messages wait to be read"))


async def test_a_client_with_too_many_bytes_of_states_is_closed_with_the_reason(connect):
    outbox, reader = await connect()
    subscribed = subscription(outbox)
    size = MAX_STATE_BYTES // 20
    for state in range(30):
        outbox.send(subscribed.update(bytes(size), state))
    assert connect.tally.behind == 1
    assert (await reader.end()).endswith(close_frame(4000, "too many bytes wait to be read"))


async def test_a_last_message_precedes_the_close_of_a_client(connect):
    outbox, reader = await connect(last_message=lambda code, why: f"{code} {why}".encode())
    while connect.tally.behind == 0:
        outbox.post(b"." * 10_000)
    reason = "too many messages wait to be read"
    expected = text_frame(b"4000 " + reason.encode()) + close_frame(4000, reason)
    assert (await reader.end()).endswith(expected)
    other, its_reader = await connect(last_message=lambda code, why: f"{code} {why}".encode())
    other.end(1001, "bye")
    assert await its_reader.until(b"bye") == text_frame(b"1001 bye")


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


async def test_a_client_that_has_left_blocks_nobody(connect):
    hub = Hub()
    (gone, gone_reader), (outbox, reader) = await connect(), await connect()
    hub.subscribe("topic", subscription(gone))
    hub.subscribe("topic", subscription(outbox))
    gone_reader._end.close()
    for payload in (b"first", b"second", b"third"):
        hub.publish("topic", payload)
        assert await reader.until(payload) == text_frame(payload)


async def test_a_closed_outbox_writes_nothing(connect):
    hub = Hub()
    outbox, reader = await connect()
    hub.subscribe("topic", subscription(outbox))
    outbox.close()
    hub.publish("topic", b"a state")
    outbox.post(b"a message")
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


class Written:
    """An outlet that keeps the payloads that it is given."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def header(self, _length: int) -> bytes:
        return b""

    def send(self, update) -> None:
        self.payloads.append(update[2])

    def send_all(self, updates) -> None:
        self.payloads += [payload for _, _, payload in updates]

    def forget(self, _owner) -> None:
        pass


def slicing_hub() -> Hub:
    """A hub whose clock says at each look that the slice is over: it writes 64 updates a turn."""
    return Hub(itertools.count().__next__)


async def written(hub: Hub) -> None:
    """Wait until everything that is published is written."""
    event = asyncio.Event()
    hub.when_written(event.set)
    await event.wait()


async def test_what_is_published_while_a_round_is_written_is_conflated_into_the_next():
    hub = slicing_hub()
    outlets = [Written() for _ in range(200)]
    for outlet in outlets:
        hub.subscribe("topic", subscription(outlet))
    hub.publish("topic", b"0", "AAPL")
    await asyncio.sleep(0)
    assert sum(len(outlet.payloads) for outlet in outlets) == 64
    for number in range(1, 4):
        hub.publish("topic", b"%d" % number, "AAPL")
    await written(hub)
    assert [outlet.payloads for outlet in outlets] == [[b"0", b"3"]] * 200
    assert (hub.rounds, hub.conflated) == (2, 2)


async def test_changes_while_a_round_is_written_are_published_once_before_the_next():
    hub = slicing_hub()
    outlets = [Written() for _ in range(200)]
    for outlet in outlets:
        hub.subscribe("topic", subscription(outlet))
    state, published = {"A": 0, "B": 0}, []

    def publish(symbols):
        published.append([*symbols])
        for symbol in symbols:
            hub.publish("topic", b"%s%d" % (symbol.encode(), state[symbol]), symbol)

    changes = Changes(hub, publish)
    changes.add(["A"])
    await asyncio.sleep(0)
    for number, symbol in enumerate("ABAB", 1):
        state[symbol] = number
        changes.add([symbol])
    assert published == [["A"]]
    await written(hub)
    assert published == [["A"], ["A", "B"]]
    assert {tuple(outlet.payloads) for outlet in outlets} == {(b"A0", b"A3", b"B4")}


async def test_a_round_is_for_those_who_subscribe_from_its_beginning_to_their_turn():
    hub = slicing_hub()
    outlets = [Written() for _ in range(130)]
    ends = [hub.subscribe("topic", subscription(outlet)) for outlet in outlets]
    hub.publish("topic", b"1", "AAPL")
    await asyncio.sleep(0)
    ends[-1]()
    late = Written()
    hub.subscribe("topic", subscription(late))
    await written(hub)
    assert [len(outlet.payloads) for outlet in outlets] == [1] * 129 + [0]
    assert late.payloads == []


async def test_a_long_snapshot_is_written_between_rounds_and_delays_none():
    hub = slicing_hub()
    outlet, other = Written(), Written()
    hub.subscribe("topic", subscription(other))
    numbers = range(3 * AT_ONCE)
    hub.begin_snapshot(outlet, ((None, n, b"%d" % n) for n in numbers))
    assert len(outlet.payloads) == AT_ONCE
    hub.publish("topic", b"1", "AAPL")
    while len(outlet.payloads) < len(numbers):
        before = len(outlet.payloads)
        await asyncio.sleep(0)
        assert len(outlet.payloads) <= before + AT_ONCE
    assert other.payloads == [b"1"]


async def test_events_that_wait_for_a_round_are_bounded_and_reported_as_missed():
    hub = Hub()
    outlet = Written()
    hub.subscribe("trades", subscription(outlet))
    for number in range(MAX_EVENTS + 3):
        hub.publish("trades", b"%d" % number, Event("AAPL"))
    await written(hub)
    assert outlet.payloads[:2] == [b"missed 3 of AAPL", b"3"]
    assert len(outlet.payloads) == 1 + MAX_EVENTS
    assert hub.dropped == 3


@pytest.mark.parametrize(
    ("before", "since", "first"),
    [
        (2, 3, [b"2", b"3"]),
        (MAX_EVENTS, 2, [b"%d" % MAX_EVENTS, b"%d" % (MAX_EVENTS + 1)]),
        (2, MAX_EVENTS + 1, [b"missed None of AAPL", b"3"]),
    ],
)
async def test_who_subscribes_before_a_round_gets_the_events_since(before, since, first):
    hub = Hub()
    outlet, late = Written(), Written()
    hub.subscribe("trades", subscription(outlet))
    for number in range(before):
        hub.publish("trades", b"%d" % number, Event("AAPL"))
    hub.subscribe("trades", subscription(late))
    for number in range(before, before + since):
        hub.publish("trades", b"%d" % number, Event("AAPL"))
    await written(hub)
    assert late.payloads[:2] == first
    assert late.payloads[-1] == outlet.payloads[-1] == b"%d" % (before + since - 1)
    assert len(late.payloads) == min(since, MAX_EVENTS + 1)
