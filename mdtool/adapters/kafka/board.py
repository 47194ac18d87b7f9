"""The state of the market as its records tell it: sessions, open bars and those that have closed.

The records of a transaction on one partition of aggregates count together, once its totals, which
come last, are there. What has closed is on them too for as long as it may be amended, so that no
bar is missing between two transactions; older ones are on the topic of bars.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mdtool.adapters.kafka.records import OFFSET, Aggregates, RecordError

_BAR: Final = struct.Struct("<11q")
_MAX_NS: Final = 2**63 - 1


class BarRow(NamedTuple):
    """A bar; prices at 1e-9, times in ns."""

    start: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    trades: int
    first: int
    last: int


class Series:
    """The bars of a symbol and length that have closed, the newest of them."""

    __slots__ = ("_rows", "_starts")

    def __init__(self) -> None:
        self._rows: dict[int, BarRow] = {}
        self._starts: list[int] = []

    def put(self, row: BarRow, keep: int) -> None:
        """Put a bar in its place, or in that of one with the same start."""
        if row.start not in self._rows:
            insort(self._starts, row.start)
            if len(self._starts) > keep:
                del self._rows[self._starts.pop(0)]
                if row.start < self._starts[0]:
                    return
        self._rows[row.start] = row

    def get(self, start: int) -> BarRow | None:
        """Return the bar of that start."""
        return self._rows.get(start)

    def before(self, end: int, limit: int) -> list[BarRow]:
        """Return the newest bars that start before `end`, newest first."""
        stop = bisect_left(self._starts, end)
        return [self._rows[start] for start in reversed(self._starts[max(0, stop - limit) : stop])]


@dataclass(slots=True)
class News:
    """What has changed.

    Attributes
    ----------
    symbols : set of str
        Whose sessions or open bars have.
    closed : dict
        By symbol and length, the starts of the bars that have.
    """

    symbols: set[str] = field(default_factory=set)
    closed: dict[tuple[str, int], set[int]] = field(default_factory=dict)

    def add(self, other: News) -> None:
        """Take what has changed beside."""
        self.symbols |= other.symbols
        for series, starts in other.closed.items():
            self.closed.setdefault(series, set()).update(starts)


class Board:
    """Sessions and bars of every symbol.

    Parameters
    ----------
    intervals_ns : sequence of int
        The lengths of bars, the shortest first.
    partitions : int
        How many there are.
    keep : int
        How many closed bars of a symbol and length.

    Attributes
    ----------
    sessions : dict
        Of each symbol, the bytes of a SESSION.
    news : News
        What has changed since it was last taken away.
    """

    def __init__(self, intervals_ns: Sequence[int], partitions: int, keep: int) -> None:
        self.sessions: dict[str, bytes] = {}
        self.news = News()
        self._shortest = min(intervals_ns)
        self._keep = keep
        self._totals: list[dict[str, int]] = [{} for _ in range(partitions)]
        self._unfinished: list[list[tuple[bytes, bytes]]] = [[] for _ in range(partitions)]
        self._opened: dict[tuple[str, int], BarRow] = {}
        self._closed: dict[tuple[str, int], Series] = {}

    def total(self, name: str) -> int:
        """Return a total over all partitions."""
        return sum(totals.get(name, 0) for totals in self._totals)

    def offsets(self) -> list[int]:
        """Return of each partition the offset before which all ticks are in what is here."""
        return [totals.get(OFFSET, 0) for totals in self._totals]

    def take_news(self) -> News:
        """Return what has changed since the last call."""
        news, self.news = self.news, News()
        return news

    def take_aggregate(self, partition: int, key: bytes, value: bytes) -> None:
        """Take a record of a partition of aggregates.

        Raises
        ------
        RecordError
            When it is not one of mdtool's.
        """
        unfinished = self._unfinished[partition]
        unfinished.append((key, value))
        if key == b"t/":
            self._finish(partition)

    def take_bar(self, key: bytes, value: bytes) -> None:
        """Take a record of the topic of bars.

        Raises
        ------
        RecordError
            When it is not one of mdtool's.
        """
        try:
            symbol, length, _ = key.decode().rsplit("/", 2)
            self._close(symbol, int(length), _row(value))
        except (ValueError, struct.error) as error:
            raise RecordError(f"{key!r} is no record of mdtool's bars: {error}") from error

    def open_bars(self, symbol: str, length: int) -> list[BarRow]:
        """Return the one or two bars that have not closed, newest first.

        What is in the shortest open bar is not in longer ones yet.
        """
        shortest = self._opened.get((symbol, self._shortest))
        if shortest is None:
            return []
        if length == self._shortest:
            return [shortest]
        start = shortest.start - shortest.start % length
        newest = shortest._replace(start=start)
        longer = self._opened.get((symbol, length))
        if longer is None:
            return [newest]
        return [_merged(longer, newest)] if longer.start == start else [newest, longer]

    def closed_bars(self, symbol: str, length: int, starts: Iterable[int]) -> list[BarRow]:
        """Return those of the bars with these starts that are kept, oldest first."""
        series = self._closed.get((symbol, length))
        found = [] if series is None else [series.get(start) for start in sorted(starts)]
        return [row for row in found if row is not None]

    def bars(self, symbol: str, length: int, limit: int, before_ns: int) -> list[BarRow]:
        """Return at most `limit` bars that start before `before_ns`, newest first.

        0 means from the newest, which may be open.
        """
        end = before_ns or _MAX_NS
        opened = self.open_bars(symbol, length)
        rows = [row for row in opened if row.start < end]
        series = self._closed.get((symbol, length))
        if series is not None:
            # On its topic, a bar may have closed that is open here still.
            end = min(end, *(row.start for row in opened), _MAX_NS)
            rows += series.before(end, limit)
        return rows[:limit]

    def _finish(self, partition: int) -> None:
        """Have all count that was taken of a partition: a transaction is whole."""
        unfinished, self._unfinished[partition] = self._unfinished[partition], []
        records = Aggregates()
        for key, value in unfinished:
            records.take(key, value)
        self.sessions.update(records.sessions)
        self.news.symbols.update(records.sessions)
        for series, value in records.open_bars.items():
            self._opened[series] = _row(value)
            self.news.symbols.add(series[0])
        for (symbol, length, _), value in records.recent_bars.items():
            self._close(symbol, length, _row(value))
        if records.totals:
            self._totals[partition] = records.totals

    def _close(self, symbol: str, length: int, row: BarRow) -> None:
        self._closed.setdefault((symbol, length), Series()).put(row, self._keep)
        self.news.closed.setdefault((symbol, length), set()).add(row.start)


def _row(value: bytes) -> BarRow:
    return BarRow(*_BAR.unpack(value)[2:])


def _merged(longer: BarRow, newest: BarRow) -> BarRow:
    """Return a bar with the trades of both, of which `newest` has the start of a shorter one."""
    is_first, is_last = newest.first < longer.first, newest.last >= longer.last
    return BarRow(
        longer.start,
        newest.open if is_first else longer.open,
        max(longer.high, newest.high),
        min(longer.low, newest.low),
        newest.close if is_last else longer.close,
        min(longer.volume + newest.volume, 2**63 - 1),
        longer.trades + newest.trades,
        min(longer.first, newest.first),
        max(longer.last, newest.last),
    )
