"""Gets what the tables of a SQLite store hold."""

# ruff: noqa: S608 - statements are put together from the constants of this module only

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores.errors import StoreFormatError
from mdtool.adapters.stores.port import (
    MAX_NS,
    SavedState,
    SavedStream,
    SymbolTotals,
    TradeKey,
    TradePage,
    WrongTotals,
)
from mdtool.engine.saved_bars import SAVED_BAR
from mdtool.engine.sessions import SESSION

PAGE_TRADES: Final = 50_000
"""In each page of a reader of all trades: what is in memory at once."""
_ABOVE_ALL: Final = TradeKey(MAX_NS, 0, 0)

_TRADE: Final = "timestamp, stream, sequence, price, volume, ingest_timestamp"
_TRADE_COLUMNS: Final = 6
_PAGE: Final = f"""
SELECT {_TRADE} FROM trades
WHERE symbol = ? AND (timestamp, stream, sequence) < (?, ?, ?)
ORDER BY timestamp DESC, stream DESC, sequence DESC LIMIT ?
"""
_NEXT: Final = f"""
SELECT {_TRADE} FROM trades
WHERE symbol = ? AND (timestamp, stream, sequence) > (?, ?, ?) AND timestamp < ?
ORDER BY timestamp, stream, sequence LIMIT ?
"""
_SYMBOLS: Final = """
SELECT symbol, trade_count, last_trade_at FROM symbols WHERE trade_count > 0 ORDER BY symbol
"""
_BAR: Final = "start, open, high, low, close, volume, count, first, last"
_BARS: Final = f"""
SELECT 0, interval, 0, {_BAR} FROM bars
WHERE symbol = ? AND interval = ? AND start < ?
ORDER BY start DESC LIMIT ?
"""
_SESSIONS: Final = """
SELECT sessions.symbol, symbols.symbol, open, high, low, close, volume, count, timestamp,
    ingest_timestamp
FROM sessions CROSS JOIN symbols ON symbols.number = sessions.symbol ORDER BY sessions.symbol
"""
_OPEN_BARS: Final = f"SELECT symbol, interval, 1, {_BAR} FROM open_bars"
_AMENDABLE: Final = f"""
SELECT symbol, interval, 0, {_BAR} FROM bars
WHERE symbol = ? AND interval = ? AND start > ?
"""
_POSITIONS: Final = """
SELECT stream_id, next_sequence FROM streams
WHERE next_sequence IS NOT NULL ORDER BY heard DESC LIMIT ?
"""
_COUNTED: Final = """
SELECT symbol, count(*), max(timestamp) FROM trades GROUP BY symbol
"""


def symbol_number(connection: sqlite3.Connection, symbol: str) -> int | None:
    """Return the number of a symbol that has trades."""
    query = "SELECT number FROM symbols WHERE symbol = ? AND trade_count > 0"
    found: tuple[int] | None = connection.execute(query, (symbol,)).fetchone()
    return None if found is None else found[0]


def totals(connection: sqlite3.Connection) -> list[SymbolTotals]:
    """Return the totals of all symbols with trades."""
    return [SymbolTotals(*row) for row in connection.execute(_SYMBOLS)]


def page_before(
    connection: sqlite3.Connection, number: int, limit: int, before: TradeKey | None
) -> TradePage:
    """Return the newest trades of a symbol that are below a key, newest first."""
    return _trades(connection.execute(_PAGE, (number, *(before or _ABOVE_ALL), max(0, limit))))


def page_after(
    connection: sqlite3.Connection, number: int, after: TradeKey, end_ns: int
) -> TradePage:
    """Return the oldest trades of a symbol that are above a key, oldest first."""
    return _trades(connection.execute(_NEXT, (number, *after, end_ns, PAGE_TRADES)))


def closed_bars(
    connection: sqlite3.Connection, number: int, interval_ns: int, limit: int, before_ns: int
) -> NDArray[np.void]:
    """Return the newest closed bars that start before a time."""
    rows = connection.execute(_BARS, (number, interval_ns, before_ns or MAX_NS, max(0, limit)))
    return _array(rows, SAVED_BAR)


