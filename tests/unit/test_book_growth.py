"""Books grow past every size they begin with, and what is freed is used again."""

from __future__ import annotations

import numpy as np
import pytest

from mdtool.core.dtypes import F_TOB, MBO
from mdtool.core.units import UNDEF_PRICE
from mdtool.engine.book.state import EMIT_ROWS, FIRST_ROWS, Books
from mdtool.engine.book.view import BookView
from tests.reference.book import ReferenceBooks, mbo_of
from tests.reference.book_equality import assert_same
from tests.support.instruments import bare, batch, index_of


def stream(count: int, **fields: object) -> np.ndarray:
    """Return adds of one lot each, with ids that count, and these fields."""
    records = np.zeros(count, MBO)
    records["publisher_id"], records["action"], records["side"] = 1, b"A", b"B"
    records["order_id"], records["size"], records["price"] = np.arange(count), 1, 100
    for name, value in fields.items():
        records[name] = value
    return records


def random_stream(seed: int, count: int) -> np.ndarray:
    """Return records of a few instruments of which most are sensible, with many orders resting."""
    rng = np.random.default_rng(seed)
    side = rng.integers(0, 2, count)
    actions = np.frombuffer(b"AAAAAAAACCCMMTFNR", "S1")
    often = np.r_[np.full(16, 1.0), 0.002]
    return stream(
        count,
        instrument_id=rng.integers(0, 3, count),
        order_id=rng.integers(0, 6_000, count),
        action=rng.choice(actions, count, p=often / often.sum()),
        side=np.where(side == 0, b"B", b"A"),
        price=np.where(side == 0, -1, 1) * rng.integers(1, 3_000, count),
        size=rng.integers(0, 9, count),
        flags=rng.choice(np.array([0, 128], np.uint8), count),
    )


@pytest.mark.parametrize("seed", range(3))
def test_long_random_streams_leave_the_reference_s_books(seed):
    records = random_stream(seed, 4 * EMIT_ROWS)
    books, reference = Books(), ReferenceBooks()
    made = [record for run in bare(books.events(batch(records))) for record in run.tolist()]
    assert made == [*reference.depth_records(mbo_of(records), 10)]
    assert len(made) > EMIT_ROWS // 4
    assert max(len(book.orders) for book in reference.books.values()) > FIRST_ROWS
    assert_same(books, reference)


@pytest.mark.parametrize("order", ["rising", "falling", "at random"])
def test_thousands_of_levels(order):
    prices = np.arange(5 * FIRST_ROWS)
    if order == "falling":
        prices = prices[::-1]
    elif order == "at random":
        prices = np.random.default_rng(0).permutation(prices)
    for side in (b"B", b"A"):
        books = Books()
        books.apply(batch(stream(len(prices), price=prices, side=side)))
        view = BookView(books, index_of(1, 0))
        best_first = sorted(prices.tolist(), reverse=side == b"B")
        assert view.levels(side.decode())["price"].tolist() == best_first


def test_thousands_of_books():
    count = 3_000
    records = stream(2 * count, instrument_id=np.arange(2 * count) % count, order_id=5)
    records["order_id"][count:] = 6
    books = Books()
    books.apply(batch(records))
    keys = books.instruments().tolist()
    assert keys == [index_of(1, instrument_id) for instrument_id in range(count)]
    for key in keys[::100]:
        assert BookView(books, key).orders("B")["order_id"].tolist() == [5, 6]


def test_thousands_of_orders_in_one_queue():
    count = 20_000
    books = Books()
    books.apply(batch(stream(count)))
    view = BookView(books, index_of(1, 0))
    assert view.best("B") == (100, count, count)
    assert view.orders("B")["order_id"].tolist() == [*range(count)]
    assert view.queue_position(count - 1) == ("B", 100, 1, count - 1, count - 1)


@pytest.mark.parametrize("end", ["C", "R", "top of book"])
def test_what_comes_and_goes_takes_no_more_room(end):
    rounds = 50
    orders = stream(FIRST_ROWS // 2, price=np.arange(FIRST_ROWS // 2))
    gone = orders.copy()
    if end == "C":
        gone["action"] = b"C"
    elif end == "R":
        gone = stream(1, action=b"R")
    else:
        gone = stream(1, flags=F_TOB, price=UNDEF_PRICE)
    once, often = Books(), Books()
    once.apply(batch(np.concatenate([orders, gone])))
    for _ in range(rounds):
        often.apply(batch(np.concatenate([orders, gone])))
        orders["order_id"] += np.uint64(len(orders))
        if end == "C":
            gone["order_id"] = orders["order_id"]
    assert [len(rows) for rows in often.state] == [len(rows) for rows in once.state]
    view = BookView(often, index_of(1, 0))
    assert (view.total_orders, view.level_count("B")) == (0, 0)


@pytest.mark.parametrize(
    "ids",
    [
        {"order_id": np.arange(15_000)},
        {"order_id": 817_593 + 4 * np.arange(15_000)},
        {"order_id": np.arange(15_000, dtype=np.uint64) << np.uint64(48)},
        {"order_id": np.arange(1, 15_001, dtype=np.float64).view(np.uint64)},
        {"order_id": np.arange(15_000) % 150 + (np.arange(15_000) // 150 << 44)},
        {"order_id": np.full(15_000, 5), "instrument_id": np.arange(15_000)},
        {"order_id": np.arange(15_000) % 100, "instrument_id": np.arange(15_000) // 100},
    ],
    ids=["counted", "in steps", "high bits", "floats", "dated", "one id", "same ids"],
)
def test_ids_of_any_habit_lie_scattered(ids):
    """An order is looked for from its place on to the next gap: those must not be far apart."""
    books = Books()
    books.apply(batch(stream(15_000, **ids)))
    gaps = np.flatnonzero(books.state.ids[:, 1] == 0)
    assert len(books.state.ids) - len(gaps) == 15_000
    assert np.diff(gaps).max() < 150
