"""What a frame of the live view shows: plain values, taken from books and what is counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from mdtool.core.records import Records
from mdtool.core.units import PRICE_SCALE, UNDEF_PRICE
from mdtool.engine.book.view import BookView, Side

MIN_DECIMALS: Final = 2


class State(Enum):
    """Whether the stream moves."""

    PLAYING = "playing"
    PAUSED = "paused"
    ENDED = "ended"
    BROKEN = "broken"


class Touch(Enum):
    """What is wrong with the best prices of a book."""

    CROSSED = "crossed"
    LOCKED = "locked"


@dataclass(frozen=True, slots=True)
class Level:
    """A price of a side; `orders` is 0 for a top-of-book quote."""

    price: int
    size: int
    orders: int


@dataclass(frozen=True, slots=True)
class Print:
    """A trade; `side` is the aggressor's, B, A or N."""

    ts_event_ns: int
    price: int
    size: int
    side: str


@dataclass(frozen=True, slots=True)
class Ladder:
    """A book down to some depth, best levels first, its last trades, latest first, and its counts.

    Attributes
    ----------
    bid_levels, ask_levels, orders : int
        How many there are, shown or not.
    anomalies : tuple of (str, int)
        How many of each kind there were, most first.
    """

    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    prints: tuple[Print, ...]
    bid_levels: int
    ask_levels: int
    orders: int
    records: int
    trades: int
    volume: int
    is_partial: bool
    anomalies: tuple[tuple[str, int], ...]

    @property
    def spread(self) -> int | None:
        """Best ask less best bid, None where a side is empty."""
        if not (self.bids and self.asks):
            return None
        return self.asks[0].price - self.bids[0].price

    @property
    def touch(self) -> Touch | None:
        """Whether the best prices cross or lock each other."""
        spread = self.spread
        if spread is None or spread > 0:
            return None
        return Touch.CROSSED if spread < 0 else Touch.LOCKED

    @property
    def decimals(self) -> int:
        """How many decimals the prices shown need, at least `MIN_DECIMALS`."""
        prices = [level.price for level in (*self.bids, *self.asks)]
        prices += [trade.price for trade in self.prints if trade.price != UNDEF_PRICE]
        decimals = MIN_DECIMALS
        while decimals < 9 and any(price % 10 ** (9 - decimals) for price in prices):
            decimals += 1
        return decimals


@dataclass(frozen=True, slots=True)
class LiveRates:
    """How fast things happen, a second of real time.

    Attributes
    ----------
    records : float
        Of all books.
    shown, trades, volume : float
        Of the book that is shown: its records, its trades and their size.
    pace : float
        How many seconds of the stream pass.
    """

    records: float = 0.0
    shown: float = 0.0
    trades: float = 0.0
    volume: float = 0.0
    pace: float = 0.0


@dataclass(frozen=True, slots=True)
class Frame:
    """All that one picture of the live view shows.

    Attributes
    ----------
    place, books : int
        The number of the book that is shown, from 1 on, and how many there are.
    publisher_id : int or None
        Given where the books are of several publishers.
    speed : float
        0 is flat out.
    is_live : bool
        Whether the source gives what happens now, rather than a file's past.
    clock_ns : int or None
        The stream's time, None before its first record.
    progress : float or None
        How much of the source was played, from 0 to 1, None where that is not known.
    quiet_s : int
        For how many seconds a stream that should move has not.
    lag_ns : int or None
        How far a live stream is behind the clock on the wall.
    decimals : int
        Of every price.
    notice : str
        What went wrong, or has to be said.
    ladder : Ladder or None
        None before the first record.
    """

    symbol: str = ""
    place: int = 0
    books: int = 0
    publisher_id: int | None = None
    dataset: str = ""
    state: State = State.PLAYING
    speed: float = 0.0
    is_live: bool = False
    clock_ns: int | None = None
    progress: float | None = None
    quiet_s: int = 0
    lag_ns: int | None = None
    total_records: int = 0
    rates: LiveRates = field(default_factory=LiveRates)
    decimals: int = MIN_DECIMALS
    notice: str = ""
    ladder: Ladder | None = None


def ladder_of(book: BookView, trades: Records, depth: int) -> Ladder:
    """Return what a book and its last trades show.

    Parameters
    ----------
    book : BookView
    trades : MBO[n]
        Latest first.
    depth : int
        How many levels of each side.
    """
    return Ladder(
        bids=_levels(book, "B", depth),
        asks=_levels(book, "A", depth),
        prints=tuple(
            Print(int(t["ts_event"]), int(t["price"]), int(t["size"]), t["side"].decode("ascii"))
            for t in trades
        ),
        bid_levels=book.level_count("B"),
        ask_levels=book.level_count("A"),
        orders=book.total_orders,
        records=book.records,
        trades=book.trades,
        volume=book.volume,
        is_partial=book.is_partial,
        anomalies=tuple(sorted(book.anomalies.items(), key=lambda item: -item[1])),
    )


def bar_scale(ladder: Ladder) -> int:
    """Return the size of which a full bar tells: 1, 2 or 5 times a power of ten.

    It is no less than any size shown, and so round that it seldom changes.
    """
    largest = max((level.size for level in (*ladder.bids, *ladder.asks)), default=1)
    power = int(10 ** (len(str(largest)) - 1))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= largest)


def price_text(price: int, decimals: int) -> str:
    """Return a fixed-point price with as many decimals, a dash for UNDEF_PRICE."""
    if price == UNDEF_PRICE:
        return "-"
    whole, fraction = divmod(abs(price), PRICE_SCALE)
    sign = "-" if price < 0 else ""
    return f"{sign}{whole}.{fraction:09d}"[: decimals - 9 or None]


def _levels(book: BookView, side: Side, depth: int) -> tuple[Level, ...]:
    return tuple(Level(*row) for row in book.levels(side, depth).tolist())
