"""Whoever joins a stream with a snapshot of its books has the books of the whole stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.dtypes import F_LAST, F_MAYBE_BAD_BOOK, F_SNAPSHOT
from mdtool.engine.book.view import BookView, views
from tests.support.book_streams import deep, wild, with_snapshots
from tests.support.instruments import batch
from tests.support.recordings import books_of, content, snapshot_of


@given(stream=st.one_of(wild(), deep(), with_snapshots()), data=st.data())
def test_joining_anywhere_comes_to_the_same_books(stream, data):
    cut = data.draw(st.integers(0, len(stream)))
    before, after = stream[:cut], stream[cut:]
    snapshot = snapshot_of(books_of(before))
    joined, whole = books_of(snapshot), books_of(before)
    assert content(joined) == content(whole)
    for at in range(len(after)):
        joined.apply(batch(after[at : at + 1]))
        whole.apply(batch(after[at : at + 1]))
        assert content(joined) == content(whole)


@given(stream=st.one_of(wild(), deep(), with_snapshots()))
def test_a_book_is_as_partial_as_it_was(stream):
    books = books_of(stream)
    joined = books_of(snapshot_of(books))
    for view in views(books):
        assert BookView(joined, view.instrument).is_partial == view.is_partial


@given(stream=st.one_of(wild(), with_snapshots()))
def test_a_snapshot_is_a_clear_and_adds_and_an_end(stream):
    books = books_of(stream)
    snapshot = snapshot_of(books)
    for view in views(books):
        of_book = snapshot[
            (snapshot["publisher_id"] == view.publisher_id)
            & (snapshot["instrument_id"] == view.instrument_id)
        ]
        actions = b"".join(of_book["action"].tolist())
        assert actions.rstrip(b"N").replace(b"A", b"") == b"R"
        assert actions.startswith(b"R")
        is_add = of_book["action"] == b"A"
        assert (of_book["flags"][is_add] & F_SNAPSHOT).all()
        assert view.is_in_snapshot == (actions[-1:] != b"N")
        if not view.is_in_snapshot:
            partial = F_MAYBE_BAD_BOOK if view.is_partial else 0
            assert of_book["flags"][-1] == F_LAST | partial
        assert set(of_book["ts_recv"].tolist()) == {view.ts_recv}
