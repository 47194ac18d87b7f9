"""What the ingest server holds is bounded, and told to whoever waits for it."""

from __future__ import annotations

import asyncio
from unittest import mock

import pytest

from mdtool.services.client import Admission
from mdtool.services.ingest.connection import CROWDED_READ_BYTES, Connection, Connections
from mdtool.services.ingest.intake import Intake
from mdtool.services.limits import Limits
from mdtool.wire._pb import tick_pb2
from mdtool.wire.frames import encode_frame
from mdtool.wire.symbol_index import SymbolIndex
from mdtool.wire.tick_decoder import TickDecoder

FRAME = encode_frame(
    tick_pb2.Tick(
        symbol="AAPL", price=1, volume=1, exchange_timestamp=1_735_201_234_567_000_000
    ).SerializeToString()
)


class HeldBus:
    """Keeps what is published, and commits it when a test says so."""

    peer = "held bus"

    def __init__(self) -> None:
        self.published = []
        self.positions = {}

    def subscribe(self, listener) -> None:
        self.commit = listener

    def publish(self, stream_id, first_sequence, frames) -> None:
        self.published.append((stream_id, first_sequence, frames.count))

    async def position(self, stream_id):
        return self.positions.get(stream_id, 0)

    async def own(self, stream_id, principal):
        return principal


class Owner:
    def __init__(self) -> None:
        self.told = []
        self.is_replaced = False

    def committed(self, next_sequence) -> None:
        self.told.append(next_sequence)

    def replaced(self) -> None:
        self.is_replaced = True


def ticks(count):
    decoder = TickDecoder(SymbolIndex())
    return decoder.feed(FRAME * count, 1).frames


@pytest.fixture
def bus():
    return HeldBus()


@pytest.fixture
def intake(bus):
    return Intake(bus, max_uncommitted=10)


def test_runs_of_a_stream_follow_each_other(intake, bus):
    for count in (3, 1, 2):
        intake.publish(intake.shared, ticks(count))
    name = intake.shared.stream_id
    assert bus.published == [(name, 0, 3), (name, 3, 1), (name, 4, 2)]
    assert intake.uncommitted == 6


def test_waiters_are_called_once_half_of_the_room_is_free(intake, bus):
    told = mock.Mock()
    intake.publish(intake.shared, ticks(12))
    assert not intake.has_room
    intake.when_room(told)
    bus.commit(intake.shared.stream_id, 6)
    assert intake.has_room
    told.assert_not_called()
    bus.commit(intake.shared.stream_id, 7)
    bus.commit(intake.shared.stream_id, 12)
    told.assert_called_once_with()
    assert intake.uncommitted == 0


def test_a_repeated_or_excessive_commit_frees_nothing_more(intake, bus):
    intake.publish(intake.shared, ticks(4))
    bus.commit(intake.shared.stream_id, 3)
    bus.commit(intake.shared.stream_id, 2)
    bus.commit("a stream of the past", 100)
    assert intake.uncommitted == 1
    bus.commit(intake.shared.stream_id, 100)
    assert intake.uncommitted == 0
    assert intake.shared.committed == 4


async def test_settled_means_what_was_taken_by_then(intake, bus):
    await intake.shared.settled()
    intake.publish(intake.shared, ticks(4))
    settled = asyncio.create_task(intake.shared.settled())
    await asyncio.sleep(0)
    intake.publish(intake.shared, ticks(4))
    bus.commit(intake.shared.stream_id, 3)
    await asyncio.sleep(0)
    assert not settled.done()
    bus.commit(intake.shared.stream_id, 4)
    await settled
    assert not intake.shared.is_settled


async def test_a_stream_begins_where_the_other_end_knows_it(intake, bus):
    bus.positions["s"] = 7
    owner = Owner()
    stream = await intake.open("s", owner)
    assert stream.taken == 7
    intake.publish(stream, ticks(2))
    assert bus.published == [("s", 7, 2)]
    bus.commit("s", 8)
    bus.commit("s", 9)
    assert owner.told == [8, 9]


