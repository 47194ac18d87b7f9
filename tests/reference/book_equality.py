"""Whether the kernel's books and the reference's say the same, in all that can be asked of them."""

from __future__ import annotations

from mdtool.core.units import UNDEF_PRICE
from mdtool.engine.book.state import BookKey, Books
from mdtool.engine.book.view import ANOMALIES, BookView, Quote
from tests.reference.book import UNDEF_SIZE, Book, Mbo, ReferenceBooks


def assert_same(books: Books, reference: ReferenceBooks) -> None:
    """Compare every book."""
    assert [(key.publisher_id, key.instrument_id) for key in books.book_keys()] == [
        *reference.books
    ]
    for key, book in zip(books.book_keys(), reference.books.values(), strict=True):
        view = BookView(books, key)
        assert_same_counts(view, book)
        for side in "BA":
            assert_same_levels(view, book, side)
            assert_same_orders(view, book, side)
        assert view.total_orders == len(book.orders)


def assert_same_near(books: Books, reference: ReferenceBooks, record: Mbo) -> None:
    """Compare what a record that was just applied can have changed: levels, and the two queues."""
    key = (record.publisher_id, record.instrument_id)
    view, book = BookView(books, BookKey(*key)), reference.books[key]
    assert_same_counts(view, book)
    for side in "BA":
        assert_same_levels(view, book, side)
    assert_same_position(view, book, record.order_id)
    if record.side in (b"B", b"A") and record.price != UNDEF_PRICE:
        assert_same_orders(view, book, record.side.decode(), record.price)


def assert_same_levels(view: BookView, book: Book, side: str) -> None:
    prices = book.prices(side.encode())
    levels = [
        (price, level.size, len(level.queue))
        for price in prices
        for level in [book.levels[side.encode()][price]]
    ]
    assert view.levels(side).tolist() == levels
    assert view.levels(side, 2).tolist() == levels[:2]
    assert view.level_count(side) == len(levels)
    assert view.best(side) == (levels[0] if levels else Quote(UNDEF_PRICE, 0, 0))


def assert_same_orders(view: BookView, book: Book, side: str, price: int | None = None) -> None:
    orders = [
        (order_id, order.price, order.size, order.ts_event, position)
        for at in book.prices(side.encode())
        if price in (None, at)
        for position, (order_id, order) in enumerate(book.levels[side.encode()][at].queue.items())
    ]
    assert view.orders(side, price).tolist() == orders


def assert_same_position(view: BookView, book: Book, order_id: int) -> None:
    order = book.orders.get(order_id)
    if order is None:
        assert view.queue_position(order_id) is None
        return
    queue = book.levels[order.side][order.price].queue
    ahead = [*queue][: [*queue].index(order_id)]
    assert view.queue_position(order_id) == (
        order.side.decode(),
        order.price,
        order.size,
        len(ahead),
        sum(queue[other].size for other in ahead),
    )


def assert_same_counts(view: BookView, book: Book) -> None:
    assert view.records == book.records
    assert view.is_partial == bool(book.unknown_sides)
    assert view.anomalies == {
        kind: book.anomalies[kind] for kind in ANOMALIES if kind in book.anomalies
    }
    assert {kind: view.first_anomaly(kind) for kind in view.anomalies} == book.first_anomaly
    assert book.last is not None
    assert (view.ts_event, view.ts_recv, view.sequence) == (
        book.last.ts_event,
        book.last.ts_recv,
        book.last.sequence,
    )
    assert view.trades == len(book.trades)
    assert view.volume == sum(t.size for t in book.trades if t.size != UNDEF_SIZE)
    if book.trades:
        last = book.trades[-1]
        assert view.last_trade == (last.price, last.size, last.side.decode(), last.ts_event)
    else:
        assert view.last_trade is None
