"""Whether the kernel's books and the reference's say the same, in all that can be asked of them."""

from __future__ import annotations

from mdtool.core.units import UNDEF_PRICE
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import ANOMALIES, BookView, Quote, views
from tests.reference.book import Book, Mbo, ReferenceBooks
from tests.support.instruments import index_of


def assert_same(books: Books, reference: ReferenceBooks) -> None:
    """Compare every book."""
    ours = [*views(books)]
    assert [(view.publisher_id, view.instrument_id) for view in ours] == [*reference.books]
    for view, book in zip(ours, reference.books.values(), strict=True):
        assert_same_counts(view, book)
        for side in "BA":
            assert_same_levels(view, book, side)
            assert_same_orders(view, book, side)
            assert view.level_count(side) == len(book.levels[side.encode()])
        for order_id in [*book.orders][:100]:
            assert_same_position(view, book, order_id)


def assert_same_near(books: Books, reference: ReferenceBooks, record: Mbo) -> None:
    """Compare what a record that was just applied can have changed, as far as shows near the top.

    These are the counts, some best levels of both sides, and the queue that the record names.
    """
    key = (record.publisher_id, record.instrument_id)
    view, book = BookView(books, index_of(*key)), reference.books[key]
    assert_same_counts(view, book)
    for side in "BA":
        assert_same_levels(view, book, side, 12)
        assert view.level_count(side) == len(book.levels[side.encode()])
    assert_same_position(view, book, record.order_id)
    if record.side in (b"B", b"A"):
        assert_same_orders(view, book, record.side.decode(), record.price)


def assert_same_levels(view: BookView, book: Book, side: str, depth: int | None = None) -> None:
    prices = book.prices(side.encode())[:depth]
    levels = [
        (price, level.size, len(level.queue))
        for price in prices
        for level in [book.levels[side.encode()][price]]
    ]
    assert view.levels(side, depth).tolist() == levels
    assert view.levels(side, 2).tolist() == levels[:2]
    assert view.best(side) == (levels[0] if levels else Quote(UNDEF_PRICE, 0, 0))


def assert_same_orders(view: BookView, book: Book, side: str, price: int | None = None) -> None:
    at_prices = book.prices(side.encode()) if price is None else [price]
    orders = [
        (order_id, order.price, order.size, order.ts_event, position)
        for at in at_prices
        if at in book.levels[side.encode()]
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
    assert view.total_orders == len(book.orders)
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
    assert (view.trades, view.volume) == (book.trades, book.volume)
    last = book.last_trade
    assert view.last_trade == (
        (last.price, last.size, last.side.decode(), last.ts_event) if last else None
    )
