"""Ticks a second over TCP into a SQLite store, acknowledged once they are written to the disk."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.bench.figures import Figure, against, in_turns
from mdtool.bench.market import SYMBOLS, frames, send
from mdtool.bench.plain_table import TRANSACTION, insert, plain_table
from mdtool.bench.processes import service
from mdtool.core.units import NS_PER_MS

TICKS: Final = 1_000_000
ROUNDS: Final = 5
LONG_TICKS: Final = 50_000_000
_OVERLAPPING: Final = 3
"""How many times as many rounds have the same times."""
_ENDS: Final = 5
"""Rounds at the beginning and at the end of the long run that are compared."""
_START_NS: Final = 1_735_201_234_567 * NS_PER_MS
_EXECUTEMANY: Final = f"executemany of the same rows, {TRANSACTION:,} a transaction"


async def measure(
    ticks: int = TICKS, rounds: int = ROUNDS, long_ticks: int = LONG_TICKS
) -> list[Figure]:
    """Return the rates of the services in rounds of so many ticks, each a stream of its own.

    A round ends with the acknowledgement that all its ticks are in the store, with sessions and
    bars. Ticks are a millisecond apart, so that bars close. Rounds follow each other in time, or
    all have the same times, in turns with executemany of the same rows into one table. Of those of
    the same times the figure is the mean, since only some of them merge what is stored. The rounds
    of the long run follow each other: its last ones are compared with its first ones.

    Raises
    ------
    PeerError
        When a server does not accept every tick.
    """
    pairs = await _in_turns(ticks, rounds, ticks)
    figures = [in_turns("durable", "ticks/s", _EXECUTEMANY, pairs)]
    pairs = await _in_turns(ticks, _OVERLAPPING * rounds, 0)
    stored, plain = (
        len(pairs) / sum(1 / rate for rate in rates) for rates in zip(*pairs, strict=True)
    )
    figures.append(against("durable_overlapping", stored, "ticks/s", _EXECUTEMANY, plain))
    async with _stored() as (ingest, _):
        count = max(2, long_ticks // ticks)
        rates = [
            ticks / await _store(ingest, ticks, _START_NS + number * ticks * NS_PER_MS)
            for number in range(count)
        ]
    ends = min(_ENDS, count // 2)
    pairs = list(zip(rates[-ends:], rates[:ends], strict=True))
    first = f"the first {ends * ticks:,} of {count * ticks:,} ticks"
    return [*figures, in_turns("durable_last", "ticks/s", first, pairs)]


@contextlib.asynccontextmanager
async def _stored() -> AsyncIterator[tuple[str, Path]]:
    """Run the services on a new store; yield the address for ticks, and a folder."""
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/store.db"
        async with (
            service("aggregate", "--store", store) as aggregator,
            service("serve-tcp", "--aggregator", aggregator) as ingest,
        ):
            yield ingest, Path(folder)


async def _in_turns(ticks: int, rounds: int, ms: int) -> list[tuple[float, float]]:
    """Return the rates of rounds that begin so many ms apart, and of executemany, in turns.

    A round more, the first one, warms up.
    """
    pairs = []
    async with _stored() as (ingest, folder):
        with plain_table(folder / "plain.db", SYMBOLS) as plain:
            for number in range(1 + rounds):
                first_ns = _START_NS + number * ms * NS_PER_MS
                stored_s = await _store(ingest, ticks, first_ns)
                plain_s = insert(plain, _rows(ticks, first_ns, number))
                pairs.append((ticks / stored_s, ticks / plain_s))
    return pairs[1:]


async def _store(ingest: str, ticks: int, first_ns: int) -> float:
    """Send ticks; return the seconds until they are stored."""
    data = frames(ticks, first_ns)
    return await asyncio.to_thread(send, ingest, data, f"Accepted {ticks} ")


def _rows(count: int, first_ns: int, stream: int) -> NDArray[np.int64]:
    """Return the ticks of `frames` as rows of a table, int64[7, n]."""
    number = np.arange(count)
    rows = np.empty((7, count), np.int64)
    rows[0] = number % len(SYMBOLS)
    rows[1] = rows[6] = first_ns + number * NS_PER_MS
    rows[2] = stream
    rows[3] = number
    rows[4:6] = np.random.default_rng(0).integers(1, 1_000, (2, count))
    return rows
