"""Puts steps into the tables of a SQLite store, within a transaction that the caller holds."""

# ruff: noqa: S608 - statements are put together from the constants of this module only

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores.errors import StoreGapError
from mdtool.adapters.stores.port import Step, StreamRun

_COLUMNS: Final = 7
_ROWS: Final = 64
"""Trades in one statement: half as much again a second as one by one."""
_ROW: Final = f"({', '.join('?' * _COLUMNS)})"
_NO_TRADES: Final = np.empty((0, _COLUMNS), np.int64)
_INSERT: Final = f"INSERT OR IGNORE INTO trades VALUES {_ROW}"
_INSERT_ROWS: Final = f"INSERT OR IGNORE INTO trades VALUES {', '.join([_ROW] * _ROWS)}"

_SESSION: Final = """
INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (symbol) DO UPDATE SET
    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
    volume = excluded.volume, count = excluded.count, timestamp = excluded.timestamp,
    ingest_timestamp = excluded.ingest_timestamp
WHERE excluded.count >= sessions.count
"""
_BAR_COLUMNS: Final = """
    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
    volume = excluded.volume, count = excluded.count, first = excluded.first, last = excluded.last
"""
_OPEN_BAR: Final = f"""
INSERT INTO open_bars VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (symbol, interval) DO UPDATE SET start = excluded.start, {_BAR_COLUMNS}
WHERE (excluded.start, excluded.count) >= (open_bars.start, open_bars.count)
"""
_CLOSED_BAR: Final = f"""
INSERT INTO bars VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (symbol, interval, start) DO UPDATE SET {_BAR_COLUMNS}
WHERE excluded.count >= bars.count
"""
_COUNT: Final = """
INSERT INTO counts VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)
"""
_TOTALS: Final = """
UPDATE symbols SET
    trade_count = trade_count + ?1, last_trade_at = max(coalesce(last_trade_at, ?2), ?2)
WHERE number = ?3
"""
_HEARD: Final = """
UPDATE streams SET next_sequence = ?, heard = (SELECT max(heard) + 1 FROM streams)
WHERE number = ?
"""


def write_step(connection: sqlite3.Connection, step: Step, known: dict[str, int]) -> dict[str, int]:
    """Write what is new in a step.

    Parameters
    ----------
    connection : sqlite3.Connection
        In a transaction of its own.
    step : Step
    known : dict
        Numbers of symbols.

    Returns
    -------
    dict
        The numbers of those symbols that were not known, which hold once it is committed.

    Raises
    ------
    StoreGapError
        When frames before a run are missing.
    sqlite3.Error
        When it cannot be written.
    """
    streams = _Streams(connection)
    trades = np.concatenate([_NO_TRADES, *(_news(streams, run) for run in step.runs)])
    numbers, learnt = _symbol_numbers(connection, step, trades[:, 0], known)
    if len(trades):
        _insert_trades(connection, numbers, trades)
    streams.write()
    if len(step.changed):
        symbol = numbers[step.changed].tolist()
        rows = zip(symbol, step.sessions.tolist(), strict=True)
        connection.executemany(_SESSION, [(number, *session) for number, session in rows])
    if len(step.bars):
        _write_bars(connection, numbers, step.bars)
    connection.executemany(_COUNT, step.counts.items())
    return learnt


@dataclass(slots=True)
class _Stream:
    number: int
    position: int | None
    """None when only parts of it are known."""


