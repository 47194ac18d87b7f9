"""What all books of a stream come to together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mdtool.engine.book import kernel as k
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import ANOMALIES, BookView


class Totals(NamedTuple):
    """Sums over all books.

    Attributes
    ----------
    orders, bid_levels, ask_levels : int
        What rests.
    trades, volume : int
        What was traded.
    is_partial : bool
        Whether one of the books is.
    anomalies : dict
        How many there were of each kind, kinds without any left out.
    """

    orders: int
    bid_levels: int
    ask_levels: int
    trades: int
    volume: int
    is_partial: bool
    anomalies: dict[str, int]


def totals(books: Books) -> Totals:
    """Return what all books come to."""
    rows = books.state.books[: len(books)]
    lengths = books.state.sides[: 2 * len(books), k.S_LENGTH]
    anomalies = {kind: int(rows[:, k.B_ANOMALIES + at].sum()) for kind, at in ANOMALIES.items()}
    return Totals(
        orders=int(rows[:, k.B_ORDERS].sum()),
        bid_levels=int(lengths[0::2].sum()),
        ask_levels=int(lengths[1::2].sum()),
        trades=int(rows[:, k.B_TRADES].sum()),
        volume=int(rows[:, k.B_VOLUME].sum()),
        is_partial=bool(rows[:, k.B_UNKNOWN_SIDES].any()),
        anomalies={kind: count for kind, count in anomalies.items() if count},
    )


def busiest(books: Books, n: int) -> list[BookView]:
    """Return the `n` books with the most records, that with most first."""
    order = np.argsort(-books.state.books[: len(books), k.B_EVENTS], kind="stable")
    return [BookView(books, books.key_at(row), row) for row in order[:n].tolist()]
