"""STOMP messages to 2,000 clients: how soon, how many a second, and what each client takes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from mdtool.adapters import rpc
from mdtool.bench.figures import Figure
from mdtool.bench.processes import service
from mdtool.bench.stomp_clients import stomp_clients
from mdtool.bench.stomp_writes import ROUNDS, measure_writes
from mdtool.core.errors import PeerError
from mdtool.wire._pb import tick_pb2

CLIENTS: Final = 2_000
RATE: Final = 20
UPDATES: Final = 400
_SYMBOL: Final = "AAPL"
_PATH: Final = "/ws/websocket"
_RESIDENT: Final = "process_resident_memory_bytes "


async def measure(
    clients: int = CLIENTS, updates: int = UPDATES, rounds: int = ROUNDS
) -> list[Figure]:
    """Return how long updates take from the aggregator's door to each client, and what that costs.

    An update counts from the moment at which it is sent, and until a message comes with its volume
    in it.
    """
    async with contextlib.AsyncExitStack() as servers:
        aggregator = await servers.enter_async_context(service("aggregate"))
        options = (
            *("--aggregator", aggregator),
            *("--client-sockets", "0", "--client-time-percent", "100"),
        )
        gateway = await servers.enter_async_context(service("gateway", *options))
        await _trade(aggregator, 1)
        resident = await _resident_bytes(gateway)
        destination = f"/topic/market-data/{_SYMBOL}"
        async with stomp_clients(gateway, _PATH, clients, destination, updates) as arrivals:
            sent_s = await _trade(aggregator, updates)
            arrived_s = await arrivals()
            taken = await _resident_bytes(gateway) - resident
    times_ms = (arrived_s - sent_s) * 1_000
    up_to_date = int(np.count_nonzero(~np.isnan(arrived_s[:, -1])))
    return [
        Figure("fanout_up_to_date", up_to_date, f"of {clients:,} clients"),
        Figure("fanout_p50", float(np.nanpercentile(times_ms, 50)), "ms", "lower"),
        Figure("fanout_p99", float(np.nanpercentile(times_ms, 99)), "ms", "lower"),
        Figure("fanout_memory", taken / clients / 1_024, "KB a client", "lower"),
        *await measure_writes(clients, rounds),
    ]


async def _trade(aggregator: str, ticks: int) -> NDArray[np.float64]:
    """Send ticks of volume 1 at `RATE`; return when each was, float64[ticks]."""
    sent_s = np.empty(ticks)

    async def paced() -> AsyncIterator[tick_pb2.Tick]:
        began_s = time.monotonic()
        for tick in range(ticks):
            await asyncio.sleep(max(0.0, began_s + tick / RATE - time.monotonic()))
            sent_s[tick] = time.monotonic()
            yield tick_pb2.Tick(
                symbol=_SYMBOL, price=187.25, volume=1, exchange_timestamp=time.time_ns()
            )

    async with grpc.aio.insecure_channel(aggregator) as channel:
        await rpc.Stub(channel).StreamTicks(paced())
    return sent_s


async def _resident_bytes(gateway: str) -> float:
    """Return what memory the gateway has, by its own account."""
    async with (
        aiohttp.ClientSession(f"http://{gateway}") as session,
        session.get("/metrics") as response,
    ):
        for line in (await response.text()).splitlines():
            if line.startswith(_RESIDENT):
                return float(line.removeprefix(_RESIDENT))
    raise PeerError(f"gateway {gateway} does not say what memory it has on this system")
