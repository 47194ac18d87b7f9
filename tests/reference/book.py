"""L3 order books in the plainest Python: the definition of what the book kernel has to do.

The rules are Databento's: its pages on the schemas MBO, MBP-10 and TBBO, on MBO snapshots and on
flags, and its example of a limit order book. What they leave open is decided here, and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

UNDEF_PRICE = 2**63 - 1
UNDEF_SIZE = 2**32 - 1
F_LAST, F_TOB, F_SNAPSHOT, F_MAYBE_BAD_BOOK = 128, 64, 32, 4
NS_PER_DAY = 86_400 * 10**9
SIDES = (b"B", b"A")


class Mbo(NamedTuple):
    """An MBO record, its fields as DBN has them, timestamps unsigned."""

    length: int
    rtype: int
    publisher_id: int
    instrument_id: int
    ts_event: int
    order_id: int
    price: int
    size: int
    flags: int
    channel_id: int
    action: bytes
    side: bytes
    ts_recv: int
    ts_in_delta: int
    sequence: int


def mbo_of(records: Any) -> Iterator[Mbo]:
    """Yield the records of a structured array."""
    return map(Mbo._make, records.tolist())


@dataclass(slots=True)
class Order:
    side: bytes
    price: int
    size: int
    ts_event: int
    """Of the record that put the order where it is in its queue."""


@dataclass(slots=True)
class Level:
    quoted: int | None = None
    """The size that a top-of-book record gave: it has no orders."""
    queue: dict[int, Order] = field(default_factory=dict)
    """By order id, first come first: a dict keeps what is put in in that order."""

    @property
    def size(self) -> int:
        return (self.quoted or 0) + sum(order.size for order in self.queue.values())


class Book:
    """The book of one instrument at one publisher."""

    def __init__(self) -> None:
        self.orders: dict[int, Order] = {}
        self.levels: dict[bytes, dict[int, Level]] = {side: {} for side in SIDES}
        self.unknown_sides = set(SIDES)
        self.records = 0
        self.trades = 0
        self.volume = 0
        self.last_trade: Mbo | None = None
        self.anomalies: Counter[str] = Counter()
        self.first_anomaly: dict[str, int] = {}
        self.last: Mbo | None = None

    def apply(self, record: Mbo, number: int) -> list[int]:
        """Apply the stream's record of this number.

        Returns how many better levels of its side there are above what the record struck: before
        it where it took a level away, else after it. Empty when it struck nothing; two where an
        order was moved: first where it went, then where it was.
        """
        found: list[str] = []
        if self._opens_snapshot(record):
            self._clear()
        struck = self._act(record, found)
        if self.last is not None and record.ts_recv < self.last.ts_recv < 2**63:
            found.append("time_backwards")
        if record.flags & F_MAYBE_BAD_BOOK:
            found.append("maybe_bad_book")
            self.unknown_sides.update(SIDES)
        if record.flags & F_LAST:
            found += self._crossing()
        for kind in found:
            self.anomalies[kind] += 1
            self.first_anomaly.setdefault(kind, number)
        self.records += 1
        self.last = record
        return struck

    def prices(self, side: bytes) -> list[int]:
        """Return the prices of a side, best first."""
        return sorted(self.levels[side], reverse=side == b"B")

    def _act(self, record: Mbo, found: list[str]) -> list[int]:
        struck: list[int] = []
        match record.action:
            case b"A" if record.flags & F_TOB:
                struck = self._quote(record, found)
            case b"A":
                struck = self._add(record, found)
            case b"C":
                struck = self._cancel(record, found)
            case b"M":
                struck = self._modify(record, found)
            case b"R":
                self._clear()
                struck = [0]
            case b"T":
                self.trades += 1
                self.volume += record.size if record.size != UNDEF_SIZE else 0
                self.last_trade = record
                struck = [0]
            case b"F" | b"N":
                pass  # they tell of what the records around them do to the book
            case _:
                found.append("unusable")
        return struck

    def _opens_snapshot(self, record: Mbo) -> bool:
        """Return whether a snapshot begins that lacks its clear, as before February 2024.

        It is a run of adds with one ts_recv; a day's begins anew even where it follows the run of
        another day.
        """
        if not _is_of_snapshot(record):
            return False
        last = self.last
        if last is None or not _is_of_snapshot(last):
            return True
        return _day(record.ts_recv) != _day(last.ts_recv)

    def _clear(self) -> None:
        self.orders.clear()
        for levels in self.levels.values():
            levels.clear()
        self.unknown_sides.clear()

    def _quote(self, record: Mbo, found: list[str]) -> list[int]:
        """Replace a side by one price that has no orders, or by none."""
        if record.side not in SIDES or record.size == UNDEF_SIZE:
            found.append("unusable")
            return []
        levels = self.levels[record.side]
        for level in levels.values():
            for order_id in level.queue:
                del self.orders[order_id]
        levels.clear()
        if record.price != UNDEF_PRICE and record.size > 0:
            levels[record.price] = Level(quoted=record.size)
        self.unknown_sides.discard(record.side)
        return [0]

    def _add(self, record: Mbo, found: list[str]) -> list[int]:
        if record.side not in SIDES or record.price == UNDEF_PRICE:
            found.append("unusable")
            return []
        if record.size in (0, UNDEF_SIZE):
            found.append("unusable")
            return []
        left: list[int] = []
        if record.order_id in self.orders:  # left open: what is said last, holds
            found.append("duplicate_add")
            left = self._remove(record.order_id)
        return self._append(record, record.side) + left

    def _cancel(self, record: Mbo, found: list[str]) -> list[int]:
        order = self.orders.get(record.order_id)
        if order is None:
            found.append("unknown_cancel")
            return []
        if record.size > order.size:
            found.append("over_cancel")
        if record.size >= order.size:
            return self._remove(record.order_id)
        order.size -= record.size
        return self._depth(order.side, order.price)

    def _modify(self, record: Mbo, found: list[str]) -> list[int]:
        order = self.orders.get(record.order_id)
        side = record.side
        if side not in SIDES and order is not None:  # left open: it keeps its own
            side = order.side
        if side not in SIDES or record.price == UNDEF_PRICE or record.size == UNDEF_SIZE:
            found.append("unusable")
            return []
        left: list[int] = []
        if order is None:
            found.append("unknown_modify")
        else:
            if side != order.side:
                found.append("side_change")
            elif record.price == order.price and 0 < record.size <= order.size:
                order.size = record.size
                return self._depth(side, order.price)
            left = self._remove(record.order_id)
        if record.size == 0:
            return left
        return self._append(record, side) + left

    def _append(self, record: Mbo, side: bytes) -> list[int]:
        order = Order(side, record.price, record.size, record.ts_event)
        self.orders[record.order_id] = order
        self.levels[side].setdefault(record.price, Level()).queue[record.order_id] = order
        return self._depth(side, record.price)

    def _remove(self, order_id: int) -> list[int]:
        order = self.orders.pop(order_id)
        depth = self._depth(order.side, order.price)
        level = self.levels[order.side][order.price]
        del level.queue[order_id]
        if not level.queue and level.quoted is None:
            del self.levels[order.side][order.price]
        return depth

    def _depth(self, side: bytes, price: int) -> list[int]:
        if side == b"B":
            return [sum(other > price for other in self.levels[side])]
        return [sum(other < price for other in self.levels[side])]

    def _crossing(self) -> list[str]:
        if not (self.levels[b"B"] and self.levels[b"A"]):
            return []
        bid, ask = max(self.levels[b"B"]), min(self.levels[b"A"])
        return ["crossed"] if bid > ask else ["locked"] if bid == ask else []


class ReferenceBooks:
    """The books of every instrument at every publisher of a stream."""

    def __init__(self) -> None:
        self.books: dict[tuple[int, int], Book] = {}
        self.applied = 0

    def apply(self, records: Iterable[Mbo]) -> None:
        for record in records:
            self.strike(record)

    def strike(self, record: Mbo) -> tuple[Book, list[int]]:
        """Apply a record; return its book, and as `Book.apply` what it struck there."""
        book = self.books.setdefault((record.publisher_id, record.instrument_id), Book())
        struck = book.apply(record, self.applied)
        self.applied += 1
        return book, struck

    def depth_records(self, records: Iterable[Mbo], shown: int) -> Iterator[tuple[Any, ...]]:
        """Apply records and yield what they give of MBP-10, or of MBP-1 where 1 level is shown.

        A record for each that struck a shown level, and for each trade and clear (left open: at
        depth 0). A trade shows the book before it, for it is the cancels after it that change it.
        """
        for record in records:
            book, struck = self.strike(record)
            depth = next((depth for depth in struck if depth < shown), None)
            if depth is not None:
                yield _depth_record(record, book, depth, shown)


def _depth_record(record: Mbo, book: Book, depth: int, shown: int) -> tuple[Any, ...]:
    """Return the fields of an MBP record in DBN's order."""
    fields: list[Any] = [
        (48 + 32 * shown) // 4,
        shown,
        record.publisher_id,
        record.instrument_id,
        record.ts_event,
        record.price,
        record.size,
        record.action,
        record.side,
        record.flags,
        depth,
        record.ts_recv,
        record.ts_in_delta,
        record.sequence,
    ]
    bids, asks = ([*_shown(book, side, shown)] for side in SIDES)
    for bid, ask in zip(bids, asks, strict=True):
        for of_bid, of_ask in zip(bid, ask, strict=True):
            fields += [of_bid, of_ask]
    return tuple(fields)


def _shown(book: Book, side: bytes, shown: int) -> Iterator[tuple[int, int, int]]:
    """Yield price, size and count of the best levels, undefined where there are no more."""
    best = book.prices(side)[:shown]
    for price in best:
        level = book.levels[side][price]
        yield price, min(level.size, 2**32 - 1), len(level.queue)
    for _ in range(shown - len(best)):
        yield UNDEF_PRICE, 0, 0


def _is_of_snapshot(record: Mbo) -> bool:
    return record.action == b"A" and bool(record.flags & F_SNAPSHOT)


def _day(ts_ns: int) -> int:
    return -1 if ts_ns >= 2**63 else ts_ns // NS_PER_DAY
