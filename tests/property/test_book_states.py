"""What is told of a book after each record is what can be asked of it there."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.units import UNDEF_PRICE
from mdtool.engine.book.kernel import BOTH_SIDES
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import BookView
from tests.support.book_streams import deep, wild, with_snapshots
from tests.support.instruments import batch, index_of


@given(stream=st.one_of(wild(), deep(), with_snapshots()), depth=st.sampled_from([1, 3, 10, 60]))
def test_a_row_for_every_record_tells_of_its_book(stream, depth):
    told, asked = Books(), Books()
    rows = np.concatenate(
        [np.empty((0, 9 + 4 * depth), np.int64), *told.states(batch(stream), depth)]
    )
    assert len(rows) == len(stream)
    for at, row in enumerate(rows):
        asked.apply(batch(stream[at : at + 1]))
        record = stream[at]
        view = BookView(asked, index_of(int(record["publisher_id"]), int(record["instrument_id"])))
        assert (row[0].item() >> 16) % 2**48 == view.instrument_id << 16 | view.publisher_id
        assert row[1] == record["ts_event"].view("i8")
        assert row[2] == record["price"]
        assert row[3] & 0xFFFFFFFF == record["size"]
        assert bytes([(row[3] >> 32) & 0xFF, (row[3] >> 40) & 0xFF]) == (
            record["action"] + record["side"]
        )
        assert (row[3] >> 48) & 0xFF == record["flags"]
        assert row[4] == record["ts_recv"].view("i8")
        assert (row[5].item() >> 32) % 2**32 == record["sequence"]
        for side, offset in (("B", 0), ("A", 1)):
            levels = view.levels(side, depth)
            shown = row[6 : 6 + 4 * depth].reshape(depth, 4)
            prices, sizes, counts = (
                shown[:, offset],
                (shown[:, 2] >> 32 * offset) & 0xFFFFFFFF,
                (shown[:, 3] >> 32 * offset) & 0xFFFFFFFF,
            )
            assert prices[: len(levels)].tolist() == levels["price"].tolist()
            assert sizes[: len(levels)].tolist() == np.minimum(levels["size"], 2**32 - 1).tolist()
            assert counts[: len(levels)].tolist() == levels["count"].tolist()
            assert set(prices[len(levels) :].tolist()) <= {UNDEF_PRICE}
            assert not sizes[len(levels) :].any()
        total_orders, levels_of_both, unknown_sides = row[-3:].tolist()
        assert total_orders == view.total_orders
        assert levels_of_both & 0xFFFFFFFF == view.level_count("B")
        assert levels_of_both >> 32 == view.level_count("A")
        assert (unknown_sides & BOTH_SIDES != 0) == view.is_partial


@given(stream=wild())
def test_a_copy_goes_its_own_way(stream):
    books = Books()
    books.apply(batch(stream))
    before = [array.tobytes() for array in books.state]
    copied = books.copy()
    copied.apply(batch(stream))
    assert [array.tobytes() for array in books.state] == before
