"""What all books come to together."""

from __future__ import annotations

from collections import Counter

from mdtool.engine.book.state import Books
from mdtool.engine.book.view import busiest, totals, views
from mdtool.engine.simulate import Exchange
from tests.support.instruments import batch


def test_no_books_come_to_nothing():
    assert totals(Books()) == (0, 0, 0, 0, 0, False, {})
    assert busiest(Books(), 5) == []


def test_sums_are_those_of_the_single_books():
    books = Books()
    books.apply(batch(Exchange(seed=5).generate(5_000)[700:]))
    summed, each = totals(books), [*views(books)]
    assert len(each) == 5
    assert summed.orders == sum(view.total_orders for view in each) > 0
    assert summed.bid_levels == sum(view.level_count("B") for view in each)
    assert summed.ask_levels == sum(view.level_count("A") for view in each)
    assert summed.trades == sum(view.trades for view in each) > 0
    assert summed.volume == sum(view.volume for view in each)
    assert summed.is_partial == any(view.is_partial for view in each)
    assert summed.anomalies == dict(sum((Counter(view.anomalies) for view in each), Counter()))
    assert summed.anomalies


def test_the_busiest_books_come_first():
    books = Books()
    books.apply(batch(Exchange(seed=5).generate(5_000)))
    counts = [view.records for view in busiest(books, 3)]
    assert counts == sorted((view.records for view in views(books)), reverse=True)[:3]
