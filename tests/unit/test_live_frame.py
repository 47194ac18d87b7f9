"""What a frame shows of a book: plain values, and what is worked out of them."""

from __future__ import annotations

import numpy as np
import pytest

from mdtool.cli.live.frame import (
    Ladder,
    Level,
    Print,
    Touch,
    bar_scale,
    ladder_of,
    price_text,
)
from mdtool.cli.screen import printable
from mdtool.core.dtypes import F_LAST, MBO, RTYPE_MBO, record_length
from mdtool.core.units import PRICE_SCALE, UNDEF_PRICE
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import BookView
from tests.support.instruments import batch, index_of

ONE = PRICE_SCALE


def mbo(*rows: tuple) -> np.ndarray:
    """Records of one instrument, each (action, side, price, size, order_id)."""
    records = np.zeros(len(rows), MBO)
    records["length"], records["rtype"] = record_length(MBO), RTYPE_MBO
    records["publisher_id"], records["instrument_id"], records["flags"] = 1, 7, F_LAST
    for name, values in zip(
        ("action", "side", "price", "size", "order_id"), zip(*rows, strict=True), strict=True
    ):
        records[name] = values
    return records


def ladder(*rows: tuple, depth: int = 10) -> Ladder:
    books, records = Books(), mbo(*rows)
    books.apply(batch(records))
    trades = records[records["action"] == b"T"][::-1]
    return ladder_of(BookView(books, index_of(1, 7)), trades, depth)


CLEAR = ("R", "N", UNDEF_PRICE, 0, 0)
BOOK = (
    CLEAR,
    ("A", "B", 99 * ONE, 5, 1),
    ("A", "B", 99 * ONE, 3, 2),
    ("A", "B", 98 * ONE, 1, 3),
    ("A", "A", 100 * ONE, 20, 4),
    ("A", "A", 101 * ONE, 7, 5),
    ("T", "B", 100 * ONE, 2, 0),
    ("T", "A", 99 * ONE, 4, 0),
)


def test_a_ladder_has_the_levels_best_first_and_the_counts_of_all():
    shown = ladder(*BOOK, depth=1)
    assert shown.bids == (Level(99 * ONE, 8, 2),)
    assert shown.asks == (Level(100 * ONE, 20, 1),)
    assert (shown.bid_levels, shown.ask_levels, shown.orders) == (2, 2, 5)
    assert (shown.records, shown.trades, shown.volume) == (len(BOOK), 2, 6)
    assert not shown.is_partial
    assert shown.anomalies == ()


def test_trades_stand_as_they_are_given():
    assert ladder(*BOOK).prints == (Print(0, 99 * ONE, 4, "A"), Print(0, 100 * ONE, 2, "B"))


def test_ladders_of_the_same_book_are_equal():
    assert ladder(*BOOK) == ladder(*BOOK)
    assert ladder(*BOOK) != ladder(*BOOK[:-1])


def test_a_stream_without_a_beginning_is_partial_and_anomalies_come_most_first():
    shown = ladder(
        ("M", "B", 99 * ONE, 1, 50), ("C", "B", 0, 1, 8), ("C", "B", 0, 1, 9), ("C", "B", 0, 1, 10)
    )
    assert shown.is_partial
    assert shown.anomalies == (("unknown_cancel", 3), ("unknown_modify", 1))


@pytest.mark.parametrize(
    ("bid", "ask", "touch", "spread"),
    [(99, 100, None, 1), (100, 100, Touch.LOCKED, 0), (101, 100, Touch.CROSSED, -1)],
)
def test_what_is_wrong_with_the_best_prices(bid, ask, touch, spread):
    shown = ladder(CLEAR, ("A", "B", bid * ONE, 1, 1), ("A", "A", ask * ONE, 1, 2))
    assert (shown.touch, shown.spread) == (touch, spread * ONE)


def test_an_empty_side_has_no_spread():
    shown = ladder(CLEAR, ("A", "B", 99 * ONE, 1, 1))
    assert (shown.spread, shown.touch, shown.asks) == (None, None, ())


@pytest.mark.parametrize(
    ("price", "decimals"),
    [(5 * ONE, 2), (5 * ONE + ONE // 4, 2), (5 * ONE + ONE // 8, 3), (1, 9), (-ONE // 64, 6)],
)
def test_prices_have_the_decimals_that_they_need(price, decimals):
    assert ladder(CLEAR, ("A", "B", price, 1, 1)).decimals == decimals


def test_a_trade_without_a_price_needs_no_decimals():
    assert ladder(CLEAR, ("T", "N", UNDEF_PRICE, 1, 0)).decimals == 2


@pytest.mark.parametrize(
    ("largest", "scale"),
    [(1, 1), (2, 2), (3, 5), (9, 10), (10, 10), (11, 20), (51, 100), (4_217, 5_000)],
)
def test_bars_are_of_a_round_scale(largest, scale):
    assert bar_scale(ladder(CLEAR, ("A", "B", ONE, largest, 1), ("A", "A", 2 * ONE, 1, 2))) == scale


def test_an_empty_book_has_a_scale_too():
    assert bar_scale(ladder(CLEAR)) == 1


@pytest.mark.parametrize(
    ("price", "decimals", "text"),
    [
        (65_400_000_000, 2, "65.40"),
        (-250_000_000, 2, "-0.25"),
        (15_625_000, 6, "0.015625"),
        (1, 9, "0.000000001"),
        (UNDEF_PRICE, 2, "-"),
    ],
)
def test_prices_as_text(price, decimals, text):
    assert price_text(price, decimals) == text


def test_control_characters_are_not_printed():
    assert printable("ES\x1b[2JM4\x07\n\x9b") == "ES?[2JM4???"
    assert printable("Zürich €") == "Zürich €"
