"""What order books hold: one book's prices, levels, queues and counts, and sums over all books."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mdtool.core.units import UNDEF_PRICE, UNDEF_TIMESTAMP
from mdtool.engine.book import kernel as k
from mdtool.engine.book.state import Books

Side = Literal["B", "A"]

LEVEL: Final = np.dtype([("price", "i8"), ("size", "i8"), ("count", "i8")])
"""A price of a side, its total size and how many orders it has (0 for a top-of-book quote)."""
ORDER: Final = np.dtype(
    [("order_id", "u8"), ("price", "i8"), ("size", "i8"), ("ts_event", "i8"), ("position", "i8")]
)
"""A resting order; `ts_event` is when it took its place in its level's queue, and `position`
counts the orders before it there."""

ANOMALIES: Final = {
    "unknown_cancel": k.UNKNOWN_CANCEL,
    "unknown_modify": k.UNKNOWN_MODIFY,
    "over_cancel": k.OVER_CANCEL,
    "duplicate_add": k.DUPLICATE_ADD,
    "side_change": k.SIDE_CHANGE,
    "unusable": k.UNUSABLE,
    "crossed": k.CROSSED,
    "locked": k.LOCKED,
    "time_backwards": k.TIME_BACKWARDS,
    "maybe_bad_book": k.MAYBE_BAD,
}
"""Kinds of anomaly: ids that were not resting, cancels of more than rested, adds of resting ids,
orders that changed sides, records without a usable side, price, size or action, books that were
crossed or locked at the end of an event, records received before the one before them, and records
that their publisher flagged MAYBE_BAD_BOOK."""


class Quote(NamedTuple):
    """The best level of a side; its price is UNDEF_PRICE where the side is empty."""

    price: int
    size: int
    orders: int


class QueuePosition(NamedTuple):
    """The position of an order in the queue of its level."""

    side: Side
    price: int
    size: int
    orders_ahead: int
    size_ahead: int


class Trade(NamedTuple):
    """The last trade of a book; `side` is the aggressor's."""

    price: int
    size: int
    side: str
    ts_event: int


_EMPTY: Final = Quote(UNDEF_PRICE, 0, 0)


