"""Ticks a second over TCP into a SQLite store, acknowledged once they are written to the disk."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np

from mdtool.bench.figures import Figure, in_turns
from mdtool.bench.market import SYMBOLS, frames, send
from mdtool.bench.processes import service
from mdtool.core.units import NS_PER_MS

TICKS: Final = 1_500_000
ROUNDS: Final = 3

_EXECUTEMANY: Final = "executemany of the same rows, 20,000 a transaction"
_TRANSACTION: Final = 20_000
_COLUMNS: Final = 7
_TABLE: Final = """
CREATE TABLE trades (
    symbol INTEGER, timestamp INTEGER, stream INTEGER, sequence INTEGER,
    price INTEGER, volume INTEGER, ingest_timestamp INTEGER,
    PRIMARY KEY (symbol, timestamp, stream, sequence)
) WITHOUT ROWID
"""


async def measure(ticks: int = TICKS, rounds: int = ROUNDS) -> list[Figure]:
    """Return the rate of the services, beside executemany of the same rows, in turns.

    A round ends with the acknowledgement that all its ticks are in the store, with sessions and
    bars. The ticks of all rounds are a millisecond apart, so that bars close.

    Raises
    ------
    PeerError
        When a server does not accept every tick.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/store.db"
        async with contextlib.AsyncExitStack() as servers:
            aggregator = await servers.enter_async_context(service("aggregate", "--store", store))
            ingest = await servers.enter_async_context(
                service("serve-tcp", "--aggregator", aggregator)
            )
            began_ns = time.time_ns()
            rates = []
            for number in range(-1, rounds):
                count = ticks if number >= 0 else ticks // 10  # the first one warms up
                first_ns = began_ns + (number + 1) * ticks * NS_PER_MS
                data = frames(count, first_ns)
                stored_s = await asyncio.to_thread(send, ingest, data, f"Accepted {count} ")
                path = Path(folder) / f"plain-{number}.db"
                plain_s = await asyncio.to_thread(_insert, path, _rows(count, first_ns))
                if number >= 0:
                    rates.append((count / stored_s, count / plain_s))
    return [in_turns("durable", "ticks/s", _EXECUTEMANY, rates)]


def _rows(count: int, first_ns: int) -> list[list[int]]:
    """Return the ticks of `frames` as rows of a table."""
    number = np.arange(count)
    rows = np.zeros((count, _COLUMNS), np.int64)
    rows[:, 0] = number % len(SYMBOLS)
    rows[:, 1] = rows[:, 6] = first_ns + number * NS_PER_MS
    rows[:, 3] = number
    rows[:, 4:6] = np.random.default_rng(0).integers(1, 1_000, (count, 2))
    listed: list[list[int]] = rows.tolist()
    return listed


def _insert(path: Path, rows: list[list[int]]) -> float:
    """Insert rows in the order of their arrival; return how many seconds it took."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(_TABLE)
        began_s = time.perf_counter()
        for first in range(0, len(rows), _TRANSACTION):
            connection.execute("BEGIN")
            connection.executemany(
                "INSERT INTO trades VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows[first : first + _TRANSACTION],
            )
            connection.execute("COMMIT")
        return time.perf_counter() - began_s
