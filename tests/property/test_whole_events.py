"""Records are passed on once their event has ended, whatever else comes between."""

import itertools
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.dtypes import F_LAST, MBO
from mdtool.engine.book import rebuild
from mdtool.engine.book.rebuild import WholeEvents
from tests.support.book_streams import wild
from tests.support.instruments import bare, batch


def by_book(records: np.ndarray) -> dict[tuple[int, int], list[int]]:
    """The sequence numbers of each book's records."""
    books = defaultdict(list)
    for record in records:
        key = (int(record["publisher_id"]), int(record["instrument_id"]))
        books[key].append(int(record["sequence"]))
    return dict(books)


def ended(records: np.ndarray) -> dict[tuple[int, int], list[int]]:
    """The same of those records whose event ends in the stream, the plain way."""
    books = {}
    for key, numbers in by_book(records).items():
        last = [at for at, number in enumerate(numbers) if records["flags"][number] & F_LAST]
        if last:
            books[key] = numbers[: last[-1] + 1]
    return books


@given(stream=wild(), cuts=st.lists(st.integers(0, 80), max_size=6))
def test_however_the_stream_is_cut(stream, cuts):
    events = WholeEvents()
    passed = [np.empty(0, MBO)]
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for begin, end in itertools.pairwise(edges):
        for part in bare(events.feed(batch(stream[begin:end]))):
            assert len(part)
            passed.append(part)
        so_far = np.concatenate(passed)
        assert by_book(so_far) == ended(stream[:end])
        assert sorted([*so_far["sequence"], *events.held.records["sequence"]]) == [*range(end)]


def test_a_stream_of_one_book_keeps_its_order_and_is_not_copied():
    stream = np.zeros(6, MBO)
    stream["flags"] = [F_LAST, 0, F_LAST, 0, 0, F_LAST]
    stream["sequence"] = range(6)
    events = WholeEvents()
    [part] = bare(events.feed(batch(stream[:5])))
    assert part["sequence"].tolist() == [0, 1, 2]
    assert np.shares_memory(part, stream)
    held, rest = bare(events.feed(batch(stream[5:])))
    assert [*held["sequence"], *rest["sequence"]] == [3, 4, 5]
    assert len(events.held) == 0


def test_an_event_without_an_end_is_held_only_so_long(monkeypatch):
    monkeypatch.setattr(rebuild, "MAX_OPEN_RECORDS", 10)
    stream = np.zeros(24, MBO)
    stream["sequence"] = range(24)
    events = WholeEvents()
    passed = [
        part for at in range(0, 24, 4) for part in bare(events.feed(batch(stream[at : at + 4])))
    ]
    assert np.concatenate(passed)["sequence"].tolist() == [*range(24)]
    assert events.forced == 24


@pytest.mark.parametrize("n_books", [1, 5_000])
def test_as_many_books_as_there_are(n_books):
    stream = np.zeros(2 * n_books, MBO)
    stream["instrument_id"] = np.arange(2 * n_books) % n_books
    stream["flags"][n_books:] = np.where(np.arange(n_books) % 2, F_LAST, 0)
    events = WholeEvents()
    whole = sum(len(part) for part in bare(events.feed(batch(stream))))
    assert whole == 2 * (n_books // 2)
    assert len(events.held) == len(stream) - whole
