"""An L3 order book in plain Python: the baseline of the kernel.

It has what every user of a book needs and no more: orders by id, levels with their total size and
their queue, ladders in order of price. It counts no anomalies, ignores top-of-book records, and
applies a snapshot like other records.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final

from mdtool.core.records import Records

CHUNK_RECORDS: Final = 20_000
"""Records that are converted to Python's objects at once; more would only need memory."""

WHOLE: Final = 1 << 32
"""A size larger than that of any order."""

Key = tuple[int, int]
"""publisher_id and instrument_id."""


class PlainBook:
    """One book.

    Attributes
    ----------
    orders : dict
        Side and price of each resting order, by id.
    levels : dict
        The levels of each side, by price.
    ladders : dict
        The prices of each side in order, the best last; those of asks are negated.
    """

    __slots__ = ("ladders", "levels", "orders")

    def __init__(self) -> None:
        self.orders: dict[int, tuple[bytes, int]] = {}
        self.levels: dict[bytes, dict[int, Level]] = {b"B": {}, b"A": {}}
        self.ladders: dict[bytes, list[int]] = {b"B": [], b"A": []}

    def best_first(self, side: bytes) -> Iterator[tuple[int, int, int]]:
        """Yield price, size and count of a side's levels."""
        for key in reversed(self.ladders[side]):
            price = key if side == b"B" else -key
            level = self.levels[side][price]
            yield price, level.size, len(level.queue)

    def add(self, side: bytes, price: int, size: int, order_id: int) -> None:
        """Add an order at the tail of its level."""
        levels = self.levels[side]
        level = levels.get(price)
        if level is None:
            level = levels[price] = Level()
            insort(self.ladders[side], price if side == b"B" else -price)
        level.queue[order_id] = size
        level.size += size
        self.orders[order_id] = side, price

    def cancel(self, size: int, order_id: int) -> None:
        """Reduce the size of an order, if it exists."""
        place = self.orders.get(order_id)
        if place is None:
            return
        side, price = place
        level = self.levels[side][price]
        rests = level.queue[order_id]
        if size < rests:
            level.queue[order_id] = rests - size
            level.size -= size
            return
        del self.orders[order_id], level.queue[order_id]
        level.size -= rests
        if not level.queue:
            del self.levels[side][price]
            ladder = self.ladders[side]
            del ladder[bisect_left(ladder, price if side == b"B" else -price)]

    def modify(self, side: bytes, price: int, size: int, order_id: int) -> None:
        """Change an order; it keeps its place in the queue if it neither moves nor grows."""
        if self.orders.get(order_id) == (side, price):
            level = self.levels[side][price]
            rests = level.queue[order_id]
            if size <= rests:
                level.queue[order_id] = size
                level.size += size - rests
                return
        self.cancel(WHOLE, order_id)
        self.add(side, price, size, order_id)


class Level:
    """A price of a side: the total size, and the sizes of its orders in time priority."""

    __slots__ = ("queue", "size")

    def __init__(self) -> None:
        self.size = 0
        self.queue: dict[int, int] = {}


def apply(books: dict[Key, PlainBook], records: Records) -> None:
    """Apply MBO records, one after another, to their books."""
    for start in range(0, len(records), CHUNK_RECORDS):
        for record in records[start : start + CHUNK_RECORDS].tolist():
            _, _, publisher, instrument, _, order_id, price, size, _, _, action, side, *_ = record
            book = books.get((publisher, instrument))
            if book is None:
                book = books[publisher, instrument] = PlainBook()
            if action == b"A":
                book.add(side, price, size, order_id)
            elif action == b"C":
                book.cancel(size, order_id)
            elif action == b"M":
                book.modify(side, price, size, order_id)
            elif action == b"R":
                books[publisher, instrument] = PlainBook()
