"""The rules of an order book one by one, and what can be asked of a book."""

from __future__ import annotations

import numpy as np
import pytest

from mdtool.core.dtypes import (
    F_LAST,
    F_MAYBE_BAD_BOOK,
    F_SNAPSHOT,
    F_TOB,
    MBO,
    RTYPE_MBO,
    TRADE,
    record_length,
)
from mdtool.core.units import UNDEF_ORDER_SIZE, UNDEF_PRICE, UNDEF_TIMESTAMP
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import BookView, views
from tests.support.instruments import bare, batch, index_of

DAY = 86_400 * 10**9


def mbo(
    action: str,
    side: str = "N",
    price: int = UNDEF_PRICE,
    size: int = 0,
    order_id: int = 0,
    **fields,
):
    """Return one MBO record of instrument 7 at publisher 1, flagged F_LAST."""
    record = np.zeros(1, MBO)
    record["length"], record["rtype"] = record_length(MBO), RTYPE_MBO
    told = {
        "publisher_id": 1, "instrument_id": 7, "action": action, "side": side, "price": price,
        "size": size, "order_id": order_id, "flags": F_LAST, **fields,
    }  # fmt: skip
    for name, value in told.items():
        record[name] = value
    return record


def add(side: str, price: int, size: int, order_id: int, **fields):
    return mbo("A", side, price, size, order_id, **fields)


def cancel(order_id: int, size: int, side: str = "B", price: int = 0):
    return mbo("C", side, price, size, order_id)


def modify(side: str, price: int, size: int, order_id: int):
    return mbo("M", side, price, size, order_id)


def book_of(*records: np.ndarray) -> BookView:
    books = Books()
    books.apply(batch(np.concatenate(records)))
    return BookView(books, index_of(1, 7))


def depth_of(*records: np.ndarray, shown: int = 10) -> list[tuple]:
    """Return action, depth, and the best levels as (bid, ask, sizes, counts), of each record."""
    books = Books()
    return [
        (made["action"].decode(), int(made["depth"]), made["bid_px_00"], made["ask_px_00"])
        for run in bare(books.events(batch(np.concatenate(records)), shown))
        for made in run
    ]


def queue(book: BookView, side: str) -> list[tuple[int, int, int]]:
    """Return the orders of a side as (id, price, size)."""
    return [(int(o["order_id"]), int(o["price"]), int(o["size"])) for o in book.orders(side)]


CLEAR = mbo("R")
THREE = np.concatenate([CLEAR, add("B", 100, 5, 1), add("B", 100, 3, 2), add("B", 100, 4, 3)])


def test_orders_queue_at_the_tail_of_their_level():
    book = book_of(THREE)
    assert queue(book, "B") == [(1, 100, 5), (2, 100, 3), (3, 100, 4)]
    assert book.orders("B")["position"].tolist() == [0, 1, 2]
    assert book.best("B") == (100, 12, 3)
    assert book.queue_position(3) == ("B", 100, 4, 2, 8)


def test_levels_are_best_first():
    book = book_of(
        THREE, add("B", 102, 1, 4), add("B", 99, 1, 5), add("A", 105, 1, 6), add("A", 104, 2, 7)
    )
    assert book.levels("B").tolist() == [(102, 1, 1), (100, 12, 3), (99, 1, 1)]
    assert book.levels("A").tolist() == [(104, 2, 1), (105, 1, 1)]
    assert book.levels("B", 2).tolist() == [(102, 1, 1), (100, 12, 3)]
    assert book.levels("B", 0).tolist() == []
    assert [book.level_count(side) for side in "BA"] == [3, 2]
    assert book.orders("A", 105)["order_id"].tolist() == [6]
    assert book.orders("A", 106).tolist() == []


def test_a_cancel_takes_away_and_leaves_the_order_in_its_place():
    book = book_of(THREE, cancel(2, 1))
    assert queue(book, "B") == [(1, 100, 5), (2, 100, 2), (3, 100, 4)]
    assert book.anomalies == {}


