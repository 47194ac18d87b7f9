"""The state of the market from its records on Kafka: sessions, open bars and closed bars.

The records of a transaction on a partition of aggregates are applied together, when its totals,
which come last, arrive. Closed bars that may still be amended are among them, so that no bar is
missing between two transactions; older ones are on the topic of bars.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from mdtool.adapters.kafka.records import OFFSET, TOTALS, Aggregates, RecordError
from mdtool.engine.saved_state import SESSION_LENGTH

_BAR: Final = struct.Struct("<11q")
_MAX_NS: Final = 2**63 - 1
_ROOM: Final = 8
"""Bars that a series has room for at least, once it has some."""


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
    """The newest closed bars of a symbol and length, as columns in the order of their starts."""

    __slots__ = ("_begin", "_columns", "_end", "_last")

    def __init__(self) -> None:
        self._columns = np.empty((len(BarRow._fields), 0), np.int64)
        self._begin = self._end = 0
        self._last = -1
        """The newest start, which most bars are, or are behind."""

    def put(self, row: BarRow, keep: int) -> None:
        """Insert a bar in order, or replace the one with the same start; drop the oldest."""
        if row.start == self._last:
            self._columns[:, self._end - 1] = row
            return
        place = self._end if row.start > self._last else self._place(row.start)
        if place < self._end and self._columns[0, place] == row.start:
            self._columns[:, place] = row
            return
        if self._end - self._begin == keep:
            if place == self._begin:
                return
            self._begin += 1
        if self._end == self._columns.shape[1]:
            place -= self._begin
            self._make_room()
        self._columns[:, place + 1 : self._end + 1] = self._columns[:, place : self._end]
        self._columns[:, place] = row
        self._end += 1
        self._last = max(self._last, row.start)

    def get(self, start: int) -> BarRow | None:
        """Return the bar with this start."""
        at = self._place(start)
        if at == self._end or self._columns[0, at] != start:
            return None
        return BarRow(*self._columns[:, at].tolist())

    def before(self, end: int, limit: int) -> list[BarRow]:
        """Return the newest bars that start before `end`, newest first."""
        stop = self._place(end)
        return self._rows(max(self._begin, stop - limit), stop)[::-1]

    def since(self, start: int, end: int, limit: int) -> list[BarRow]:
        """Return the oldest bars that start at `start` or later and before `end`, oldest first."""
        first = self._place(start)
        return self._rows(first, min(self._place(end), first + limit))

    def _place(self, start: int) -> int:
        """Return the column of the first bar that starts at `start` or later."""
        starts = self._columns[0, self._begin : self._end]
        return self._begin + int(np.searchsorted(starts, start))

    def _rows(self, begin: int, end: int) -> list[BarRow]:
        return [BarRow(*row) for row in self._columns[:, begin:end].T.tolist()]

    def _make_room(self) -> None:
        """Move the bars to the front of new columns, with room for an eighth more of them."""
        held = self._columns[:, self._begin : self._end]
        count = held.shape[1]
        columns = np.empty((len(held), count + max(_ROOM, count // 8)), np.int64)
        columns[:, :count] = held
        self._columns, self._begin, self._end = columns, 0, count


@dataclass(slots=True)
class Changes:
    """Symbols and bars that have changed.

    Attributes
    ----------
    symbols : set of str
        Those whose sessions or open bars changed.
    closed : dict
        By symbol and length, the starts of closed bars that changed.
    traceparent : str
        The trace of the latest sampled batch among them; empty for none.
    """

    symbols: set[str] = field(default_factory=set)
    closed: dict[tuple[str, int], set[int]] = field(default_factory=dict)
    traceparent: str = ""

    def add(self, other: Changes) -> None:
        """Add other changes."""
        self.symbols |= other.symbols
        self.traceparent = other.traceparent or self.traceparent
        for series, starts in other.closed.items():
            self.closed.setdefault(series, set()).update(starts)


class MarketState:
    """Sessions and bars of every symbol.

    Parameters
    ----------
    intervals_ns : sequence of int
        The lengths of bars.
    partitions : int
        Their number.
    keep : int
        How many closed bars of a symbol and length are held.

    Attributes
    ----------
    sessions : dict
        Of each symbol, the bytes of a SESSION.
    lots : dict
        Of symbols, in units of 1e-9.
    changes : Changes
        Since the last `take_changes`.
    """

    def __init__(self, intervals_ns: Sequence[int], partitions: int, keep: int) -> None:
        self.sessions: dict[str, bytes] = {}
        self.lots: dict[str, int] = {}
        self.changes = Changes()
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
        """Return the offset of each partition before which all ticks are in this state."""
        return [totals.get(OFFSET, 0) for totals in self._totals]

    def take_changes(self) -> Changes:
        """Return the changes since the last call."""
        changes, self.changes = self.changes, Changes()
        return changes

    def apply_aggregate(self, partition: int, key: bytes, value: bytes) -> None:
        """Apply a record of a partition of aggregates.

        Raises
        ------
        RecordError
            When mdtool did not write it.
        """
        unfinished = self._unfinished[partition]
        unfinished.append((key, value))
        if key == TOTALS:
            self._finish(partition)

    def apply_bar(self, key: bytes, value: bytes) -> None:
        """Apply a record of the topic of bars.

        Raises
        ------
        RecordError
            When mdtool did not write it.
        """
        try:
            symbol, length, _ = key.decode().rsplit("/", 2)
            self._close(symbol, int(length), _row(value))
        except (ValueError, struct.error) as error:
            raise RecordError(f"{key!r} is not a record of mdtool's bars: {error}") from error

    def open_bars(self, symbol: str, length: int) -> list[BarRow]:
        """Return the one or two open bars of a symbol and length, newest first.

        The trades of the shortest open bar are not yet in stored bars of other lengths.
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
        """Return those of the closed bars with these starts that are held, oldest first."""
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
            rows += series.before(min(end, _end_of_closed(opened)), limit)
        return rows[:limit]

    def past_session(self, symbol: str) -> BarRow | None:
        """Return the session before the current one, as a bar; None where there is none."""
        series = self._closed.get((symbol, SESSION_LENGTH))
        return None if series is None else series.before(_MAX_NS, 1)[0]

    def bars_since(self, symbol: str, length: int, limit: int, since_ns: int) -> list[BarRow]:
        """Return at most `limit` bars that start at `since_ns` or later, oldest first."""
        opened = self.open_bars(symbol, length)
        rows = [row for row in reversed(opened) if row.start >= since_ns]
        series = self._closed.get((symbol, length))
        if series is not None:
            rows = series.since(since_ns, _end_of_closed(opened), limit) + rows
        return rows[:limit]

    def _finish(self, partition: int) -> None:
        """Apply the records of a complete transaction of a partition."""
        unfinished, self._unfinished[partition] = self._unfinished[partition], []
        records = Aggregates()
        for key, value in unfinished:
            records.apply(key, value)
        self.sessions.update(records.sessions)
        self.lots.update(records.lots)
        self.changes.symbols.update(records.sessions)
        for series, value in records.open_bars.items():
            self._opened[series] = _row(value)
            self.changes.symbols.add(series[0])
        for (symbol, length, _), value in records.recent_bars.items():
            self._close(symbol, length, _row(value))
        if records.totals:
            self._totals[partition] = records.totals

    def _close(self, symbol: str, length: int, row: BarRow) -> None:
        self._closed.setdefault((symbol, length), Series()).put(row, self._keep)
        self.changes.closed.setdefault((symbol, length), set()).add(row.start)


def _row(value: bytes) -> BarRow:
    return BarRow(*_BAR.unpack(value)[2:])


def _end_of_closed(opened: Iterable[BarRow]) -> int:
    """Return where closed bars end: the topic of bars may have closed one that is open here."""
    return min((row.start for row in opened), default=_MAX_NS)


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
