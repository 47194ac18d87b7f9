"""The tables of a store in PostgreSQL: created where missing, rejected where newer."""

from __future__ import annotations

from typing import Final, LiteralString

from psycopg import sql

from mdtool.adapters.stores.errors import StoreFormatError, StoreUnavailableError
from mdtool.adapters.stores.postgresql.connection import Location, Session

VERSION: Final = 1
# A stream of which only parts were imported has no next sequence. `heard` orders streams by their
# latest step. `owner` is the principal that has opened a stream first, NULL where nobody
# authenticated. Tables that every step updates have free space, so that updates change no index.
_TABLES: Final = """
CREATE TABLE format (version bigint NOT NULL);

CREATE SEQUENCE heard;

CREATE TABLE streams (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream_id text COLLATE "C" NOT NULL UNIQUE,
    next_sequence bigint,
    heard bigint NOT NULL DEFAULT 0,
    owner text
) WITH (fillfactor = 50);

CREATE TABLE symbols (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol text COLLATE "C" NOT NULL UNIQUE,
    trade_count bigint NOT NULL DEFAULT 0,
    last_trade_at bigint NOT NULL DEFAULT 0,
    lot bigint NOT NULL DEFAULT 0
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
_HAS_LATER_COLUMNS: Final = """
SELECT count(*) = 2 FROM pg_attribute
WHERE attrelid = to_regclass('symbols') AND attname = 'lot'
OR attrelid = to_regclass('streams') AND attname = 'owner'
"""
_ADD_LATER_COLUMNS: Final = """
ALTER TABLE symbols ADD COLUMN IF NOT EXISTS lot bigint NOT NULL DEFAULT 0;
ALTER TABLE streams ADD COLUMN IF NOT EXISTS owner text;
"""
_HAS_STORE: Final = "SELECT to_regclass('format') IS NOT NULL"


def check(session: Session, location: Location) -> None:
    """Check that the schema is one that this program can read.

    Raises
    ------
    StoreUnavailableError
        When it is empty.
    StoreFormatError
        When it is of another version.
    """
    if not _is_true(session, _HAS_STORE):
        raise StoreUnavailableError(f"{location.address}: there is no store yet")
    versions = session.execute("SELECT version FROM format").fetchall()
    if versions != [(VERSION,)]:
        found = ", ".join(str(version) for (version,) in versions) or "none"
        raise StoreFormatError(
            f"{location.address}: its schema is of version {found}, and this mdtool knows "
            f"{VERSION}; update mdtool, or name another schema by ?schema=NAME"
        )


def create(session: Session, location: Location) -> None:
    """Create the tables where there are none.

    Raises
    ------
    StoreUnavailableError
        When the database is read-only.
    StoreFormatError
        As `check`.
    """
    if _is_true(session, "SELECT current_setting('transaction_read_only')::boolean"):
        raise StoreUnavailableError(f"{location.address}: is read-only")
    if not _is_true(session, _HAS_STORE):
        # One client at a time. The lock is taken outside of the transaction, whose snapshot may
        # not include what others created while it waited.
        key = (location.lock_key - 1,)
        session.execute("SELECT pg_advisory_lock(%s)", key)
        if not _is_true(session, _HAS_STORE):
            _create_tables(session, location)
        session.execute("SELECT pg_advisory_unlock(%s)", key)
    check(session, location)
    if not _is_true(session, _HAS_LATER_COLUMNS):  # which the version before never notices
        session.execute(_ADD_LATER_COLUMNS)


def _create_tables(session: Session, location: Location) -> None:
    name = sql.Identifier(location.schema)
    session.execute("BEGIN")
    session.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
    session.execute(_TABLES)
    session.execute("INSERT INTO format VALUES (%s)", (VERSION,))
    session.execute("COMMIT")


def _is_true(session: Session, question: LiteralString) -> bool:
    row = session.execute(question).fetchone()
    return row is not None and bool(row[0])
