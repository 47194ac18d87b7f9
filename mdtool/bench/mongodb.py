"""Ticks a second over TCP into a store in MongoDB, on a real server, beside pymongo's inserts."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import numpy as np

from mdtool.adapters.stores import open_store
from mdtool.bench.figures import Figure, in_turns
from mdtool.bench.market import SYMBOLS, frames, send
from mdtool.bench.processes import service
from mdtool.core.errors import UsageError
from mdtool.core.units import NS_PER_MS

if TYPE_CHECKING:
    from pymongo.collection import Collection

SERVER: Final = "MDTOOL_MONGODB"
"""The environment variable with the URL of the server, without a database."""
TICKS_A_ROUND: Final = 20_000
ROUNDS: Final = 5

_PLAIN: Final = "insert_many of the same trades by pymongo, unordered"
_START_NS: Final = 1_735_201_234_567 * NS_PER_MS


async def measure(ticks: int = TICKS_A_ROUND, rounds: int = ROUNDS) -> list[Figure]:
    """Return the rate of the services, in turns with plain inserts of the same trades.

    A round ends with the acknowledgement that all its ticks are in the store, with sessions and
    bars. Both have databases of their own, which are deleted in the end, and wait for a majority of
    the members and their journals.

    Raises
    ------
    UsageError
        When `SERVER` is not set.
    StoreError
        When it is unavailable, or rejects the user.
    PeerError
        When not every tick arrives.
    """
    server = os.environ.get(SERVER, "")
    if not server:
        raise UsageError(f"bench mongodb needs a server: set {SERVER} to its mongodb://HOST:PORT")
    name = f"mdtool-bench-{uuid.uuid4().hex[:16]}"
    url = urlsplit(server)._replace(path=f"/{name}").geturl()
    await asyncio.to_thread(_create, url)
    from pymongo import MongoClient, WriteConcern

    client: MongoClient[dict[str, Any]] = MongoClient(url)
    try:
        durable = WriteConcern(w="majority", j=True)
        plain = client[f"{name}-plain"].get_collection("trades", write_concern=durable)
        pairs = []
        async with (
            service("aggregate", "--store", url) as aggregator,
            service("serve-tcp", "--aggregator", aggregator) as ingest,
        ):
            for number in range(1 + rounds):  # the first one warms up
                first_ns = _START_NS + number * ticks * NS_PER_MS
                data, began_s = frames(ticks, first_ns), time.perf_counter()
                await asyncio.to_thread(send, ingest, data, f"Accepted {ticks} ")
                stored_s = time.perf_counter() - began_s
                plain_s = await asyncio.to_thread(_insert, plain, ticks, first_ns, number)
                pairs.append((ticks / stored_s, ticks / plain_s))
    finally:
        await asyncio.to_thread(_delete, client, name)
    return [in_turns("mongodb", "ticks/s", _PLAIN, pairs[1:])]


def _create(url: str) -> None:
    """Create the store: services would wait for a server that is unavailable."""
    with open_store(url):
        pass


def _insert(plain: Collection[dict[str, Any]], count: int, first_ns: int, stream: int) -> float:
    """Insert the trades of `frames`; return the seconds that it took."""
    random = np.random.default_rng(0)
    prices, volumes = random.integers(1, 1_000, (2, count)).tolist()
    documents: list[dict[str, Any]] = []
    for place, (price, volume) in enumerate(zip(prices, volumes, strict=True)):
        time_ns = first_ns + place * NS_PER_MS
        key = (place % len(SYMBOLS), time_ns, stream, place)
        documents.append(
            {
                "_id": b"".join(part.to_bytes(8, "big") for part in key),
                "price": price,
                "volume": volume,
                "ingest_timestamp": time_ns,
            }
        )
    began_s = time.perf_counter()
    plain.insert_many(documents, ordered=False)
    return time.perf_counter() - began_s


def _delete(client: Any, name: str) -> None:
    with client:
        for each in (name, f"{name}-plain"):
            client.drop_database(each)
