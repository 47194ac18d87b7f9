"""Trades in a plain SQLite table, a row each: what the benches of stores are compared with."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

TRANSACTION: Final = 20_000
"""Rows in a transaction."""
_TABLES: Final = """
CREATE TABLE symbols (number INTEGER PRIMARY KEY, symbol TEXT NOT NULL UNIQUE);
CREATE TABLE trades (
    symbol INTEGER, timestamp INTEGER, stream INTEGER, sequence INTEGER,
    price INTEGER, volume INTEGER, ingest_timestamp INTEGER,
    PRIMARY KEY (symbol, timestamp, stream, sequence)
) WITHOUT ROWID;
"""


@contextlib.contextmanager
def plain_table(path: Path, symbols: Sequence[str]) -> Iterator[sqlite3.Connection]:
    """Create a file with an empty table, whose symbols are numbered from 0."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_TABLES)
        connection.executemany("INSERT INTO symbols VALUES (?, ?)", enumerate(symbols))
        yield connection


def insert(connection: sqlite3.Connection, trades: NDArray[np.int64]) -> float:
    """Insert trades, int64[7, n], in their order; return the seconds that SQLite took for it."""
    rows = trades.T.tolist()
    began_s = time.perf_counter()
    for first in range(0, len(rows), TRANSACTION):
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO trades VALUES (?, ?, ?, ?, ?, ?, ?)", rows[first : first + TRANSACTION]
        )
        connection.execute("COMMIT")
    return time.perf_counter() - began_s
