"""One ladder for all publishers of a symbol equals what plain sums over their books give."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtool.core.batch import Resolver
from mdtool.core.instruments import Instruments
from mdtool.engine.book.consolidate import Consolidation
from mdtool.engine.book.sampling import FinalSampler, IntervalSampler
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import BookView
from tests.support.book_streams import LAST, NOON, SNAPSHOT, UNDEF_PRICE, as_mbo, deep, wild

U32 = 2**32 - 1


@st.composite
def across_publishers(draw: st.DrawFn) -> np.ndarray:
    """A deep stream of one symbol, dealt to three publishers; their order ids collide."""
    stream = draw(deep(70))
    n = len(stream)
    stream["publisher_id"] = draw(st.lists(st.integers(1, 3), min_size=n, max_size=n))
    return stream


def without_snapshots(stream: np.ndarray) -> np.ndarray:
    """Leave out the flag: an add that opens a snapshot and is unusable gives no depth record."""
    stream["flags"] &= ~np.uint8(SNAPSHOT)
    return stream


stream_of_publishers = across_publishers() | wild(50).map(without_snapshots)


def plain(books: Books, table: Instruments, symbol: int, limit: int = 2**63) -> list[list[tuple]]:
    """The bids and asks of all books of a symbol, summed price by price."""
    sides = []
    for side in ("B", "A"):
        sizes: Counter[int] = Counter()
        counts: Counter[int] = Counter()
        for instrument in books.instruments().tolist():
            if table.first_of_symbol[instrument] == symbol:
                for price, size, count in BookView(books, instrument).levels(side).tolist():
                    sizes[price] += min(size, limit)
                    counts[price] += count
        ordered = sorted(sizes, reverse=side == "B")
        sides.append([(price, min(sizes[price], limit), counts[price]) for price in ordered])
    return sides


def shown(record: np.void, depth: int) -> list[list[tuple]]:
    return [
        [
            (price, int(record[f"{side}_sz_{k:02}"]), int(record[f"{side}_ct_{k:02}"]))
            for k in range(depth)
            if (price := int(record[f"{side}_px_{k:02}"])) != UNDEF_PRICE
        ]
        for side in ("bid", "ask")
    ]


@pytest.mark.parametrize("depth", [1, 10])
@settings(max_examples=25)
@given(stream=stream_of_publishers, cut=st.integers(1, 200))
def test_depth_records(depth, stream, cut):
    table = Instruments()
    resolver = Resolver(table, "tests")
    joined, books, expected = Consolidation(table, depth), Books(), Books()
    made = []
    for begin in range(0, len(stream), cut):
        for events in books.events(resolver.batch(stream[begin : begin + cut]), depth):
            made += [*joined.update(events).records]
    wanted, before = [], {}
    for at in range(len(stream)):
        one = resolver.batch(stream[at : at + 1])
        expected.apply(one)
        symbol = int(table.first_of_symbol[one.instrument[0]])
        sides = [side[:depth] for side in plain(expected, table, symbol, U32)]
        last = before.get(symbol, [[], []])
        if sides != last or stream["action"][at] == b"T":
            wanted.append((int(stream["sequence"][at]), sides, _first_change(last, sides, depth)))
        before[symbol] = sides
    got = [(int(r["sequence"]), shown(r, depth), int(r["depth"])) for r in made]
    assert got == wanted
    assert {int(record["publisher_id"]) for record in made} <= {0}


def _first_change(last: list, now: list, depth: int) -> int:
    changed = (
        level
        for level in range(depth)
        for a, b in zip(last, now, strict=True)
        if a[level : level + 1] != b[level : level + 1]
    )
    return next(changed, 0)


@given(stream=stream_of_publishers, depth=st.none() | st.integers(1, 4))
def test_snapshots(stream, depth):
    table = Instruments()
    batch = Resolver(table, "tests").batch(stream)
    sampler = FinalSampler(depth, consolidated=table)
    assert [*sampler.update(batch)] == []
    found = [*sampler.close()]
    books = sampler.rebuild.books
    symbols = [table.first_of_symbol[each] for each in books.instruments().tolist()]
    assert [each.instrument for each in found] == [*dict.fromkeys(symbols)]
    for snapshot in found:
        bids, asks = plain(books, table, snapshot.instrument)
        assert snapshot.bids.tolist() == bids[:depth]
        assert snapshot.asks.tolist() == asks[:depth]
        assert (snapshot.bid_levels, snapshot.ask_levels) == (len(bids), len(asks))
        views = [
            BookView(books, each)
            for each in books.instruments().tolist()
            if table.first_of_symbol[each] == snapshot.instrument
        ]
        assert snapshot.total_orders == sum(view.total_orders for view in views)
        assert snapshot.is_partial == any(view.is_partial for view in views)
        assert snapshot.publisher_id == 0


def test_intervals_have_the_publishers_that_did_not_change():
    table = Instruments()
    resolver = Resolver(table, "tests")
    rows = [(1, 1, b"B", 99, 5, 0), (2, 2, b"B", 99, 7, 0), (2, 3, b"A", 101, 1, 1)]
    stream = np.concatenate([order(*row) for row in rows])
    sampler = IntervalSampler(10**9, consolidated=table)
    found = [*sampler.update(resolver.batch(stream)), *sampler.close()]
    assert [snapshot.bids.tolist() for snapshot in found] == [[(99, 12, 2)], [(99, 12, 2)]]
    assert [snapshot.asks.tolist() for snapshot in found] == [[], [(101, 1, 1)]]


def order(publisher: int, order_id: int, side: bytes, price: int, size: int, second: int):
    ts = NOON + second * 10**9
    return as_mbo([(publisher, 7, order_id, price, size, LAST, b"A", side, ts, ts)])
