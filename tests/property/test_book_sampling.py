"""Snapshots at a time and at the ends of intervals are those of the books then, event by event."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.adapters.dbn_files import open_source
from mdtool.core.dtypes import F_LAST
from mdtool.engine.book.rebuild import Rebuild
from mdtool.engine.book.sampling import FinalSampler, IntervalSampler
from mdtool.engine.book.snapshot import Snapshot
from mdtool.engine.book.view import BookView
from tests.reference.book import Mbo, ReferenceBooks, mbo_of
from tests.support.book_streams import NOON, wild
from tests.support.instruments import bare, batch

Told = dict[tuple[int, int], tuple]


def in_pieces(stream: np.ndarray, cuts: list[int]) -> list[np.ndarray]:
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    return [stream[begin:end] for begin, end in itertools.pairwise(edges)]


def key_of(record: Mbo) -> tuple[int, int]:
    return (record.publisher_id, record.instrument_id)


def time_of(record: Mbo) -> int:
    """As an index timestamp is read: one that there is not comes first."""
    return record.ts_recv if record.ts_recv < 2**63 else -1


def books_after(records: list[Mbo]) -> Told:
    """What the reference says of each book after its last event that ends among the records."""
    last = {key_of(r): at for at, r in enumerate(records) if r.flags & F_LAST}
    reference = ReferenceBooks()
    reference.apply(r for at, r in enumerate(records) if at <= last.get(key_of(r), -1))
    return {
        key: (
            [(price, *size_and_count(book, b"B", price)) for price in book.prices(b"B")],
            [(price, *size_and_count(book, b"A", price)) for price in book.prices(b"A")],
            len(book.orders),
            bool(book.unknown_sides),
            book.records,
        )
        for key, book in reference.books.items()
    }


def size_and_count(book, side: bytes, price: int) -> tuple[int, int]:
    level = book.levels[side][price]
    return level.size, len(level.queue)


def told(snapshot: Snapshot, rebuild: Rebuild) -> tuple:
    return (
        snapshot.bids.tolist(),
        snapshot.asks.tolist(),
        snapshot.total_orders,
        snapshot.is_partial,
        BookView(rebuild.books, snapshot.instrument).records,
    )


@given(stream=wild(), cuts=st.lists(st.integers(0, 80), max_size=4))
def test_the_last_picture(stream, cuts):
    sampler = FinalSampler()
    for piece in in_pieces(stream, cuts):
        assert [*sampler.update(batch(piece))] == []
    shown = {(s.publisher_id, s.instrument_id): told(s, sampler.rebuild) for s in sampler.close()}
    assert shown == books_after([*mbo_of(stream)])


def intervals(records: list[Mbo], interval_ns: int) -> list[tuple[int, list[Mbo]]]:
    """The end of each interval that has records, with all records before it."""
    latest = 0
    ends = []
    for record in records:
        latest = max(latest, time_of(record))
        ends.append((latest // interval_ns + 1) * interval_ns)
    return [
        (end, [record for record, of in zip(records, ends, strict=True) if of <= end])
        for end in sorted(set(ends))
    ]


@given(
    stream=wild(50),
    cuts=st.lists(st.integers(0, 50), max_size=4),
    interval_ns=st.sampled_from([1, 7, 20, 10**9]),
    after_ns=st.none() | st.integers(NOON, NOON + 51),
)
def test_interval_samples(stream, cuts, interval_ns, after_ns):
    sampler = IntervalSampler(interval_ns, after_ns=after_ns)
    shown: dict[int, Told] = {}
    for piece in [*in_pieces(stream, cuts), None]:
        for snapshot in sampler.close() if piece is None else sampler.update(batch(piece)):
            taken = shown.setdefault(snapshot.ts_ns, {})
            taken[snapshot.publisher_id, snapshot.instrument_id] = told(snapshot, sampler.rebuild)
    expected: dict[int, Told] = {}
    before: Told = {}
    for end_ns, records in intervals([*mbo_of(stream)], interval_ns):
        now = books_after(records)
        changed = {key: book for key, book in now.items() if before.get(key, ())[4:] != book[4:]}
        if changed and (after_ns is None or end_ns > after_ns):
            expected[end_ns] = changed
        before = now
    assert shown == expected


def test_intervals_are_of_the_clock_and_their_starts_are_inclusive(real_data):
    minute_ns = 60 * 10**9
    with open_source(str(real_data / "CLX5_mbo.dbn")) as source:
        stream = np.concatenate([*bare(source)])
    sampler = IntervalSampler(minute_ns, depth=1)
    shown = [*sampler.update(batch(stream)), *sampler.close()]
    times = [snapshot.ts_ns for snapshot in shown]
    assert all(ts_ns % minute_ns == 0 for ts_ns in times)
    assert times == ((np.unique(stream["ts_recv"] // minute_ns) + 1) * minute_ns).tolist()


@pytest.mark.parametrize("depth", [1, 3, None])
def test_depth(depth, real_data):
    sampler = FinalSampler(depth)
    with open_source(str(real_data / "CLX5_mbo.dbn")) as source:
        for records in source:
            assert [*sampler.update(records)] == []
    [snapshot] = sampler.close()
    assert (snapshot.bid_levels, snapshot.ask_levels, snapshot.total_orders) == (61, 52, 147)
    assert len(snapshot.bids) == (depth or 61)
    assert len(snapshot.asks) == (depth or 52)