def test_a_cancel_of_all_removes_the_order_and_the_last_one_the_level():
    book = book_of(THREE, cancel(2, 3), cancel(1, 5), cancel(3, 4))
    assert book.total_orders == 0
    assert book.level_count("B") == 0
    assert book.best("B") == (UNDEF_PRICE, 0, 0)
    assert book.queue_position(1) is None


def test_a_cancel_of_more_than_rests_removes_the_order_and_is_counted():
    book = book_of(THREE, cancel(2, 4))
    assert queue(book, "B") == [(1, 100, 5), (3, 100, 4)]
    assert book.anomalies == {"over_cancel": 1}


def test_a_cancel_of_an_unknown_order_is_counted_with_its_first_record():
    book = book_of(THREE, cancel(9, 1), cancel(8, 1))
    assert book.total_orders == 3
    assert book.anomalies == {"unknown_cancel": 2}
    assert book.first_anomaly("unknown_cancel") == len(THREE)
    assert book.first_anomaly("over_cancel") is None


@pytest.mark.parametrize(
    ("change", "queued"),
    [
        (modify("B", 100, 5, 1), [(1, 100, 5), (2, 100, 3), (3, 100, 4)]),
        (modify("B", 100, 2, 1), [(1, 100, 2), (2, 100, 3), (3, 100, 4)]),
        (modify("B", 100, 6, 1), [(2, 100, 3), (3, 100, 4), (1, 100, 6)]),
        (modify("B", 101, 5, 1), [(1, 101, 5), (2, 100, 3), (3, 100, 4)]),
        (modify("B", 99, 1, 1), [(2, 100, 3), (3, 100, 4), (1, 99, 1)]),
        (modify("N", 100, 6, 1), [(2, 100, 3), (3, 100, 4), (1, 100, 6)]),
        (modify("B", 100, 0, 1), [(2, 100, 3), (3, 100, 4)]),
    ],
    ids=["same", "smaller", "larger", "better price", "worse price", "no side", "to nothing"],
)
def test_a_modify_keeps_the_place_of_what_does_not_grow_or_move(change, queued):
    book = book_of(THREE, change)
    assert queue(book, "B") == queued
    assert book.anomalies == {}


def test_a_modify_of_an_unknown_order_adds_it():
    book = book_of(THREE, modify("A", 103, 2, 9))
    assert queue(book, "A") == [(9, 103, 2)]
    assert book.anomalies == {"unknown_modify": 1}


def test_a_modify_of_an_unknown_order_to_nothing_adds_nothing():
    book = book_of(THREE, modify("A", 103, 0, 9))
    assert book.level_count("A") == 0
    assert book.anomalies == {"unknown_modify": 1}


def test_a_modify_that_changes_the_side_moves_the_order_and_is_counted():
    book = book_of(THREE, modify("A", 103, 5, 1))
    assert queue(book, "B") == [(2, 100, 3), (3, 100, 4)]
    assert queue(book, "A") == [(1, 103, 5)]
    assert book.anomalies == {"side_change": 1}


def test_a_second_add_of_an_order_replaces_the_first_and_is_counted():
    book = book_of(THREE, add("B", 100, 1, 1), add("A", 103, 2, 2))
    assert queue(book, "B") == [(3, 100, 4), (1, 100, 1)]
    assert queue(book, "A") == [(2, 103, 2)]
    assert book.anomalies == {"duplicate_add": 2}


@pytest.mark.parametrize(
    "record",
    [
        add("N", 100, 1, 9),
        add("B", UNDEF_PRICE, 1, 9),
        add("B", 100, 0, 9),
        add("B", 100, 0, 1),
        add("B", 100, UNDEF_ORDER_SIZE, 9),
        modify("N", 100, 1, 9),
        modify("B", UNDEF_PRICE, 1, 1),
        modify("B", 100, UNDEF_ORDER_SIZE, 1),
        add("N", 100, 1, 0, flags=F_TOB),
        add("B", 100, UNDEF_ORDER_SIZE, 0, flags=F_TOB),
        mbo("X"),
        mbo(""),
    ],
)
def test_what_tells_of_no_order_is_counted_and_changes_nothing(record):
    book = book_of(THREE, record)
    assert book.orders("B").tolist() == book_of(THREE).orders("B").tolist()
    assert book.level_count("A") == 0
    assert book.anomalies == {"unusable": 1}


