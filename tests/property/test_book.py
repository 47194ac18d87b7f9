"""The book kernel does what the plain reference does, whatever records come, and after each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.engine.book.state import Books
from tests.reference.book import ReferenceBooks, mbo_of
from tests.reference.book_equality import assert_same
from tests.support.book_streams import deep, wild, with_snapshots
from tests.support.instruments import bare, batch

STREAMS = {"wild": wild(), "deep": deep(), "with snapshots": with_snapshots()}

any_stream = st.one_of(*STREAMS.values())


def depth_records(books: Books, stream: np.ndarray, shown: int) -> list[tuple]:
    return [record for run in bare(books.events(batch(stream), shown)) for record in run.tolist()]


@pytest.mark.parametrize("kind", STREAMS)
@given(data=st.data())
def test_books_are_the_reference_s_after_every_record(kind, data):
    stream = data.draw(STREAMS[kind])
    books, reference = Books(), ReferenceBooks()
    for at, record in enumerate(mbo_of(stream)):
        books.apply(batch(stream[at : at + 1]))
        reference.apply([record])
        assert_same(books, reference)


@pytest.mark.parametrize("shown", [1, 10])
@pytest.mark.parametrize("kind", STREAMS)
@given(data=st.data())
def test_depth_records_are_the_reference_s_field_by_field(kind, shown, data):
    stream = data.draw(STREAMS[kind])
    books, reference = Books(), ReferenceBooks()
    assert depth_records(books, stream, shown) == [*reference.depth_records(mbo_of(stream), shown)]
    assert_same(books, reference)


@given(
    stream=any_stream,
    cuts=st.lists(st.integers(0, 120), max_size=6),
    shown=st.sampled_from([1, 10]),
)
def test_chunks_of_any_size_give_the_same(stream, cuts, shown):
    chunks = np.split(stream, sorted(cut for cut in cuts if cut <= len(stream)))
    whole, chunked, without_output = Books(), Books(), Books()
    records = depth_records(whole, stream, shown)
    assert [r for chunk in chunks for r in depth_records(chunked, chunk, shown)] == records
    for chunk in chunks:
        without_output.apply(batch(chunk))
    reference = ReferenceBooks()
    reference.apply(mbo_of(stream))
    for books in (whole, chunked, without_output):
        assert_same(books, reference)


@given(stream=any_stream)
def test_records_are_left_as_they_were_and_may_lie_anywhere(stream):
    before = stream.tobytes()
    scattered = np.repeat(stream, 2)[::2]
    unaligned = np.zeros(stream.nbytes + 3, np.uint8)[3:].view(stream.dtype)
    unaligned[:] = stream
    reference = ReferenceBooks()
    reference.apply(mbo_of(stream))
    for records in (stream, scattered, unaligned):
        books = Books()
        books.apply(batch(records))
        assert_same(books, reference)
    assert stream.tobytes() == before