class BookView:
    """One book of `Books`, read in place: what it shows changes as records are applied.

    Parameters
    ----------
    books : Books
    instrument : int
        The index of its instrument.

    Raises
    ------
    KeyError
        When no record of the instrument was applied yet.
    """

    def __init__(self, books: Books, instrument: int) -> None:
        self.instrument = instrument
        self._books = books
        self._row = books.row_of(instrument)

    @property
    def publisher_id(self) -> int:
        """The publisher of the last record."""
        return self._count(k.B_ID) & 0xFFFF

    @property
    def instrument_id(self) -> int:
        """The instrument's id in the last record."""
        return self._count(k.B_ID) >> 16

    @property
    def is_partial(self) -> bool:
        """Whether the stream began without a clear or snapshot, so that older orders are unknown.

        So is a book that its publisher has flagged MAYBE_BAD_BOOK since it was last cleared. A
        top-of-book record makes its own side known.
        """
        return self._count(k.B_UNKNOWN_SIDES) != 0

    @property
    def is_in_snapshot(self) -> bool:
        """Whether the last record was one of a snapshot's adds, which more may follow."""
        return self._count(k.B_IN_SNAPSHOT) != 0

    @property
    def records(self) -> int:
        """How many records of this instrument were applied."""
        return self._count(k.B_EVENTS)

    @property
    def total_orders(self) -> int:
        """How many orders rest."""
        return self._count(k.B_ORDERS)

    @property
    def ts_event(self) -> int:
        """The ts_event of the last record, ns."""
        return self._count(k.B_TS_EVENT) & UNDEF_TIMESTAMP

    @property
    def ts_recv(self) -> int:
        """The ts_recv of the last record, ns."""
        return self._count(k.B_TS_RECV) & UNDEF_TIMESTAMP

    @property
    def sequence(self) -> int:
        """The venue's sequence number of the last record."""
        return self._count(k.B_SEQUENCE)

    @property
    def trades(self) -> int:
        """How many trades there were."""
        return self._count(k.B_TRADES)

    @property
    def volume(self) -> int:
        """The size of all trades."""
        return self._count(k.B_VOLUME)

    @property
    def last_trade(self) -> Trade | None:
        """The last trade, None before the first."""
        if not self.trades:
            return None
        return Trade(
            self._count(k.B_LAST_PRICE),
            self._count(k.B_LAST_SIZE),
            chr(self._count(k.B_LAST_SIDE)),
            self._count(k.B_LAST_TS),
        )

    @property
    def anomalies(self) -> dict[str, int]:
        """How many of each kind of anomaly there were, kinds without any left out."""
        counts = {kind: self._count(k.B_ANOMALIES + at) for kind, at in ANOMALIES.items()}
        return {kind: count for kind, count in counts.items() if count}

    def first_anomaly(self, kind: str) -> int | None:
        """Return the number of the record that was the first of a kind, among all applied."""
        at = k.B_ANOMALIES + ANOMALIES[kind]
        return self._count(at + k.ANOMALY_KINDS) if self._count(at) else None

    def level_count(self, side: Side) -> int:
        """Return how many prices of a side have orders."""
        return int(self._books.state.sides[self._side(side), k.S_LENGTH])

    def best(self, side: Side) -> Quote:
        """Return the best level of a side."""
        rows = self._level_rows(side, 1)
        if not len(rows):
            return _EMPTY
        level = self._books.state.levels[rows[0]]
        price = _price(side, int(level[k.L_KEY]))
        return Quote(price, int(level[k.L_SIZE]), int(level[k.L_COUNT]))

    def levels(self, side: Side, depth: int | None = None) -> npt.NDArray[np.void]:
        """Return levels of a side, best first.

        Parameters
        ----------
        side : {"B", "A"}
        depth : int or None
            At most so many, or all.

        Returns
        -------
        LEVEL[n]
            A copy.
        """
        rows = self._books.state.levels[self._level_rows(side, depth)]
        levels = np.empty(len(rows), LEVEL)
        levels["price"] = ~rows[:, k.L_KEY] if side == "A" else rows[:, k.L_KEY]
        levels["size"] = rows[:, k.L_SIZE]
        levels["count"] = rows[:, k.L_COUNT]
        return levels

    def orders(self, side: Side, price: int | None = None) -> npt.NDArray[np.void]:
        """Return the resting orders of a side, best level first, each level in queue order.

        Parameters
        ----------
        side : {"B", "A"}
        price : int or None
            Only those of the level at this fixed-point price.

        Returns
        -------
        ORDER[n]
            A copy; empty where there is no such level.
        """
        state = self._books.state
        levels = self._level_rows(side, None)
        if price is not None:
            levels = levels[state.levels[levels, k.L_KEY] == _key(side, price)]
        listed = np.empty((int(state.levels[levels, k.L_COUNT].sum()), 2), np.int64)
        k.list_orders(state, np.ascontiguousarray(levels), listed)
        rows = state.orders[listed[:, 0]]
        keys = state.levels[rows[:, k.O_LEVEL], k.L_KEY]
        orders = np.empty(len(rows), ORDER)
        orders["order_id"] = rows[:, k.O_ID].view(np.uint64)
        orders["price"] = ~keys if side == "A" else keys
        orders["size"] = rows[:, k.O_SIZE]
        orders["ts_event"] = rows[:, k.O_TS]
        orders["position"] = listed[:, 1]
        return orders

    def queue_position(self, order_id: int) -> QueuePosition | None:
        """Return an order's position in its queue, None if it does not rest in this book."""
        state = self._books.state
        signed = order_id - 2**64 if order_id >= 2**63 else order_id
        row = int(k.find_order(state, signed, self._row))
        if row == k.NONE:
            return None
        order = state.orders[row]
        level = state.levels[order[k.O_LEVEL]]
        ahead = size_ahead = 0
        before = int(order[k.O_PREV])
        while before != k.NONE:
            ahead += 1
            size_ahead += int(state.orders[before, k.O_SIZE])
            before = int(state.orders[before, k.O_PREV])
        side: Side = "A" if int(order[k.O_SIDE]) & 1 else "B"
        price = _price(side, int(level[k.L_KEY]))
        return QueuePosition(side, price, int(order[k.O_SIZE]), ahead, size_ahead)

    def _count(self, column: int) -> int:
        return int(self._books.state.books[self._row, column])

    def _side(self, side: Side) -> int:
        return 2 * self._row + (side == "A")

    def _level_rows(self, side: Side, depth: int | None) -> k.Words:
        """Return the rows of a side's levels, best first."""
        start, length, _ = self._books.state.sides[self._side(side)].tolist()
        first = start if depth is None else start + max(0, length - depth)
        return self._books.state.places[first : start + length][::-1]


