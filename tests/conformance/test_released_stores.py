"""Stores as version 0.1.0 wrote them, which this version opens, continues and corrects."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Final

import pytest

from mdtool.adapters.stores import open_history, open_store
from mdtool.adapters.stores.errors import StoreGapError
from mdtool.adapters.stores.port import SavedStream, SymbolTotals
from tests.support.stores import MS, NOON_NS, run, step

MINUTE_NS: Final = 60 * 10**9
SESSION: Final = (100, 130, 100, 130, 6, 3, NOON_NS + 2 * MS, NOON_NS + 2 * MS + 5)
OPEN_BAR: Final = (NOON_NS, 130, 130, 130, 130, 3, 1, NOON_NS + 2 * MS, NOON_NS + 2 * MS)
CLOSED_BAR: Final = (NOON_NS - MINUTE_NS, 100, 120, 100, 120, 3, 2, NOON_NS, NOON_NS + MS)
_ROWS: Final = f"""
INSERT INTO symbols (symbol, trade_count, last_trade_at) VALUES ('AAPL', 3, {NOON_NS + 2 * MS});
INSERT INTO streams (stream_id, next_sequence, heard) VALUES ('feed', 5, 1), ('part', NULL, 0);
INSERT INTO trades VALUES
    (1, {NOON_NS}, 1, 1, 100, 1, {NOON_NS + 5}),
    (1, {NOON_NS + MS}, 1, 2, 120, 2, {NOON_NS + MS + 5}),
    (1, {NOON_NS + 2 * MS}, 2, 7, 130, 3, {NOON_NS + 2 * MS + 5});
INSERT INTO sessions VALUES (1, {", ".join(map(str, SESSION))});
INSERT INTO open_bars VALUES (1, {MINUTE_NS}, {", ".join(map(str, OPEN_BAR))});
INSERT INTO bars VALUES (1, {MINUTE_NS}, {", ".join(map(str, CLOSED_BAR))});
INSERT INTO counts VALUES ('ticks', 3), ('late', 0);
"""
_SQLITE: Final = """
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
INSERT INTO store VALUES (x'000102030405060708090a0b0c0d0e0f', 2);
PRAGMA application_id = 1835299889;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""
_POSTGRESQL: Final = """
CREATE SCHEMA mdtool;
SET search_path = mdtool;
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
INSERT INTO format VALUES (1);
SELECT setval('heard', 1);
"""


@pytest.fixture
def sqlite_url(tmp_path) -> str:
    path = tmp_path / "released.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(_SQLITE + _ROWS)
    return f"sqlite:///{path}?synchronous=normal"


@pytest.fixture
def postgresql_url() -> str:
    from tests.support.postgres_servers import shared_server

    server = shared_server()
    name = server.create_database()
    with server.connect(name) as connection:
        connection.execute(_POSTGRESQL + _ROWS)
    return server.url(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request) -> str:
    return request.getfixturevalue(f"{request.param}_url")


def test_a_released_store_is_read(url):
    with open_history(url) as history:
        assert history.symbols() == [SymbolTotals("AAPL", 3, NOON_NS + 2 * MS)]
        assert history.streams() == [SavedStream(1, "feed", 5), SavedStream(2, "part", None)]
        assert history.recount() == []
        page = history.page("AAPL", 2)
        assert page.trades.price.tolist() == [130, 120]
        assert page.trades.ts_recv.tolist() == [NOON_NS + 2 * MS + 5, NOON_NS + MS + 5]
        assert page.key(0) == (NOON_NS + 2 * MS, 2, 7)
        (whole,) = history.trades("AAPL")
        assert whole.trades.size.tolist() == [1, 2, 3]
        (bar,) = history.bars("AAPL", MINUTE_NS, 10).tolist()
        assert bar == (0, MINUTE_NS, 0, *CLOSED_BAR)


def test_a_released_store_has_blocks_once_it_is_written(sqlite_url):
    trades = [(0, n + 1, 1, NOON_NS + n * MS) for n in range(200)]
    with open_history(sqlite_url) as history:
        assert len(history.page("AAPL", 9)) == 3
        assert history.sequences().T.tolist() == [[1, 1, 2], [2, 7, 7]]
        with open_store(sqlite_url) as store:
            store.write(step(["AAPL"], run("part", 5, trades, is_part=True)))
            store.write(step(["AAPL"], run("feed", 5, trades)))
        assert history.symbols() == [SymbolTotals("AAPL", 402, NOON_NS + 199 * MS)]
        assert len(history.page("AAPL", 999)) == 402
        assert history.page("AAPL", 999).key(-1) == (NOON_NS, 1, 1)
        assert history.sequences().T.tolist() == [[1, 1, 2], [1, 5, 204], [2, 5, 204]]
        assert history.recount() == []


def test_a_released_store_is_restored_and_written(url):
    with open_store(url) as store:
        store.claim()
        state = store.load(10, 2 * MINUTE_NS)
        assert state.symbols == ["AAPL"]
        assert state.sessions.tolist() == [SESSION]
        assert state.positions == {"feed": 5}
        assert state.counts == {"ticks": 3, "late": 0}
        closed, opened = state.bars.tolist()
        assert closed == (0, MINUTE_NS, 0, *CLOSED_BAR)
        assert opened == (0, MINUTE_NS, 1, *OPEN_BAR)
        with pytest.raises(StoreGapError):
            store.write(step(["AAPL"], run("feed", 6, [(0, 1, 1, NOON_NS)])))
        trades = [(0, 110, 1, NOON_NS), (0, 140, 4, NOON_NS + 3 * MS)]
        session = (100, 140, 100, 140, 10, 4, NOON_NS + 3 * MS, NOON_NS + 3 * MS)
        bar = (0, MINUTE_NS, 1, *OPEN_BAR[:4], 140, 7, 2, OPEN_BAR[7], NOON_NS + 3 * MS)
        written = step(
            ["AAPL"],
            run("feed", 4, trades),
            sessions={0: session},
            bars=[bar],
            counts={"ticks": 4},
            lots={0: 10},
        )
        store.write(written)
        assert store.symbols() == [SymbolTotals("AAPL", 4, NOON_NS + 3 * MS, 10)]
        assert store.recount() == store.repair() == []
        state = store.load(10, 0)
        assert state.positions == {"feed": 6}
        assert state.sessions.tolist() == [session]
        assert state.bars.tolist() == [bar]
        assert state.counts == {"ticks": 4, "late": 0}
        assert [store.own("feed", name) for name in ("key:a", "key:b")] == ["key:a"] * 2
