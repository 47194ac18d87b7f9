"""Reads and writes a SQLite store."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final, Self

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores.errors import StoreClaimedError, StoreUnavailableError
from mdtool.adapters.stores.port import Step, WrongTotals
from mdtool.adapters.stores.sql import (
    TRADE_COLUMNS,
    Dialect,
    SqlReader,
    Statements,
    StoredStream,
    new_trades,
    put_market,
    symbol_numbers,
    used_symbols,
)
from mdtool.adapters.stores.sqlite.connection import BUSY_S, Connection, Location, Session


def _values(columns: int) -> str:
    return f"VALUES ({', '.join('?' * columns)})"


_STATEMENTS: Final = Statements(
    Dialect(
        parameter="?",
        time="timestamp",
        interval="interval",
        start="start",
        first="first",
        last="last",
        total="value",
        numbers=_values,
        totals=_values(2),
        begin_snapshot="BEGIN",
        check="PRAGMA quick_check(1)",
    )
)
_ROWS: Final = 64
"""Trades in one statement, which inserts half as many again a second as one by one."""
_INSERT: Final = "INSERT OR IGNORE INTO trades "
_INSERT_ROW: Final = _INSERT + _values(TRADE_COLUMNS)
_INSERT_ROWS: Final = _INSERT_ROW + f", ({', '.join('?' * TRADE_COLUMNS)})" * (_ROWS - 1)
_ADD_TOTALS: Final = """
UPDATE symbols SET
    trade_count = trade_count + ?1, last_trade_at = max(coalesce(last_trade_at, ?2), ?2)
WHERE number = ?3
"""
_SET_TOTALS: Final = "UPDATE symbols SET trade_count = ?, last_trade_at = ? WHERE number = ?"
_MOVE_STREAM: Final = """
UPDATE streams SET next_sequence = ?, heard = (SELECT max(heard) + 1 FROM streams)
WHERE number = ?
"""
_LOCK_SUFFIX: Final = ".lock"


class History(SqlReader):
    """Reads a file while others write it; a missing file is StoreUnavailableError.

    Parameters
    ----------
    url : str
        `sqlite:///PATH`.
    busy_s : float
        How long to wait for a lock on the file.

    Raises
    ------
    ConfigError
        When the URL names no file.
    """

    def __init__(self, url: str, busy_s: float = BUSY_S) -> None:
        super().__init__(Connection(Location.parse(url), busy_s, writes=False), _STATEMENTS)


class Store(SqlReader):
    """Writes steps into a file, and reads it; methods as in `mdtool.adapters.stores.port.Store`.

    The file is created when the store is entered and nothing is at its path, and never later: when
    it was moved away, writing fails until it is back. A write that returns has reached the disk, in
    the file at the path.

    Parameters
    ----------
    url, busy_s
        As of `History`.

    Raises
    ------
    ConfigError
        When the URL names no file.
    """

    def __init__(self, url: str, busy_s: float = BUSY_S) -> None:
        self._file = Connection(Location.parse(url), busy_s, writes=True)
        super().__init__(self._file, _STATEMENTS)
        self._claim = _MarketClaim(self._file.location)
        self._numbers: dict[str, int] = {}
        """Of symbols, in the file of a generation of the connection."""
        self._generation = 0

    def __enter__(self) -> Self:
        with self._file.writing():
            pass  # raises unless the file can be written
        return self

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        self._claim.release()

    def claim(self) -> None:
        """Hold the store's market until the block ends, or this process does."""
        self._claim.hold()

    def write(self, step: Step) -> None:
        """Write a step; when this returns, it is stored whatever happens to this process."""
        with self._file.writing() as session:
            known = self._numbers if self._generation == self._file.generation else {}
            added = _write(session, step, known)
        self._numbers = {**known, **added} if added else known
        self._generation = self._file.generation

    def repair(self) -> list[WrongTotals]:
        """Correct what `recount` finds, in one transaction, and return it."""
        with self._file.writing() as session:
            wrong = self._wrong_totals(session)
            for number, (_, (_, count, latest_ns)) in wrong.items():
                session.execute(_SET_TOTALS, (count, latest_ns if count else None, number))
        return list(wrong.values())


