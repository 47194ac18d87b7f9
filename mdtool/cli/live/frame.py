"""Frames of the live view: plain values, taken from the books and counts of a feed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from mdtool.cli.live.feed import Feed
from mdtool.cli.screen import printable
from mdtool.core.rates import Rates
from mdtool.core.records import Records
from mdtool.core.units import NS_PER_S, PRICE_SCALE, UNDEF_PRICE
from mdtool.engine.book.joined import JoinedView
from mdtool.engine.book.view import BookView, Side

MIN_DECIMALS: Final = 2
_QUIET_FROM_S: Final = 2
_MOST_LAG_NS: Final = 3600 * NS_PER_S
"""A live stream further behind than this is a replayed recording."""


class State(Enum):
    """Whether the stream is playing."""

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
    """Rates, per second of real time.

    Attributes
    ----------
    records : float
        Of all books.
    shown, trades, volume : float
        Records, trades and their size, of the book on the screen.
    pace : float
        Seconds of the stream.
    """

    records: float = 0.0
    shown: float = 0.0
    trades: float = 0.0
    volume: float = 0.0
    pace: float = 0.0


@dataclass(frozen=True, slots=True)
class Frame:
    """All that the screen of the live view shows.

    Attributes
    ----------
    place, books : int
        The number of the book on the screen, from 1 on, and how many books there are.
    publisher_id : int or None
        None where all books are of one publisher, or joined.
    publishers : int
        How many publishers' books are joined.
    speed : float
        0 is flat out.
    is_live : bool
        Whether the source is a pipe or a connection, not a file.
    is_played : bool
        Whether it can be paused, stepped and paced.
    clock_ns : int or None
        The stream's time, None before its first record.
    progress : float or None
        The share of the source that was played, from 0 to 1, None if its size is unknown.
    quiet_s : int
        For how many seconds a live stream has had no records.
    lag_ns : int or None
        How far a live stream is behind real time.
    decimals : int
        The decimals of every price.
    notice : str
        An error, or a message for the user.
    ladder : Ladder or None
        None before the first record.
    """

    symbol: str = ""
    place: int = 0
    books: int = 0
    publisher_id: int | None = None
    publishers: int = 1
    dataset: str = ""
    state: State = State.PLAYING
    speed: float = 0.0
    is_live: bool = False
    is_played: bool = True
    clock_ns: int | None = None
    progress: float | None = None
    quiet_s: int = 0
    lag_ns: int | None = None
    total_records: int = 0
    rates: LiveRates = field(default_factory=LiveRates)
    decimals: int = MIN_DECIMALS
    notice: str = ""
    ladder: Ladder | None = None


def ladder_of(book: BookView | JoinedView, trades: Records, depth: int) -> Ladder:
    """Return the ladder of a book with its last trades.

    Parameters
    ----------
    book : BookView or JoinedView
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


class Observer:
    """Makes frames of a feed, which is held meanwhile.

    Parameters
    ----------
    feed : Feed
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._rates = Rates(NS_PER_S)
        self._rated: object = None
        self._decimals: dict[int, int] = {}

    def look(self, depth: int, n_prints: int, now_ns: int, wall_ns: int, notice: str) -> Frame:
        """Return the frame of this moment.

        Parameters
        ----------
        depth, n_prints : int
            The most levels of each side, and the most trades, to show.
        now_ns : int
            The feed's own clock.
        wall_ns : int
            The time since the epoch.
        notice : str
            Shown unless the feed has an error.
        """
        feed, key = self._feed, self._feed.shown
        shown = feed.books_shown
        book = None if key is None else feed.view(key, shown[key])
        ladder = None
        if book is not None and key is not None:
            ladder = ladder_of(book, feed.tape.last(shown[key], n_prints), depth)
            self._decimals[key] = max(self._decimals.get(key, 0), ladder.decimals)
        state = self._state()
        clock_ns = feed.playback.position_ns(now_ns)
        is_live = feed.size_bytes is None
        frame = Frame(
            dataset=printable(feed.dataset),
            state=state,
            speed=feed.playback.speed,
            is_live=is_live,
            clock_ns=clock_ns,
            progress=self._progress(),
            total_records=feed.records,
            rates=self._rates_now(ladder, clock_ns, now_ns),
            notice=printable(str(feed.error) if feed.error else notice),
            ladder=ladder,
        )
        if key is None or book is None:
            return frame
        since_ns = now_ns - feed.played_ns
        lag_ns = wall_ns - since_ns - (clock_ns or 0)
        publishers = {feed.view(key, books).publisher_id for key, books in shown.items()}
        quiet_s = since_ns // NS_PER_S if is_live else 0
        return dataclasses.replace(
            frame,
            symbol=printable(feed.symbol(key)),
            place=[*shown].index(key) + 1,
            books=len(shown),
            publisher_id=book.publisher_id if len(publishers) > 1 else None,
            publishers=len(shown[key]),
            quiet_s=quiet_s if state is State.PLAYING and quiet_s >= _QUIET_FROM_S else 0,
            lag_ns=lag_ns if is_live and 0 <= lag_ns < _MOST_LAG_NS else None,
            decimals=self._decimals[key],
        )

    def _state(self) -> State:
        if self._feed.error:
            return State.BROKEN
        if self._feed.has_ended:
            return State.ENDED
        return State.PAUSED if self._feed.playback.is_paused else State.PLAYING

    def _progress(self) -> float | None:
        size_bytes = self._feed.size_bytes
        if not size_bytes:
            return None
        return min(self._feed.bytes_played / size_bytes, 1.0)

    def _rates_now(self, ladder: Ladder | None, clock_ns: int | None, now_ns: int) -> LiveRates:
        feed = self._feed
        rated = (feed.shown, feed.playback.speed, clock_ns is None)
        if rated != self._rated:
            self._rated = rated
            self._rates.forget()
        of_shown = (ladder.records, ladder.trades, ladder.volume) if ladder else (0, 0, 0)
        counts = (feed.records, *of_shown, clock_ns or 0)
        self._rates.update(now_ns, *counts)
        records, shown, trades, volume, pace = self._rates.per_second(now_ns, *counts)
        return LiveRates(records, shown, trades, volume, pace / NS_PER_S)


def bar_scale(ladder: Ladder) -> int:
    """Return the size of a full bar: 1, 2 or 5 times a power of ten.

    It is at least any size shown, and so round that it seldom changes.
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


def _levels(book: BookView | JoinedView, side: Side, depth: int) -> tuple[Level, ...]:
    return tuple(Level(*row) for row in book.levels(side, depth).tolist())
