"""The tables of a store in PostgreSQL: made where there are none, refused where they are newer."""

from __future__ import annotations

from typing import Final, LiteralString

from psycopg import sql

from mdtool.adapters.stores.errors import StoreFormatError, StoreUnavailableError
from mdtool.adapters.stores.postgresql.link import Connection
from mdtool.adapters.stores.postgresql.location import Location

VERSION: Final = 1
# A stream of which only parts were imported has no next sequence. `heard` orders streams by their
# latest step. What is updated by every step leaves room beside itself, so that no index changes.
_TABLES: Final = """
CREATE TABLE format (version bigint NOT NULL);

CREATE SEQUENCE heard;

CREATE TABLE streams (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream_id text COLLATE "C" NOT NULL UNIQUE,
    next_sequence bigint,
    heard bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE symbols (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol text COLLATE "C" NOT NULL UNIQUE,
    trade_count bigint NOT NULL DEFAULT 0,
    last_trade_at bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE trades (
    symbol bigint,
    exchange_timestamp bigint,
    stream bigint,
    sequence bigint,
    price bigint NOT NULL,
    volume bigint NOT NULL,
    ingest_timestamp bigint NOT NULL,
    PRIMARY KEY (symbol, exchange_timestamp, stream, sequence)
);

CREATE TABLE sessions (
    symbol bigint PRIMARY KEY,
    open bigint NOT NULL,
    high bigint NOT NULL,
    low bigint NOT NULL,
    close bigint NOT NULL,
    volume bigint NOT NULL,
    count bigint NOT NULL,
    "timestamp" bigint NOT NULL,
    ingest_timestamp bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE bars (
    symbol bigint,
    interval_ns bigint,
    start_ns bigint,
    open bigint NOT NULL,
    high bigint NOT NULL,
    low bigint NOT NULL,
    close bigint NOT NULL,
    volume bigint NOT NULL,
    count bigint NOT NULL,
    first_ns bigint NOT NULL,
    last_ns bigint NOT NULL,
    PRIMARY KEY (symbol, interval_ns, start_ns)
);

CREATE TABLE open_bars (
    LIKE bars,
    PRIMARY KEY (symbol, interval_ns)
) WITH (fillfactor = 50);

CREATE TABLE counts (
    name text COLLATE "C" PRIMARY KEY,
    total bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE market (epoch bigint NOT NULL);

INSERT INTO market VALUES (0);
"""
_HAS_STORE: Final = "SELECT to_regclass('format') IS NOT NULL"


def check(connection: Connection, location: Location) -> None:
    """See to it that the schema is one that this program knows.

    Raises
    ------
    StoreUnavailableError
        When there is none yet.
    StoreFormatError
        When there is another one.
    """
    if not _is_true(connection, _HAS_STORE):
        raise StoreUnavailableError(f"{location.address}: there is no store yet")
    versions = connection.execute("SELECT version FROM format").fetchall()
    if versions != [(VERSION,)]:
        found = ", ".join(str(version) for (version,) in versions) or "none"
        raise StoreFormatError(
            f"{location.address}: its schema is of version {found}, and this mdtool knows "
            f"{VERSION}; take a newer mdtool, or another schema by ?schema=NAME"
        )


def create(connection: Connection, location: Location) -> None:
    """Make the tables where there are none.

    Raises
    ------
    StoreUnavailableError
        When nothing can be written there.
    StoreFormatError
        When there are others.
    """
    if _is_true(connection, "SELECT current_setting('transaction_read_only')::boolean"):
        raise StoreUnavailableError(f"{location.address}: is read-only")
    if not _is_true(connection, _HAS_STORE):
        # One at a time, of those who find nothing at once. The lock is no part of the transaction,
        # for one that has begun need not see what others made while it waited.
        key = (location.lock_key - 1,)
        connection.execute("SELECT pg_advisory_lock(%s)", key)
        if not _is_true(connection, _HAS_STORE):
            _create_tables(connection, location)
        connection.execute("SELECT pg_advisory_unlock(%s)", key)
    check(connection, location)


def _create_tables(connection: Connection, location: Location) -> None:
    name = sql.Identifier(location.schema)
    connection.execute("BEGIN")
    connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
    connection.execute(_TABLES)
    connection.execute("INSERT INTO format VALUES (%s)", (VERSION,))
    connection.execute("COMMIT")


def _is_true(connection: Connection, question: LiteralString) -> bool:
    row = connection.execute(question).fetchone()
    return row is not None and bool(row[0])
