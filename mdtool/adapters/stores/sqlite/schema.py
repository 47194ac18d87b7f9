"""The tables of a SQLite store, and the check that a file is one."""

from __future__ import annotations

import sqlite3
import time
from typing import Final

from mdtool.adapters.stores.errors import StoreFormatError, StoreUnavailableError

APPLICATION_ID: Final = 0x6D647431
"""`mdt1` in the file's header, by which `file` and others recognise it."""
VERSION: Final = 1
"""Of the tables below, stored as SQLite's user_version."""
_RETRY_S: Final = 0.01

# Numbers of symbols and streams are never reused. A trade's key begins with its symbol, so that a
# page of a symbol's trades is one seek, and a step writes to few places. The latest trade's time is
# NULL in a symbol without trades, and the next sequence in a stream of which only parts were
# imported. `heard` orders streams by their latest step. `steps` grows with every step, so that an
# older copy of the file is recognised.
_TABLES: Final = """
CREATE TABLE store (
    id BLOB NOT NULL,
    steps INTEGER NOT NULL
);
CREATE TABLE symbols (
    number INTEGER PRIMARY KEY,
    symbol TEXT NOT NULL UNIQUE,
    trade_count INTEGER NOT NULL DEFAULT 0,
    last_trade_at INTEGER
);
CREATE TABLE streams (
    number INTEGER PRIMARY KEY,
    stream_id TEXT NOT NULL UNIQUE,
    next_sequence INTEGER,
    heard INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX streams_heard ON streams (heard);
CREATE TABLE trades (
    symbol INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    stream INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    price INTEGER NOT NULL,
    volume INTEGER NOT NULL,
    ingest_timestamp INTEGER NOT NULL,
    PRIMARY KEY (symbol, timestamp, stream, sequence)
) WITHOUT ROWID;
CREATE TABLE sessions (
    symbol INTEGER PRIMARY KEY,
    open INTEGER NOT NULL,
    high INTEGER NOT NULL,
    low INTEGER NOT NULL,
    close INTEGER NOT NULL,
    volume INTEGER NOT NULL,
    count INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    ingest_timestamp INTEGER NOT NULL
);
CREATE TABLE open_bars (
    symbol INTEGER NOT NULL,
    interval INTEGER NOT NULL,
    start INTEGER NOT NULL,
    open INTEGER NOT NULL,
    high INTEGER NOT NULL,
    low INTEGER NOT NULL,
    close INTEGER NOT NULL,
    volume INTEGER NOT NULL,
    count INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (symbol, interval)
) WITHOUT ROWID;
CREATE TABLE bars (
    symbol INTEGER NOT NULL,
    interval INTEGER NOT NULL,
    start INTEGER NOT NULL,
    open INTEGER NOT NULL,
    high INTEGER NOT NULL,
    low INTEGER NOT NULL,
    close INTEGER NOT NULL,
    volume INTEGER NOT NULL,
    count INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (symbol, interval, start)
) WITHOUT ROWID;
CREATE TABLE counts (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO store VALUES (randomblob(16), 0);
"""


def check(connection: sqlite3.Connection) -> None:
    """Check that a file is a store that this program can read.

    Raises
    ------
    StoreUnavailableError
        When it is empty; the message is without the file's name.
    StoreFormatError
        When it is something else; the message is without the file's name.
    sqlite3.Error
        When it cannot be read, or is not a SQLite file.
    """
    if _is_new(connection):
        raise StoreUnavailableError("nothing is in it yet")


def create(connection: sqlite3.Connection, busy_s: float) -> None:
    """Create the tables in a file, unless they exist or another process creates them.

    Parameters
    ----------
    connection : sqlite3.Connection
    busy_s : float
        How long to wait for other processes.

    Raises
    ------
    StoreFormatError, sqlite3.Error
        As `check`.
    """
    if not _is_new(connection):
        return
    _begin_log(connection, busy_s)
    connection.execute("BEGIN IMMEDIATE")
    if _is_empty(connection):  # still
        for statement in filter(str.strip, _TABLES.split(";")):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def identity(connection: sqlite3.Connection) -> tuple[bytes, int]:
    """Return a store's own id, and how many steps were written to it.

    Raises
    ------
    StoreFormatError, sqlite3.Error
        As `check`.
    """
    row: tuple[bytes, int] | None = connection.execute("SELECT id, steps FROM store").fetchone()
    if row is None:
        raise StoreFormatError("has lost its own id; restore it from a copy")
    return row


def _begin_log(connection: sqlite3.Connection, busy_s: float) -> None:
    """Switch a file to a write-ahead log, for which SQLite itself does not wait for locks."""
    deadline_s = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > deadline_s:
                raise
            time.sleep(_RETRY_S)
        else:
            return


def _is_new(connection: sqlite3.Connection) -> bool:
    """Return whether a file is empty, as of one moment."""
    connection.execute("BEGIN")
    is_new = _is_empty(connection)
    connection.execute("COMMIT")
    return is_new


def _is_empty(connection: sqlite3.Connection) -> bool:
    """Return whether a file is empty; otherwise it must be a store."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application, version, tables) == (0, 0, 0):
        return True
    if application != APPLICATION_ID:
        raise StoreFormatError("is a SQLite file of another application; name another file")
    if version > VERSION:
        raise StoreFormatError(
            f"is of schema {version}, and this mdtool knows {VERSION} at most; update mdtool"
        )
    if version != VERSION or not tables:
        raise StoreFormatError(
            f"is of schema {version}, which is not valid; restore it from a copy"
        )
    return False
