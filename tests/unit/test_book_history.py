"""What is kept of the records that were processed last."""

from __future__ import annotations

import numpy as np

from mdtool.engine.book.state import Books
from mdtool.engine.simulate import Exchange
from mdtool.services.book.history import History
from tests.support.instruments import batch
from tests.support.recordings import content

RECORDS = Exchange(seed=3).generate(2_000)


def filled(n: int, size: int = 400) -> tuple[History, Books]:
    """A history of the first records, and the books behind them."""
    history, books = History(size), Books()
    for record in np.split(RECORDS[:n], n):
        if not history.room:
            history.open_block(books.copy())
        history.append(batch(record))
        books.apply(batch(record))
    return history, books


def test_it_begins_with_nothing_and_room_for_half():
    history = History(400)
    assert (history.first, history.end, history.room) == (0, 0, 200)
    assert len(history.read(0, 10)) == 0


def test_all_records_are_stored_while_there_is_room():
    history, _ = filled(400)
    assert (history.first, history.end, history.room) == (0, 400, 0)
    assert history.read(0, 1000).records.tolist() == RECORDS[:200].tolist()
    assert history.read(200, 1000).records.tolist() == RECORDS[200:400].tolist()
    assert history.read(150, 5).records.tolist() == RECORDS[150:155].tolist()
    assert len(history.read(400, 5)) == 0


def test_the_older_half_goes_when_both_are_full():
    history, _ = filled(400)
    assert history.next_first == 200
    history, _ = filled(401)
    assert (history.first, history.end, history.room) == (200, 401, 199)
    assert history.next_first == 400


def test_nothing_is_about_to_go_while_the_first_half_fills():
    assert filled(150)[0].next_first == 0


def test_books_from_before_lead_to_the_books_of_now():
    history, now = filled(950)
    books = history.books()
    number = history.first
    while len(records := history.read(number, 77)):
        books.apply(records)
        number += len(records)
    assert number == 950
    assert content(books) == content(now)


def test_the_caller_s_books_are_its_own():
    history, _ = filled(500)
    before = history.books().state.sizes.tolist()
    history.books().apply(batch(RECORDS[500:]))
    assert history.books().state.sizes.tolist() == before


def test_records_that_were_read_stay_as_they_are():
    history, books = filled(400)
    read = history.read(0, 200).records
    before = read.tolist()
    for _ in range(3):
        history.open_block(books.copy())
        history.append(batch(RECORDS[1000:1100]))
    assert history.first > 200
    assert read.tolist() == before


def test_large_and_small_arrays_follow_each_other():
    records = Exchange(seed=4).generate(22_000)[:22_000]
    history, begin = History(60_000), 0
    for length in (5_000, 1, 2, 4_094, 3, 4_096, 1, 4_000, 4_803):
        history.append(batch(records[begin : begin + length]))
        begin += length
        assert history.end == begin
        for number in (0, begin // 2, begin - 1):
            read = history.read(number, 7).records
            assert 1 <= len(read) <= 7
            assert read.tobytes() == records[number : number + len(read)].tobytes()
    number, pieces = 0, []
    while len(piece := history.read(number, 5_000).records):
        pieces.append(piece)
        number += len(piece)
    assert np.concatenate(pieces).tobytes() == records.tobytes()
