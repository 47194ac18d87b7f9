"""One processing of a stream, whatever its sender does."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mdtool.core.errors import PeerError
from mdtool.engine.book.view import views
from mdtool.engine.simulate import Exchange
from mdtool.services.book.history import CHUNK_RECORDS, Backpressure, Cursor
from mdtool.services.book.processing import Processing
from mdtool.services.book.reader import Reader, Shown
from mdtool.wire.dbn_metadata import make_metadata
from mdtool.wire.dbn_session import Begin, Data, End, FromLive, FromStart, Refused, Resume
from tests.support.recordings import books_of, content, snapshot_of

EXCHANGE = Exchange(seed=9)
RECORDS = EXCHANGE.generate(6_000)
STREAM = "a" * 32
ALL = Shown(None, None)
METADATA = make_metadata("XSIM.TEST", "mbo", EXCHANGE.start_ns, None, EXCHANGE.instruments)


def processing(
    opening=None, history_records: int = 1_000_000, patience_s: float = 1.0
) -> Processing:
    made = Processing(opening or FromStart(), history_records, patience_s)
    made.set_metadata(METADATA)
    return made


def feed(receiver: Processing, begin: int, end: int, step: int = 500) -> None:
    """Give it records of the stream by their positions."""
    for at in range(begin, end, step):
        upto = min(at + step, end)
        receiver.receive(Data(RECORDS[at:upto], upto))


def test_a_whole_stream():
    receiver = processing()
    assert receiver.request == FromStart()
    receiver.receive(Begin(STREAM, 0))
    feed(receiver, 0, len(RECORDS))
    assert not receiver.is_over
    receiver.receive(End(STREAM, len(RECORDS)))
    assert receiver.is_over
    assert receiver.error is None
    assert (receiver.position, receiver.records) == (len(RECORDS), len(RECORDS))
    assert content(receiver.rebuild.books) == content(books_of(RECORDS))


def test_a_lost_stream_is_resumed_at_its_position():
    receiver = processing()
    receiver.receive(Begin(STREAM, 0))
    feed(receiver, 0, 1_234)
    assert receiver.request == Resume(STREAM, 1_234)
    receiver.receive(Begin(STREAM, 1_234))
    assert receiver.resumed == 1
    feed(receiver, 1_234, len(RECORDS))
    assert content(receiver.rebuild.books) == content(books_of(RECORDS))


@pytest.mark.parametrize(
    "begin", [Begin("b" * 32, 1_000), Begin(STREAM, 999), Begin(STREAM, 1_001), Begin("b" * 32, 0)]
)
def test_a_gap_is_an_error(begin):
    receiver = processing()
    receiver.receive(Begin(STREAM, 0))
    feed(receiver, 0, 1_000)
    with pytest.raises(PeerError, match="asked to resume at record 1000"):
        receiver.receive(begin)


def joined_at(position: int, skipped: int = 0) -> tuple[Begin, Data]:
    snapshot = snapshot_of(books_of(RECORDS[:position]))
    return Begin(STREAM, position, len(snapshot), skipped), Data(snapshot, position)


def test_joining_live_comes_to_the_same_books():
    receiver = processing(FromLive())
    for message in joined_at(2_000):
        receiver.receive(message)
    feed(receiver, 2_000, len(RECORDS))
    assert content(receiver.rebuild.books) == content(books_of(RECORDS))
    assert receiver.position == len(RECORDS)
    assert receiver.request == Resume(STREAM, len(RECORDS))


def test_a_receiver_that_was_too_slow_has_the_right_books_again():
    receiver = processing(FromLive())
    for message in joined_at(2_000):
        receiver.receive(message)
    feed(receiver, 2_000, 2_700)
    for message in joined_at(4_000, skipped=1_300):
        receiver.receive(message)
    feed(receiver, 4_000, len(RECORDS))
    assert receiver.skipped == 1_300
    assert content(receiver.rebuild.books) == content(books_of(RECORDS))


def test_nothing_is_resumed_from_half_a_snapshot():
    receiver = processing(FromLive())
    begin, whole = joined_at(2_000)
    receiver.receive(begin)
    receiver.receive(Data(whole.records[:50], 2_000))
    assert receiver.request == FromLive()
    for message in joined_at(3_000):
        receiver.receive(message)
    feed(receiver, 3_000, len(RECORDS))
    assert receiver.skipped == 1_000
    assert content(receiver.rebuild.books) == content(books_of(RECORDS))


def test_a_refusal_ends_it():
    with pytest.raises(PeerError, match="the sender ended the session: file cut"):
        processing().receive(Refused("file cut", is_final=True))


def test_books_are_made_of_mbo():
    receiver = Processing(FromStart(), 1_000, 1.0)
    with pytest.raises(PeerError, match="streams trades; books are made of mbo"):
        receiver.set_metadata(make_metadata("XSIM.TEST", "trades", 0))


def test_records_other_than_orders_count_in_the_position_alone():
    receiver = processing()
    receiver.receive(Begin(STREAM, 0))
    other = EXCHANGE.generate(300, "trades")
    receiver.receive(Data(other, len(other)))
    assert (receiver.position, receiver.records) == (len(other), 0)


@pytest.mark.parametrize("size", [400, 1_000, 12_000])
def test_a_checkpoint_is_where_the_records_after_it_begin(size):
    receiver = processing(history_records=size)
    receiver.receive(Begin(STREAM, 0))
    feed(receiver, 0, len(RECORDS), step=333)
    history = receiver.history
    assert history.end == len(RECORDS)
    first = history.first
    books = history.books()
    assert content(books) == content(books_of(RECORDS[:first])) or first == 0
    number = first
    while len(records := history.read(number, 100)):
        books.apply(records)
        number += len(records)
    assert content(books) == content(books_of(RECORDS))


async def batches_of(reader: Reader) -> list[bytes]:
    return [bytes(piece) async for batch in reader.batches() for piece in batch]


async def test_a_reader_gets_a_line_for_each_record():
    receiver = processing()
    receiver.receive(Begin(STREAM, 0))
    feed(receiver, 0, 2_000)
    reader = Reader(receiver, 3, ALL)
    reading = asyncio.create_task(batches_of(reader))
    feed(receiver, 2_000, len(RECORDS))
    receiver.receive(End(STREAM, len(RECORDS)))
    pieces = await reading
    assert b"".join(pieces).count(b"\n") == len(RECORDS)
    assert max(piece.count(b"\n") for piece in pieces) == 500
    assert reader.cursor.missed == 0


async def test_a_reader_of_some_symbols_gets_theirs():
    receiver = processing()
    receiver.receive(Begin(STREAM, 0))
    feed(receiver, 0, len(RECORDS))
    receiver.receive(End(STREAM, len(RECORDS)))
    counts = {view.instrument_id: view.records for view in views(receiver.rebuild.books)}
    told = b"".join(await batches_of(Reader(receiver, 1, Shown({"MSFT"}, None))))
    assert told.count(b"\n") == told.count(b'{"symbol":"MSFT"') == counts[2]
    assert await batches_of(Reader(receiver, 1, Shown({"nothing"}, None))) == []


async def test_a_late_reader_gets_the_number_of_dropped_records():
    receiver = processing(history_records=2_000)
    receiver.receive(Begin(STREAM, 0))
    feed(receiver, 0, len(RECORDS))
    receiver.receive(End(STREAM, len(RECORDS)))
    reader = Reader(receiver, 1, ALL)
    told = b"".join(await batches_of(reader)).count(b"\n")
    assert reader.cursor.missed == receiver.history.first > 0
    assert reader.cursor.missed + told == len(RECORDS)


def crowded(patience_s: float) -> tuple[Backpressure, Cursor]:
    """Of a processing whose one reader has read nothing, and whose history is almost full."""
    receiver = processing(history_records=8_000, patience_s=patience_s)
    receiver.receive(Begin(STREAM, 0))
    cursor = Reader(receiver, 1, ALL).cursor
    feed(receiver, 0, len(RECORDS))
    assert receiver.history.room < CHUNK_RECORDS
    return receiver.backpressure, cursor


async def test_processing_waits_for_a_reader_that_reads():
    backpressure, cursor = crowded(patience_s=100)
    with backpressure.joined(cursor):
        assert backpressure.is_blocking()
        freed = asyncio.Event()
        backpressure.when_free(freed.set)
        assert not freed.is_set()
        cursor.number = 4_000
        backpressure.moved()
        assert freed.is_set()
        assert not backpressure.is_blocking()


async def test_processing_does_not_wait_for_a_reader_that_left():
    backpressure, cursor = crowded(patience_s=100)
    freed = asyncio.Event()
    with backpressure.joined(cursor):
        backpressure.when_free(freed.set)
        assert not freed.is_set()
    assert freed.is_set()
    assert not backpressure.is_blocking()


async def test_processing_does_not_wait_for_a_reader_that_stopped_reading():
    backpressure, cursor = crowded(patience_s=0.05)
    freed = asyncio.Event()
    with backpressure.joined(cursor):
        cursor.writing_since_s = asyncio.get_running_loop().time()
        backpressure.when_free(freed.set)
        await freed.wait()
        assert not backpressure.is_blocking()


async def test_a_reader_that_missed_records_continues_after_the_gap():
    receiver = processing(history_records=2_000)
    receiver.receive(Begin(STREAM, 0))
    feed(receiver, 0, 1_000)
    reader = Reader(receiver, 1, ALL)
    batches = reader.batches()
    first = await anext(batches)
    feed(receiver, 1_000, len(RECORDS))
    receiver.receive(End(STREAM, len(RECORDS)))
    rest = [piece async for batch in batches for piece in batch]
    told = sum(bytes(piece).count(b"\n") for piece in [*first, *rest])
    assert reader.cursor.missed > 0
    assert told + reader.cursor.missed == len(RECORDS)
    last = np.array([bytes(rest[-1]).splitlines()[-1]])
    assert str(RECORDS["sequence"][-1]).encode() in last[0]