def test_trades_fills_and_others_never_change_the_book():
    trade = mbo("T", "A", 100, 5, 0, ts_event=17)
    book = book_of(THREE, trade, mbo("F", "B", 100, 5, 1), mbo("F", "B", 1, 1, 99), mbo("N"))
    assert book.orders("B").tolist() == book_of(THREE).orders("B").tolist()
    assert book.anomalies == {}
    assert book.records == len(THREE) + 4
    assert (book.trades, book.volume) == (1, 5)
    assert book.last_trade == (100, 5, "A", 17)


def test_trades_without_a_size_are_trades():
    book = book_of(mbo("T", "N", 100, 0), mbo("T", "N", 100, UNDEF_ORDER_SIZE))
    assert (book.trades, book.volume) == (2, 0)


def test_a_clear_is_of_one_instrument_at_one_publisher():
    books = Books()
    others = [{"publisher_id": 2}, {"instrument_id": 8}, {"publisher_id": 8, "instrument_id": 1}]
    adds = [add("B", 100, 5, 1, **other) for other in [{}, *others]]
    books.apply(batch(np.concatenate([*adds, CLEAR])))
    shown = [*views(books)]
    assert [view.total_orders for view in shown] == [0, 1, 1, 1]
    ids = [(view.publisher_id, view.instrument_id) for view in shown]
    assert ids == [(1, 7), (2, 7), (1, 8), (8, 1)]
    assert [view.is_partial for view in shown] == [False, True, True, True]


def test_the_highest_ids_and_the_lowest_prices_are_orders_like_others():
    lowest = -(2**63)
    book = book_of(
        add("B", lowest, 1, 2**64 - 1),
        add("B", 0, 1, 2**63),
        add("A", lowest, 1, 1),
        add("A", 5, 1, 2),
    )
    assert book.levels("B")["price"].tolist() == [0, lowest]
    assert book.levels("A")["price"].tolist() == [lowest, 5]
    assert book.queue_position(2**64 - 1) == ("B", lowest, 1, 0, 0)
    assert book.orders("B")["order_id"].tolist() == [2**63, 2**64 - 1]
    [*_, last] = depth_of(add("A", 5, 1, 2), add("A", lowest, 1, 1))
    assert last == ("A", 0, UNDEF_PRICE, lowest)


def test_a_top_of_book_record_is_its_side_and_no_order():
    book = book_of(THREE, add("B", 101, 7, 0, flags=F_TOB), add("A", 103, 9, 0, flags=F_TOB))
    assert book.levels("B").tolist() == [(101, 7, 0)]
    assert book.levels("A").tolist() == [(103, 9, 0)]
    assert book.total_orders == 0
    assert queue(book, "B") == []
    assert book.queue_position(1) is None


def test_orders_may_come_and_go_at_the_price_of_a_top_of_book_record():
    quoted = add("B", 101, 7, 0, flags=F_TOB)
    book = book_of(quoted, add("B", 101, 2, 5))
    assert book.levels("B").tolist() == [(101, 9, 1)]
    assert queue(book, "B") == [(5, 101, 2)]
    for gone in (cancel(5, 2), modify("B", 101, 0, 5)):
        left = book_of(quoted, add("B", 101, 2, 5), gone)
        assert left.levels("B").tolist() == [(101, 7, 0)]
    moved = book_of(quoted, add("B", 101, 2, 5), modify("B", 99, 2, 5))
    assert moved.levels("B").tolist() == [(101, 7, 0), (99, 2, 1)]


