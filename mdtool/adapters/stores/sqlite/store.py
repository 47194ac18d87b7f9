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
from mdtool.adapters.stores.pruning import Pruning
from mdtool.adapters.stores.sql import (
    TRADE_COLUMNS,
    StoredStream,
    new_trades,
    put_market,
    replace_market,
    symbol_numbers,
    used_symbols,
)
from mdtool.adapters.stores.sqlite import layers, schema
from mdtool.adapters.stores.sqlite.connection import BUSY_S, Connection, Location, Session
from mdtool.adapters.stores.sqlite.reader import STATEMENTS, BlockReader, values

_ROWS: Final = 64
"""Trades in one statement, which inserts half as many again a second as one by one."""
_INSERT: Final = "INSERT INTO trade_rows "
_INSERT_ROW: Final = _INSERT + values(TRADE_COLUMNS)
_INSERT_ROWS: Final = _INSERT_ROW + f", ({', '.join('?' * TRADE_COLUMNS)})" * (_ROWS - 1)
_ADD_TOTALS: Final = """
UPDATE symbols SET
    trade_count = trade_count + ?1, last_trade_at = max(coalesce(last_trade_at, ?2), ?2)
WHERE number = ?3
"""
_SET_LOT: Final = "UPDATE symbols SET lot = ? WHERE number = ? AND lot = 0"
_SET_TOTALS: Final = "UPDATE symbols SET trade_count = ?, last_trade_at = ? WHERE number = ?"
_MOVE_STREAM: Final = """
UPDATE streams SET next_sequence = ?, heard = (SELECT max(heard) + 1 FROM streams)
WHERE number = ?
"""
_OWN: Final = """
INSERT INTO streams (stream_id, has_parts, owner) VALUES (?, 0, ?)
ON CONFLICT (stream_id) DO UPDATE SET owner = excluded.owner WHERE streams.owner IS NULL
"""
_HAS_PARTS: Final = "UPDATE streams SET has_parts = 1 WHERE number = ?"
_KEYS_OF_ROWS: Final = """
SELECT timestamp, stream, sequence FROM trade_rows
WHERE symbol = ? AND timestamp BETWEEN ? AND ?
"""
_LOCK_SUFFIX: Final = ".lock"


class History(BlockReader):
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
        super().__init__(Connection(Location.parse(url), busy_s, writes=False), STATEMENTS)


class Store(BlockReader):
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
        super().__init__(self._file, STATEMENTS)
        self._claim = MarketClaim(self._file.location)
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

    def own(self, stream_id: str, principal: str) -> str:
        """Make a stream a principal's, unless it is another's; return whose it is."""
        owner = self.owner(stream_id)
        if owner is not None:
            return owner
        with self._file.writing() as session:
            session.execute(_OWN, (stream_id, principal))
            return str(session.rows(STATEMENTS.owner, stream_id)[0][0])

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
            for number, (_, (_, count, latest_ns, _)) in wrong.items():
                session.execute(_SET_TOTALS, (count, latest_ns if count else None, number))
        return list(wrong.values())

    def prune(self, before_ns: int) -> int:
        """Delete trades before an exchange time, and bars that ended by then; return how many."""
        return Pruning(STATEMENTS.dialect, self._file.writing, layers.delete_before).prune(
            before_ns
        )

    def replace_market(self, step: Step) -> int:
        """Write sessions and bars in place of all that the step's symbols have."""
        with self._file.writing() as session:
            used = used_symbols(step)
            known = {symbol: _symbol(session, symbol) for symbol in used.values()}
            return replace_market(
                session,
                step,
                symbol_numbers(used, known),
                STATEMENTS,
                lambda put, table: session.executemany(put, table.T.tolist()),
            )

    def used_bytes(self) -> int:
        """Return how many bytes are in use; those that are free are used by later writes."""
        return self._file.read(schema.used_bytes)