def position(connection: sqlite3.Connection, stream_id: str) -> int | None:
    """Return the next sequence of a stream."""
    query = "SELECT next_sequence FROM streams WHERE stream_id = ?"
    found: tuple[int | None] | None = connection.execute(query, (stream_id,)).fetchone()
    return None if found is None else found[0]


def streams(connection: sqlite3.Connection) -> list[SavedStream]:
    """Return all streams."""
    query = "SELECT number, stream_id, next_sequence FROM streams ORDER BY number"
    return [SavedStream(*row) for row in connection.execute(query)]


def state(connection: sqlite3.Connection, max_streams: int, lateness_ns: int) -> SavedState:
    """Return what a market takes up again, as of one moment if in a transaction."""
    rows = connection.execute(_SESSIONS).fetchall()
    place = {number: index for index, (number, *_) in enumerate(rows)}
    positions = connection.execute(_POSITIONS, (max_streams,)).fetchall()
    return SavedState(
        symbols=[row[1] for row in rows],
        sessions=_array(iter(row[2:] for row in rows), SESSION),
        bars=_placed(_living_bars(connection, lateness_ns), place),
        positions=dict(reversed(positions)),
        counts=dict(connection.execute("SELECT name, value FROM counts")),
    )


def _living_bars(connection: sqlite3.Connection, lateness_ns: int) -> NDArray[np.void]:
    """Return the open bars, and those that may still be amended, with numbers of symbols."""
    open_ = connection.execute(_OPEN_BARS).fetchall()
    latest: dict[int, int] = {}
    for number, _, _, start_ns, *_ in open_:
        latest[number] = max(latest.get(number, start_ns), start_ns)
    closed = (
        connection.execute(_AMENDABLE, (number, interval, latest[number] - lateness_ns - interval))
        for number, interval, *_ in open_
    )
    return _array(chain(open_, chain.from_iterable(closed)), SAVED_BAR)


def _placed(bars: NDArray[np.void], place: dict[int, int]) -> NDArray[np.void]:
    """Return the bars of symbols that have a place, by that and in order."""
    known = np.array([number in place for number in bars["symbol"].tolist()], np.bool_)
    bars = bars[known]
    bars["symbol"] = [place[number] for number in bars["symbol"].tolist()]
    return bars[np.lexsort((bars["start_ns"], bars["interval_ns"], bars["symbol"]))]


def wrong_totals(connection: sqlite3.Connection) -> dict[int, WrongTotals]:
    """Read all trades, and return the totals that are not theirs, by the number of the symbol.

    Raises
    ------
    StoreFormatError
        When there are trades of no symbol; the message is what is wrong.
    """
    counted = {number: tuple(rest) for number, *rest in connection.execute(_COUNTED)}
    query = "SELECT number, symbol, trade_count, last_trade_at FROM symbols ORDER BY symbol"
    found = {}
    for number, symbol, count, latest_ns in connection.execute(query):
        stored = SymbolTotals(symbol, count, latest_ns or 0)
        actual = SymbolTotals(symbol, *counted.pop(number, (0, 0)))
        if stored != actual:
            found[number] = WrongTotals(stored, actual)
    if counted:
        raise StoreFormatError("has trades of no symbol; restore it from a copy")
    return found


def _trades(rows: Iterator[tuple[int, ...]]) -> TradePage:
    table = _numbers(rows).reshape(-1, _TRADE_COLUMNS)
    return TradePage(*np.ascontiguousarray(table.T))


def _array(rows: Iterator[tuple[int, ...]], dtype: np.dtype[Any]) -> NDArray[np.void]:
    """Return rows of int64 as an array of `dtype`, which has nothing else."""
    return _numbers(rows).view(dtype)


def _numbers(rows: Iterator[tuple[int, ...]]) -> NDArray[np.int64]:
    """Return rows one after the other; what is no number, others than this program wrote."""
    try:
        return np.fromiter(chain.from_iterable(rows), np.int64)
    except (TypeError, ValueError) as error:
        damage = sqlite3.DatabaseError("a value is no whole number")
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage from error