class _MarketClaim:
    """A lock on a file beside the store, which the system releases with the process."""

    def __init__(self, location: Location) -> None:
        # Links are followed, so that all names of a store share one lock.
        self._path = Path(os.path.realpath(location.path) + _LOCK_SUFFIX)
        self._address = location.address
        self._file: BinaryIO | None = None

    def hold(self) -> None:
        """Take the lock until `release`, or until the process ends.

        Raises
        ------
        StoreClaimedError
            When another process holds it.
        StoreUnavailableError
            When the file beside the store cannot be created.
        """
        if self._file is not None:
            return
        try:
            file = self._path.open("ab+", buffering=0)
        except OSError as error:
            raise StoreUnavailableError(
                f"{self._address}: {self._path}: {error.strerror}"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read(20).decode("ascii", "replace").strip()
            file.close()
            raise StoreClaimedError(
                f"{self._address}: is in use by process {holder or '(unknown)'};"
                " stop that process, or name another store"
            ) from error
        file.truncate(0)
        file.write(b"%d\n" % os.getpid())
        self._file = file

    def release(self) -> None:
        """Release the lock."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _write(session: Session, step: Step, known: Mapping[str, int]) -> dict[str, int]:
    """Write what is new in a step within a transaction.

    Returns the numbers of symbols that were not known, which are valid once it is committed.
    """
    streams = {run.stream_id: _stream(session, run.stream_id) for run in step.runs}
    used = used_symbols(step)
    added = {symbol: _symbol(session, symbol) for symbol in used.values() if symbol not in known}
    numbers = symbol_numbers(used, {**known, **added} if added else known)
    trades, moved = new_trades(step, streams, numbers)
    if trades.shape[1]:
        _insert_trades(session, trades)
    session.executemany(_MOVE_STREAM, [(stream.position, stream.number) for stream in moved])
    put_market(
        step, numbers, _STATEMENTS, lambda put, table: session.executemany(put, table.T.tolist())
    )
    session.executemany(_STATEMENTS.put_counts, step.counts.items())
    return added


def _stream(session: Session, stream_id: str) -> StoredStream:
    """Return the row of a stream, a new one where there is none."""
    query = "SELECT number, next_sequence FROM streams WHERE stream_id = ?"
    for number, position in session.rows(query, stream_id):
        return StoredStream(number, position)
    return StoredStream(
        _insert(session, "INSERT INTO streams (stream_id) VALUES (?)", stream_id), None
    )


def _symbol(session: Session, symbol: str) -> int:
    """Return the number of a symbol, a new one where there is none."""
    for (number,) in session.rows("SELECT number FROM symbols WHERE symbol = ?", symbol):
        return int(number)
    return _insert(session, "INSERT INTO symbols (symbol) VALUES (?)", symbol)


def _insert(session: Session, statement: str, name: str) -> int:
    """Insert a row, and return its number."""
    number = session.execute(statement, (name,)).lastrowid
    assert number is not None
    return number


def _insert_trades(session: Session, trades: NDArray[np.int64]) -> None:
    """Insert trades, int64[7, n], that are not stored yet, and add them to the totals."""
    symbol, first = np.unique(trades[0], return_index=True)
    ends = np.append(first[1:], trades.shape[1])
    latest = trades[1, ends - 1].tolist()
    rows = np.ascontiguousarray(trades.T)
    inserted = [
        _insert_rows(session, rows[begin:end])
        for begin, end in zip(first.tolist(), ends.tolist(), strict=True)
    ]
    session.executemany(_ADD_TOTALS, zip(inserted, latest, symbol.tolist(), strict=True))


def _insert_rows(session: Session, rows: NDArray[np.int64]) -> int:
    """Insert trades, int64[n, 7], that are not stored yet; return how many those were."""
    whole = len(rows) - len(rows) % _ROWS
    many = rows[:whole].reshape(-1, _ROWS * TRADE_COLUMNS).tolist()
    inserted = session.executemany(_INSERT_ROWS, many).rowcount if many else 0
    rest = rows[whole:].tolist()
    return inserted + (session.executemany(_INSERT_ROW, rest).rowcount if rest else 0)