@pytest.mark.parametrize("empty", [(UNDEF_PRICE, 0), (UNDEF_PRICE, 3), (101, 0)])
def test_a_top_of_book_record_without_a_price_or_size_empties_its_side(empty):
    quoted = [add("B", 101, 7, 0, flags=F_TOB), add("A", 103, 9, 0, flags=F_TOB)]
    book = book_of(*quoted, add("B", *empty, 0, flags=F_TOB))
    assert book.level_count("B") == 0
    assert book.levels("A").tolist() == [(103, 9, 0)]
    assert book.anomalies == {}


def test_a_book_of_top_of_book_records_is_whole_once_both_sides_are_known():
    bid, ask = add("B", 101, 7, 0, flags=F_TOB), add("A", 103, 9, 0, flags=F_TOB)
    assert book_of(bid, bid).is_partial
    assert not book_of(bid, ask).is_partial


def test_a_stream_that_starts_within_a_session_is_partial_until_a_clear():
    assert book_of(add("B", 100, 1, 1)).is_partial
    assert not book_of(add("B", 100, 1, 1), CLEAR).is_partial


def test_a_snapshot_without_a_clear_starts_the_book_anew():
    snapshot = [
        add("B", 90, 1, 11, flags=F_SNAPSHOT, ts_recv=DAY),
        add("B", 91, 1, 12, flags=F_SNAPSHOT | F_LAST, ts_recv=DAY),
    ]
    later = [
        add("B", 80, 1, 13, flags=F_SNAPSHOT, ts_recv=2 * DAY),
        add("B", 81, 1, 14, flags=F_SNAPSHOT | F_LAST, ts_recv=2 * DAY),
    ]
    for stream in ([THREE, *snapshot], [THREE[1:], *snapshot], snapshot):
        book = book_of(*stream)
        assert queue(book, "B") == [(12, 91, 1), (11, 90, 1)]
        assert not book.is_partial
        assert book.anomalies == {}
    for stream in ([*snapshot, *later], [*snapshot, mbo("N", ts_recv=DAY), *later]):
        assert queue(book_of(*stream), "B") == [(14, 81, 1), (13, 80, 1)]


def test_a_snapshot_of_one_instrument_leaves_others_and_is_not_broken_by_them():
    books = Books()
    marks = {"flags": F_SNAPSHOT, "ts_recv": DAY}
    books.apply(
        batch(
            np.concatenate(
                [
                    add("B", 90, 1, 1, **marks),
                    add("B", 70, 1, 1, instrument_id=8),
                    add("B", 91, 1, 2, **marks),
                ]
            )
        )
    )
    totals = [BookView(books, key).total_orders for key in books.instruments().tolist()]
    assert totals == [2, 1]


def test_crossed_and_locked_are_counted_where_an_event_ends():
    within = [add("B", 100, 1, 1), add("A", 99, 1, 2, flags=0)]
    assert book_of(*within).anomalies == {}
    assert book_of(*within, cancel(2, 1)).anomalies == {}
    assert book_of(*within, mbo("N")).anomalies == {"crossed": 1}
    assert book_of(*within, mbo("T"), mbo("F")).anomalies == {"crossed": 2}
    assert book_of(add("B", 100, 1, 1), add("A", 100, 1, 2)).anomalies == {"locked": 1}


def test_time_going_backwards_and_doubtful_books_are_counted():
    at = [mbo("N", ts_recv=ts) for ts in (5, 5, UNDEF_TIMESTAMP, 4, 3)]
    assert book_of(*at).anomalies == {"time_backwards": 1}
    assert book_of(mbo("N", flags=F_MAYBE_BAD_BOOK)).anomalies == {"maybe_bad_book": 1}


def test_the_last_record_s_times_and_sequence_are_told():
    book = book_of(mbo("N", ts_event=UNDEF_TIMESTAMP, ts_recv=9, sequence=2**32 - 1))
    assert (book.ts_event, book.ts_recv, book.sequence) == (UNDEF_TIMESTAMP, 9, 2**32 - 1)


