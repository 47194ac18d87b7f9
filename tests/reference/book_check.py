"""Whether a market by order holds together, checked the plain way, one record at a time.

It asks for what CME's own data holds: an event trades, fills, and only then changes the book; its
last record, and no other, is flagged F_LAST; there the book is neither crossed nor locked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

F_LAST = 128
F_SNAPSHOT = 32
UNDEF_PRICE = 2**63 - 1


class Fault(AssertionError):  # noqa: N818 - a finding, not a failure of the check
    """A record that does not follow from those before it."""


class Top(NamedTuple):
    bid_px: int
    ask_px: int
    bid_sz: int
    ask_sz: int
    bid_ct: int
    ask_ct: int


class Book:
    """One instrument: by side, the queue of each price as [order id, size] lists."""

    def __init__(self) -> None:
        self.sides: dict[bytes, dict[int, list[list[int]]]] = {b"B": {}, b"A": {}}
        self.where: dict[int, tuple[bytes, int]] = {}

    def best(self, side: bytes) -> int | None:
        prices = self.sides[side]
        if not prices:
            return None
        return max(prices) if side == b"B" else min(prices)

    def size_of(self, order_id: int) -> int:
        side, price = self.where[order_id]
        return next(size for oid, size in self.sides[side][price] if oid == order_id)

    def add(self, order_id: int, side: bytes, price: int, size: int) -> None:
        self.sides[side].setdefault(price, []).append([order_id, size])
        self.where[order_id] = (side, price)

    def remove(self, order_id: int) -> None:
        side, price = self.where.pop(order_id)
        queue = self.sides[side][price]
        queue[:] = [order for order in queue if order[0] != order_id]
        if not queue:
            del self.sides[side][price]

    def modify(self, order_id: int, price: int, size: int) -> None:
        side, old_price = self.where[order_id]
        if price == old_price and size <= self.size_of(order_id):
            for order in self.sides[side][price]:
                if order[0] == order_id:
                    order[1] = size
        else:
            self.remove(order_id)
            self.add(order_id, side, price, size)

    def top(self) -> Top:
        bid, ask = self.best(b"B"), self.best(b"A")
        bids = self.sides[b"B"].get(bid, []) if bid is not None else []
        asks = self.sides[b"A"].get(ask, []) if ask is not None else []
        return Top(
            UNDEF_PRICE if bid is None else bid,
            UNDEF_PRICE if ask is None else ask,
            sum(size for _, size in bids),
            sum(size for _, size in asks),
            len(bids),
            len(asks),
        )


class BookCheck:
    """Follows a stream from its opening snapshots on, and raises Fault where it contradicts itself.

    Parameters
    ----------
    tick : int
        Prices are multiples of it.
    """

    def __init__(self, tick: int = 10_000_000) -> None:
        self.tick = tick
        self.books: dict[int, Book] = {}
        self.records = 0
        self.events = 0
        self.tops: list[tuple[int, Top, Top]] = []
        """Of each record: its instrument, and the best levels before and after it."""
        self._seen_ids: set[int] = set()
        self._event: list[Any] = []
        self._owed: dict[int, int] = {}  # what is left of a filled order, until the book says so
        self._trade_left = 0
        self._last: Any = None

    def follow(self, records: Iterable[Any]) -> None:
        for record in records:
            try:
                self._follow(record)
            except Fault as fault:
                raise Fault(f"record {self.records}: {fault}: {record}") from None
            self.records += 1

    def _follow(self, record: Any) -> None:
        self._check_header(record)
        instrument = int(record["instrument_id"])
        if record["action"] == b"R":
            expect(instrument not in self.books, "a second clear")
            self.books[instrument] = Book()
        expect(instrument in self.books, "no snapshot came before it")
        book = self.books[instrument]
        before = book.top()
        self._event.append(record)
        self._apply(book, record)
        self.tops.append((instrument, before, book.top()))
        if record["flags"] & F_LAST:
            self._end_event(book)
        self._last = record

    def _check_header(self, record: Any) -> None:
        last = self._last
        expect(record["ts_event"] < record["ts_recv"], "received before it happened")
        is_snapshot = bool(record["flags"] & F_SNAPSHOT)
        if record["action"] == b"R":
            expect(is_snapshot, "a clear outside a snapshot")
            expect(record["price"] == UNDEF_PRICE, "a clear with a price")
            expect(record["side"] == b"N", "a clear with a side")
        else:
            expect(record["price"] % self.tick == 0, "off the tick grid")
            expect(record["price"] > 0, "no price")
            expect(record["size"] > 0, "no size")
            expect(record["side"] in (b"A", b"B"), "no side")
        if last is None:
            return
        expect(record["ts_event"] >= last["ts_event"], "ts_event goes back")
        expect(record["ts_recv"] >= last["ts_recv"], "ts_recv goes back")
        expect(record["sequence"] >= last["sequence"], "sequence goes back")
        if self._event:
            expect(record["instrument_id"] == last["instrument_id"], "two instruments in an event")
            expect(is_snapshot == bool(last["flags"] & F_SNAPSHOT), "half a snapshot")
            if not is_snapshot:
                expect(record["ts_event"] == last["ts_event"], "two times in an event")
        elif not is_snapshot:
            expect(record["ts_event"] > last["ts_event"], "two events at one time")
        if record["sequence"] == last["sequence"]:
            expect(record["ts_recv"] == last["ts_recv"], "a packet that came twice")
        elif not is_snapshot:
            expect(record["ts_recv"] > last["ts_recv"], "two packets at one time")

    def _apply(self, book: Book, record: Any) -> None:
        action = record["action"]
        if action == b"T":
            self._trade(book, record)
        elif action == b"F":
            self._fill(book, record)
        elif action != b"R":
            expect(self._trade_left == 0, "a trade without all its fills")
            changes = {b"A": self._add, b"C": self._cancel, b"M": self._modify}
            changes[action](book, record)

    def _trade(self, book: Book, record: Any) -> None:
        expect(self._trade_left == 0, "a trade without all its fills")
        expect(all(r["action"] in (b"T", b"F") for r in self._event), "a trade after a change")
        expect(record["order_id"] not in book.where, "a resting aggressor")
        trades = [r for r in self._event if r["action"] == b"T"]
        expect(len({int(r["order_id"]) for r in trades}) == 1, "two aggressors in an event")
        self._seen_ids.add(int(record["order_id"]))
        self._trade_left = int(record["size"])

    def _fill(self, book: Book, record: Any) -> None:
        trade = [r for r in self._event if r["action"] == b"T"][-1:]
        expect(bool(trade), "a fill without a trade")
        expect(record["side"] != trade[0]["side"], "a fill on the aggressor's side")
        expect(record["price"] == trade[0]["price"], "a fill at another price than its trade's")
        order_id, size = int(record["order_id"]), int(record["size"])
        expect(order_id in book.where, "an unknown order")
        side, price = book.where[order_id]
        expect((side, price) == (record["side"], record["price"]), "a fill that is not its order's")
        ahead = [
            oid
            for level in sorted(book.sides[side], reverse=side == b"B")
            for oid, _ in book.sides[side][level]
            if self._owed.get(oid) != 0
        ]
        expect(ahead[0] == order_id, "a fill out of turn")
        left = self._owed.get(order_id, book.size_of(order_id)) - size
        expect(left >= 0, "more filled than rests")
        expect(size <= self._trade_left, "more filled than traded")
        self._owed[order_id] = left
        self._trade_left -= size

    def _add(self, book: Book, record: Any) -> None:
        order_id = int(record["order_id"])
        aggressor = {int(r["order_id"]) for r in self._event if r["action"] == b"T"}
        expect(order_id not in self._seen_ids or order_id in aggressor, "a known order")
        self._seen_ids.add(order_id)
        book.add(order_id, bytes(record["side"]), int(record["price"]), int(record["size"]))

    def _cancel(self, book: Book, record: Any) -> None:
        order_id = self._resting(book, record)
        expect(self._owed.pop(order_id, 0) == 0, "a cancel of what is filled in part")
        expect(book.size_of(order_id) == record["size"], "not all that rests")
        expect(book.where[order_id][1] == record["price"], "another price than the order's")
        book.remove(order_id)

    def _modify(self, book: Book, record: Any) -> None:
        order_id, size, price = self._resting(book, record), int(record["size"]), record["price"]
        was = (book.size_of(order_id), book.where[order_id][1])
        expect(was != (size, price), "nothing changed")
        if order_id in self._owed:
            expect(self._owed.pop(order_id) == size, "not what the fill left")
            expect(was[1] == price, "a fill that changes the price")
        book.modify(order_id, int(price), size)

    def _resting(self, book: Book, record: Any) -> int:
        order_id = int(record["order_id"])
        expect(order_id in book.where, "an unknown order")
        expect(book.where[order_id][0] == record["side"], "another side than the order's")
        return order_id

    def _end_event(self, book: Book) -> None:
        expect(self._trade_left == 0, "a trade without all its fills")
        expect(not self._owed, "fills that never reach the book")
        bid, ask = book.best(b"B"), book.best(b"A")
        expect(bid is not None and ask is not None, "an empty side")
        expect(bid < ask, "crossed or locked")  # type: ignore[operator]
        self._event = []
        self.events += 1

    @property
    def is_inside_event(self) -> bool:
        return bool(self._event)


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Fault(otherwise)
