"""The state of the market from its records on Kafka: sessions, open bars and closed bars.

The records of a transaction on a partition of aggregates are applied together, when its totals,
which come last, arrive. Closed bars that may still be amended are among them, so that no bar is
missing between two transactions; older ones are on the topic of bars.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mdtool.adapters.kafka.records import OFFSET, TOTALS, Aggregates, RecordError
from mdtool.engine.saved_state import SESSION_LENGTH

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
    """The newest closed bars of a symbol and length."""

    __slots__ = ("_rows", "_starts")

    def __init__(self) -> None:
        self._rows: dict[int, BarRow] = {}
        self._starts: list[int] = []

    def put(self, row: BarRow, keep: int) -> None:
        """Insert a bar in order, or replace the one with the same start."""
        if row.start not in self._rows:
            insort(self._starts, row.start)
            if len(self._starts) > keep:
                del self._rows[self._starts.pop(0)]
                if row.start < self._starts[0]:
                    return
        self._rows[row.start] = row

    def get(self, start: int) -> BarRow | None:
        """Return the bar with this start."""
        return self._rows.get(start)

    def before(self, end: int, limit: int) -> list[BarRow]:
        """Return the newest bars that start before `end`, newest first."""
        stop = bisect_left(self._starts, end)
        return [self._rows[start] for start in reversed(self._starts[max(0, stop - limit) : stop])]


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
            # The topic of bars may have closed a bar that is still open here.
            end = min(end, *(row.start for row in opened), _MAX_NS)
            rows += series.before(end, limit)
        return rows[:limit]

    def past_session(self, symbol: str) -> BarRow | None:
        """Return the session before the current one, as a bar; None where there is none."""
        series = self._closed.get((symbol, SESSION_LENGTH))
        return None if series is None else series.before(_MAX_NS, 1)[0]

    def bars_since(self, symbol: str, length: int, limit: int, since_ns: int) -> list[BarRow]:
        """Return at most `limit` bars that start at `since_ns` or later, oldest first."""
        rows = self.bars(symbol, length, _MAX_NS, 0)
        return [row for row in reversed(rows) if row.start >= since_ns][:limit]

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