class MarketClaim:
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
    for stream_id in {run.stream_id for run in step.runs if run.is_part}:
        if not streams[stream_id].has_parts:
            streams[stream_id].has_parts = True
            session.execute(_HAS_PARTS, (streams[stream_id].number,))
    if trades.shape[1]:
        parted = [stream.number for stream in streams.values() if stream.has_parts]
        _insert_trades(session, trades, np.isin(trades[2], parted) if parted else None)
    session.executemany(_MOVE_STREAM, [(stream.position, stream.number) for stream in moved])
    put_market(
        step, numbers, STATEMENTS, lambda put, table: session.executemany(put, table.T.tolist())
    )
    session.executemany(STATEMENTS.put_counts, step.counts.items())
    session.executemany(_SET_LOT, [(lot, int(numbers[index])) for index, lot in step.lots.items()])
    return added


def _stream(session: Session, stream_id: str) -> StoredStream:
    """Return the row of a stream, a new one where there is none."""
    query = "SELECT number, next_sequence, has_parts FROM streams WHERE stream_id = ?"
    for number, position, has_parts in session.rows(query, stream_id):
        return StoredStream(number, position, bool(has_parts))
    insert = "INSERT INTO streams (stream_id, has_parts) VALUES (?, 0)"
    return StoredStream(_insert(session, insert, stream_id), None, has_parts=False)


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


def _insert_trades(
    session: Session, trades: NDArray[np.int64], may_be_stored: NDArray[np.bool_] | None
) -> None:
    """Insert trades, int64[7, n] in order of their keys, and add them to the totals.

    Where `may_be_stored` is not None, those of its trades that are stored already are left out.
    """
    symbol, first = np.unique(trades[0], return_index=True)
    ends = np.append(first[1:], trades.shape[1])
    latest = trades[1, ends - 1].tolist()
    inserted: list[int] = []
    rows = []
    for number, begin, end in zip(symbol.tolist(), first.tolist(), ends.tolist(), strict=True):
        own = trades[:, begin:end]
        if may_be_stored is not None and may_be_stored[begin:end].any():
            own = own[:, _are_new(session, number, own[1:])]
        inserted.append(own.shape[1])
        rows += insert_blocks(session, number, own)
    if rows:
        insert_rows(session, np.concatenate(rows, axis=1).T)
    session.executemany(_ADD_TOTALS, zip(inserted, latest, symbol.tolist(), strict=True))


def _are_new(session: Session, symbol: int, trades: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which trades of a symbol are not stored, each key once."""
    times = trades[0]
    values = session.table(3, _KEYS_OF_ROWS, symbol, int(times[0]), int(times[-1]))
    stored = np.concatenate([values, layers.keys_among(session, symbol, trades)], axis=1)
    keys = np.concatenate([stored, trades[:3]], axis=1)
    order = np.lexsort(keys[::-1])  # of equal ones, what is stored comes first
    keys = keys[:, order]
    is_new = np.ones(len(order), np.bool_)
    is_new[order[1:]] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    return is_new[stored.shape[1] :]


def insert_blocks(
    session: Session, symbol: int, trades: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Insert trades of a symbol, int64[7, n], as blocks; return those that become rows."""
    if trades.shape[1] < layers.MIN_TRADES:
        return [trades]
    if layers.has_room(session, symbol, trades[1:]):
        layers.put(session, symbol, trades[1:])
        return []
    rows = []
    for begin, end in _dense_parts(trades[1]):
        if end - begin < layers.MIN_TRADES:
            rows.append(trades[:, begin:end])
        else:
            layers.put(session, symbol, trades[1:, begin:end])
    return rows


def _dense_parts(times: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return parts of times none of which has a gap of more than half of its span.

    A few late trades among others would make a block that overlaps all between.
    """
    parts, found = [(0, len(times))], []
    while parts:
        begin, end = parts.pop()
        gaps = np.diff(times[begin:end])
        widest = int(gaps.argmax()) if len(gaps) else 0
        if end - begin >= layers.MIN_TRADES and 2 * gaps[widest] > times[end - 1] - times[begin]:
            parts += [(begin + widest + 1, end), (begin, begin + widest + 1)]
        else:
            found.append((begin, end))
    return found


def insert_rows(session: Session, rows: NDArray[np.int64]) -> None:
    """Insert trades, int64[n, 7], as rows."""
    whole = len(rows) - len(rows) % _ROWS
    session.executemany(_INSERT_ROWS, rows[:whole].reshape(-1, _ROWS * TRADE_COLUMNS).tolist())
    session.executemany(_INSERT_ROW, rows[whole:].tolist())
