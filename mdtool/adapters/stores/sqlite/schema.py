"""The tables of a SQLite store, and the check that a file is one."""

from __future__ import annotations

import sqlite3
import time
from typing import Final

from mdtool.adapters.stores.errors import StoreFormatError, StoreUnavailableError
from mdtool.adapters.stores.sqlite.blocks import COLUMNS, MAX_TRADES

APPLICATION_ID: Final = 0x6D647431
"""`mdt1` in the file's header, by which `file` and others recognise it."""
VERSION: Final = 2
"""Of the tables below, stored as SQLite's user_version."""
ROWS_ONLY: Final = 1
"""The version of released stores without blocks, which are read as they are, and migrated where
they are written."""
_RETRY_S: Final = 0.01

# Numbers of symbols and streams are never reused. A trade's key begins with its symbol, so that a
# page of a symbol's trades is one seek, and a step writes to few places. A trade is in a row, or
# with others in a block, and `trades` is all of them. A symbol without a lot has 0. The latest
# trade's time is NULL in a symbol without trades, and the next sequence in a stream of which only
# parts were imported. `has_parts` says that trades may be stored that are not before the position.
# `heard` orders streams by their latest step. `owner` is the principal that has opened a stream
# first, NULL where nobody authenticated. `steps` grows with every step, so that an older copy
# of the file is recognised.
_TABLES: Final = """
CREATE TABLE store (
    id BLOB NOT NULL,
    steps INTEGER NOT NULL
);
CREATE TABLE symbols (
    number INTEGER PRIMARY KEY,
    symbol TEXT NOT NULL UNIQUE,
    trade_count INTEGER NOT NULL DEFAULT 0,
    last_trade_at INTEGER,
    lot INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE streams (
    number INTEGER PRIMARY KEY,
    stream_id TEXT NOT NULL UNIQUE,
    next_sequence INTEGER,
    heard INTEGER NOT NULL DEFAULT 0,
    has_parts INTEGER NOT NULL DEFAULT 1,
    owner TEXT
);
CREATE INDEX streams_heard ON streams (heard);
CREATE TABLE trade_rows (
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
_BLOCKS: Final = """
CREATE TABLE trade_blocks (
    number INTEGER PRIMARY KEY,
    symbol INTEGER NOT NULL,
    layer INTEGER NOT NULL,
    first_timestamp INTEGER NOT NULL,
    first_stream INTEGER NOT NULL,
    first_sequence INTEGER NOT NULL,
    last_timestamp INTEGER NOT NULL,
    last_stream INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL,
    count INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    timestamp BLOB NOT NULL,
    stream BLOB NOT NULL,
    sequence BLOB NOT NULL,
    price BLOB NOT NULL,
    volume BLOB NOT NULL,
    ingest_timestamp BLOB NOT NULL
);
CREATE INDEX trade_blocks_last ON trade_blocks (
    symbol, layer, last_timestamp, last_stream, last_sequence
);
"""
_ADDED_COLUMNS: Final = """
ALTER TABLE trades RENAME TO trade_rows;
ALTER TABLE streams ADD COLUMN has_parts INTEGER NOT NULL DEFAULT 1;
"""
_LATER_COLUMNS: Final = (
    ("symbols", "lot", "INTEGER NOT NULL DEFAULT 0"),
    ("streams", "owner", "TEXT"),
)
"""Tables, columns and their kinds, which programs of the same version before never notice."""


_BYTES: Final = f"x'{bytes(range(256)).hex()}'"


def _integer(data: str) -> str:
    """Return the SQL of the integer that at most 8 bytes are, the first one the highest."""
    # SQLite finds nothing at the first place: a byte that is not there is 0.
    terms = (f"instr({_BYTES}, substr({data}, {-1 - n}, 1)) - 1 << {8 * n}" for n in range(8))
    return " | ".join(f"({term})" for term in terms)


def _taken(column: str) -> str:
    """Return the SQL of the bytes that a column's value at the place `n` of a block consists of."""
    width = f"(length({column}) - 8) / count"
    return (
        f"substr({column}, 1, 8) AS {column}_least, "
        f"substr({column}, 9 + n * ({width}), {width}) AS {column}_more"
    )


def _value(column: str) -> str:
    # Of a column of one value there is no more: SQLite calls a part of no bytes NULL.
    more = f"coalesce({_integer(f'{column}_more')}, 0)"
    return f"({_integer(f'{column}_least')}) + {more} AS {column}"


# The offset keeps SQLite from reading a block once for each byte of each of its trades.
_VIEW: Final = f"""
CREATE VIEW trades AS
SELECT symbol, {", ".join(COLUMNS)} FROM trade_rows
UNION ALL
SELECT symbol, {", ".join(map(_value, COLUMNS))} FROM (
    WITH RECURSIVE places (n) AS (
        SELECT 0 UNION ALL SELECT n + 1 FROM places WHERE n < {MAX_TRADES - 1}
    )
    SELECT symbol, {", ".join(map(_taken, COLUMNS))}
    FROM trade_blocks CROSS JOIN places WHERE n < count LIMIT -1 OFFSET 0
);
"""  # noqa: S608 - consists of this module's text and the names of columns


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
        _execute(connection, _TABLES + _BLOCKS + _VIEW)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def migrate(connection: sqlite3.Connection) -> None:
    """Add to a store of a released version what this one needs; no trade is touched.

    Raises
    ------
    sqlite3.Error
        As `check`.
    """
    if version(connection) == ROWS_ONLY:
        connection.execute("BEGIN IMMEDIATE")
        if version(connection) == ROWS_ONLY:  # still
            _execute(connection, _ADDED_COLUMNS + _BLOCKS + _VIEW)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    for table, column, kind in _LATER_COLUMNS:
        if _has_column(connection, table, column):
            continue
        connection.execute("BEGIN IMMEDIATE")
        if not _has_column(connection, table, column):  # still
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
        connection.execute("COMMIT")


def _has_column(connection: sqlite3.Connection, table: str, column: str) -> bool:
    query = "SELECT 1 FROM pragma_table_info(?) WHERE name = ?"
    return connection.execute(query, (table, column)).fetchone() is not None


def version(connection: sqlite3.Connection) -> int:
    """Return which version of the tables a store has."""
    ((number,),) = connection.execute("PRAGMA user_version")
    return int(number)


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


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return how many bytes of a file are in use; those that are free are used by later writes."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, page_bytes = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in names
    )
    return (pages - free) * page_bytes


def _execute(connection: sqlite3.Connection, statements: str) -> None:
    for statement in filter(str.strip, statements.split(";")):
        connection.execute(statement)


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
    found = version(connection)
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application, found, tables) == (0, 0, 0):
        return True
    if application != APPLICATION_ID:
        raise StoreFormatError("is a SQLite file of another application; name another file")
    if found > VERSION:
        raise StoreFormatError(
            f"is of schema {found}, and this mdtool knows {VERSION} at most; update mdtool"
        )
    if found < ROWS_ONLY or not tables:
        raise StoreFormatError(f"is of schema {found}, which is not valid; restore it from a copy")
    return False