class _Streams:
    """The streams that a step has runs of, as the runs move them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._streams: dict[str, _Stream] = {}
        self._moved: dict[str, _Stream] = {}

    def find(self, stream_id: str) -> _Stream:
        """Return a stream, which is stored from now on if it was not."""
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._streams[stream_id] = self._stored(stream_id)
        return stream

    def move(self, run: StreamRun) -> int:
        """Move a stream's position past a run; return where it was.

        Raises
        ------
        StoreGapError
            When frames before the run are missing.
        """
        stream = self.find(run.stream_id)
        position = run.first_sequence if stream.position is None else stream.position
        if run.first_sequence > position:
            raise StoreGapError(
                f"stream {run.stream_id!r} goes on at {position}, not at {run.first_sequence}"
            )
        stream.position = max(position, run.next_sequence)
        self._moved.pop(run.stream_id, None)
        self._moved[run.stream_id] = stream  # after those that were heard of before
        return position

    def write(self) -> None:
        """Store the positions."""
        moved = [(stream.position, stream.number) for stream in self._moved.values()]
        self._connection.executemany(_HEARD, moved)

    def _stored(self, stream_id: str) -> _Stream:
        query = "SELECT number, next_sequence FROM streams WHERE stream_id = ?"
        found = self._connection.execute(query, (stream_id,)).fetchone()
        if found is not None:
            return _Stream(*found)
        insert = "INSERT INTO streams (stream_id) VALUES (?)"
        number = self._connection.execute(insert, (stream_id,)).lastrowid
        assert number is not None
        return _Stream(number, None)


def _news(streams: _Streams, run: StreamRun) -> NDArray[np.int64]:
    """Return the new trades of a run as rows of the table, with the step's indices of symbols."""
    begin = 0 if run.is_part else int(np.searchsorted(run.sequence, streams.move(run)))
    rows = np.empty((len(run) - begin, _COLUMNS), np.int64)
    rows[:, 0] = run.symbol[begin:]
    rows[:, 1] = run.exchange_timestamp[begin:]
    rows[:, 2] = streams.find(run.stream_id).number
    rows[:, 3] = run.sequence[begin:]
    rows[:, 4] = run.price[begin:]
    rows[:, 5] = run.volume[begin:]
    rows[:, 6] = run.ingest_timestamp[begin:]
    return rows


def _symbol_numbers(
    connection: sqlite3.Connection, step: Step, traded: NDArray[np.int64], known: dict[str, int]
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Return the numbers of symbols by their indices in the step, and those that are news."""
    wanted = np.unique(np.concatenate([traded, step.changed, step.bars["symbol"]]))
    numbers = np.zeros(int(wanted[-1]) + 1 if len(wanted) else 0, np.int64)
    learnt: dict[str, int] = {}
    for index in wanted.tolist():
        symbol = step.symbols[index]
        number = known.get(symbol)
        if number is None:
            number = learnt[symbol] = _symbol_number(connection, symbol)
        numbers[index] = number
    return numbers, learnt


def _symbol_number(connection: sqlite3.Connection, symbol: str) -> int:
    query = "SELECT number FROM symbols WHERE symbol = ?"
    found: tuple[int] | None = connection.execute(query, (symbol,)).fetchone()
    if found is not None:
        return found[0]
    insert = "INSERT INTO symbols (symbol) VALUES (?)"
    number = connection.execute(insert, (symbol,)).lastrowid
    assert number is not None
    return number


def _insert_trades(
    connection: sqlite3.Connection, numbers: NDArray[np.int64], rows: NDArray[np.int64]
) -> None:
    """Insert trades in order of their keys, and add them to the totals of their symbols.

    They have the step's indices of symbols, which become numbers in place.
    """
    rows[:, 0] = numbers[rows[:, 0]]
    rows = rows[np.lexsort((rows[:, 3], rows[:, 2], rows[:, 1], rows[:, 0]))]
    symbol, first = np.unique(rows[:, 0], return_index=True)
    ends = np.append(first[1:], len(rows))
    latest = rows[ends - 1, 1]
    inserted = np.array(
        [
            _insert_rows(connection, rows[begin:end])
            for begin, end in zip(first.tolist(), ends.tolist(), strict=True)
        ]
    )
    connection.executemany(_TOTALS, _tuples((inserted, latest, symbol)))


def _insert_rows(connection: sqlite3.Connection, rows: NDArray[np.int64]) -> int:
    """Insert trades that are not there yet; return how many those were."""
    whole = len(rows) - len(rows) % _ROWS
    many = rows[:whole].reshape(-1, _ROWS * _COLUMNS).tolist()
    inserted = connection.executemany(_INSERT_ROWS, many).rowcount if many else 0
    rest = rows[whole:].tolist()
    return inserted + (connection.executemany(_INSERT, rest).rowcount if rest else 0)


def _write_bars(
    connection: sqlite3.Connection, numbers: NDArray[np.int64], bars: NDArray[np.void]
) -> None:
    columns = bars.view(np.int64).reshape(len(bars), -1).copy()
    columns[:, 0] = numbers[columns[:, 0]]
    is_open = columns[:, 2] == 1
    columns = np.delete(columns, 2, axis=1)
    connection.executemany(_OPEN_BAR, columns[is_open].tolist())
    connection.executemany(_CLOSED_BAR, columns[~is_open].tolist())


def _tuples(columns: Sequence[NDArray[np.int64]]) -> Iterable[tuple[int, ...]]:
    return zip(*(column.tolist() for column in columns), strict=True)