def views(books: Books) -> Iterator[BookView]:
    """Yield a view of every book, in the order in which they were first seen."""
    for instrument in books.instruments().tolist():
        yield BookView(books, instrument)


def busiest(books: Books, n: int, is_shown: npt.NDArray[np.bool_] | None = None) -> list[BookView]:
    """Return the `n` books with the most records, that with most first.

    Parameters
    ----------
    books : Books
    n : int
    is_shown : bool array, optional
        Which instruments to choose from, by their indices.
    """
    order = np.argsort(-books.state.books[: len(books), k.B_EVENTS], kind="stable")
    instruments = books.instruments()[order]
    if is_shown is not None:
        instruments = instruments[is_shown[instruments]]
    return [BookView(books, index) for index in instruments[:n].tolist()]


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
    """Return the totals of all books."""
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


TOP: Final = np.dtype(
    [("instrument", "i8"), ("ts_recv", "i8"), ("bid", "i8"), ("ask", "i8"), ("is_partial", "?")]
)
"""The index of a book's instrument, when its last record was received, its best prices at 1e-9,
and whether it is partial: better prices may be missing."""


def tops(books: Books) -> npt.NDArray[np.void]:
    """Return the best prices of every book, in the order in which they were first seen.

    Parameters
    ----------
    books : Books

    Returns
    -------
    TOP[n]
        A price is UNDEF_PRICE where the side is empty.
    """
    rows = books.state.books[: len(books)]
    found = np.empty(len(rows), TOP)
    found["instrument"] = rows[:, k.B_INSTRUMENT]
    found["ts_recv"] = rows[:, k.B_TS_RECV]
    found["is_partial"] = rows[:, k.B_UNKNOWN_SIDES] != 0
    for number, name in enumerate(("bid", "ask")):
        sides = books.state.sides[number : 2 * len(rows) : 2]
        length = sides[:, k.S_LENGTH]
        has_some = length > 0
        best = (sides[:, k.S_START] + length - 1)[has_some]
        keys = books.state.levels[books.state.places[best], k.L_KEY]
        found[name] = UNDEF_PRICE
        found[name][has_some] = ~keys if name == "ask" else keys
    return found


class PartialBooks:
    """Reports each partial book once: one that lacks orders from before its stream began.

    Attributes
    ----------
    count : int
        How many there were.
    """

    def __init__(self) -> None:
        self.count = 0
        self._was_reported = np.empty(0, np.bool_)

    def look(self, books: Books) -> list[int]:
        """Return the instruments whose books have turned out to be partial, the first one first."""
        rows = books.state.books[: len(books)]
        reported = np.zeros(len(rows), np.bool_)
        reported[: len(self._was_reported)] = self._was_reported
        is_partial = rows[:, k.B_UNKNOWN_SIDES] != 0
        new: list[int] = rows[is_partial & ~reported, k.B_INSTRUMENT].tolist()
        self._was_reported = reported | is_partial
        self.count += len(new)
        return new


def _key(side: Side, price: int) -> int:
    """Return what a ladder of a side has for a price."""
    return ~price if side == "A" else price


def _price(side: Side, key: int) -> int:
    """Return the price that a ladder of a side has as `key`."""
    return ~key if side == "A" else key