async def test_the_next_owner_waits_for_what_the_last_one_sent(intake, bus):
    first, second = Owner(), Owner()
    stream = await intake.open("s", first)
    intake.publish(stream, ticks(2))
    opening = asyncio.create_task(intake.open("s", second))
    await asyncio.sleep(0)
    assert first.is_replaced
    intake.leave("s", first)  # as a connection does when it has gone
    assert not opening.done()
    bus.commit("s", 2)
    assert (await opening).taken == 2
    assert second.told == [2]


async def test_a_stream_resumes_where_another_server_stopped(intake, bus):
    stream = await intake.open("s", Owner())
    intake.publish(stream, ticks(2))
    bus.commit("s", 2)
    bus.positions["s"] = 9
    assert await intake.open("s", Owner()) is stream
    assert stream.taken == 9
    assert stream.is_settled


async def test_a_stream_left_alone_is_forgotten_once_it_is_settled(intake, bus):
    owner = Owner()
    stream = await intake.open("s", owner)
    intake.publish(stream, ticks(2))
    intake.leave("s", owner)
    bus.positions["s"] = 2
    reopened = asyncio.create_task(intake.open("s", owner))
    await asyncio.sleep(0)
    bus.commit("s", 2)
    assert await reopened is stream
    intake.leave("s", owner)
    assert await intake.open("s", owner) is not stream


class Reader:
    """A connection without a socket."""

    def __init__(self, intake) -> None:
        self.buffer = memoryview(bytearray(1 << 20))
        self.transport = mock.create_autospec(asyncio.Transport, instance=True)
        self.transport.get_extra_info.side_effect = {
            "peername": ("192.0.2.1", 7),
            "socket": mock.Mock(),
        }.get
        self.transport.is_closing.return_value = False
        self.connection = Connection(
            intake,
            TickDecoder(SymbolIndex()),
            self.buffer,
            mock.Mock(),
            Connections(Admission(Limits())),
        )
        self.connection.connection_made(self.transport)

    def receive(self, data) -> None:
        room = self.connection.get_buffer(-1)
        room[: len(data)] = data
        self.connection.buffer_updated(len(data))


def test_a_reader_without_room_reads_little_and_pauses(intake, bus):
    readers = [Reader(intake) for _ in range(3)]
    readers[0].receive(FRAME * 20)
    readers[0].transport.pause_reading.assert_called_once_with()
    # The others find out when they next read, which brings little.
    for reader in readers[1:]:
        reader.transport.pause_reading.assert_not_called()
        assert len(reader.connection.get_buffer(-1)) == CROWDED_READ_BYTES
        reader.receive(FRAME)
        reader.transport.pause_reading.assert_called_once_with()
    bus.commit(intake.shared.stream_id, 22)
    for reader in readers:
        reader.transport.resume_reading.assert_called_once_with()
        assert len(reader.connection.get_buffer(-1)) == len(reader.buffer)


def test_a_connection_that_was_stopped_reads_no_more(intake, bus):
    reader = Reader(intake)
    reader.receive(FRAME * 20)
    reader.connection.stop()
    bus.commit(intake.shared.stream_id, 20)
    reader.transport.resume_reading.assert_not_called()


def test_details_of_a_few_refusals_are_logged_and_all_are_counted(intake, caplog):
    reader = Reader(intake)
    bad = encode_frame(tick_pb2.Tick(symbol="A", price=-1, volume=1).SerializeToString())
    for _ in range(10):
        reader.receive(bad)
    reader.connection.connection_lost(None)
    assert len([r for r in caplog.records if "refused a tick" in r.message]) == 3
    assert "refused 10 (10 price)" in caplog.text


def test_a_client_that_is_gone_at_once_harms_nothing(intake):
    transport = mock.create_autospec(asyncio.Transport, instance=True)
    transport.get_extra_info.side_effect = {"socket": mock.Mock()}.get
    connection = Connection(
        intake,
        TickDecoder(SymbolIndex()),
        mock.Mock(),
        mock.Mock(),
        Connections(Admission(Limits())),
    )
    connection.connection_made(transport)
    assert str(connection) == "a disconnected client"