def test_a_book_that_no_record_spoke_of_is_not_there():
    with pytest.raises(KeyError):
        BookView(Books(), index_of(1, 7))


def test_other_records_than_mbo_are_refused():
    with pytest.raises(TypeError, match="MBO records are expected"):
        Books().apply(batch(np.zeros(1, TRADE)))


LADDER = np.concatenate([CLEAR, *(add("B", 100 - i, 1, 1 + i) for i in range(12))])
"""Bids from 100 down to 89, twelve levels."""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (add("B", 100, 1, 50), ("A", 0, 100, UNDEF_PRICE)),
        (add("B", 91, 1, 50), ("A", 9, 100, UNDEF_PRICE)),
        (add("B", 90, 1, 50), None),
        (add("A", 101, 1, 50), ("A", 0, 100, 101)),
        (cancel(1, 1), ("C", 0, 99, UNDEF_PRICE)),
        (cancel(10, 1), ("C", 9, 100, UNDEF_PRICE)),
        (cancel(11, 1), None),
        (cancel(99, 1), None),
        (modify("B", 98, 1, 3), ("M", 2, 100, UNDEF_PRICE)),
        (modify("B", 101, 1, 12), ("M", 0, 101, UNDEF_PRICE)),
        (modify("B", 80, 1, 3), ("M", 2, 100, UNDEF_PRICE)),
        (modify("B", 88, 1, 12), None),
        (modify("A", 120, 1, 12), ("M", 0, 100, 120)),
        (mbo("T", "A", 100, 1), ("T", 0, 100, UNDEF_PRICE)),
        (mbo("F", "B", 100, 1, 1), None),
        (mbo("N"), None),
        (CLEAR, ("R", 0, UNDEF_PRICE, UNDEF_PRICE)),
        (add("B", 103, 1, 0, flags=F_TOB), ("A", 0, 103, UNDEF_PRICE)),
        (add("B", UNDEF_PRICE, 0, 0, flags=F_TOB), ("A", 0, UNDEF_PRICE, UNDEF_PRICE)),
        (add("N", 100, 1, 50), None),
    ],
)
def test_a_depth_record_is_made_of_what_strikes_the_ten_best_levels(change, expected):
    made = depth_of(LADDER, change)[len(depth_of(LADDER)) :]
    assert made == ([expected] if expected else [])


def test_an_order_that_leaves_the_shown_levels_is_told_where_it_was():
    [*_, last] = depth_of(LADDER, modify("B", 80, 1, 1), shown=1)
    assert last == ("M", 0, 99, UNDEF_PRICE)


def test_every_record_of_an_event_makes_its_own_depth_record():
    rows = np.concatenate([CLEAR, add("B", 5, 1, 1, flags=0), add("B", 6, 1, 2)])
    made = np.concatenate([*bare(Books().events(batch(rows)))])
    assert made["flags"].tolist() == [F_LAST, 0, F_LAST]
    assert made["bid_px_00"].tolist() == [UNDEF_PRICE, 5, 6]


@pytest.mark.parametrize(("side", "name"), [("B", "bid"), ("A", "ask")])
def test_a_size_beyond_32_bits_is_shown_as_the_largest(side, name):
    half = UNDEF_ORDER_SIZE - 1
    records = np.concatenate([add(side, 5, half, 1), add(side, 5, half, 2)])
    book = book_of(records)
    assert book.best(side) == (5, 2 * half, 2)
    [_, made] = np.concatenate([*bare(Books().events(batch(records)))])
    assert (made[f"{name}_sz_00"], made[f"{name}_ct_00"]) == (UNDEF_ORDER_SIZE, 2)


def test_an_iteration_broken_off_leaves_the_rest_unapplied():
    books = Books()
    adds = np.concatenate([add("B", i, 1, i) for i in range(1, 20_001)])
    for _ in books.events(batch(adds), 1):
        break
    assert 0 < BookView(books, index_of(1, 7)).total_orders < 20_000
