"""A gateway as a process of its own, in front of an aggregator for which AAPL has traded once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import grpc.aio

from mdtool.adapters import rpc
from mdtool.bench.processes import service
from mdtool.wire._pb import tick_pb2

PATH: Final = "/api/v1/marketdata/AAPL"
NO_LIMIT: Final = ("--memory-requests-per-s", "1000000000", "--client-time-percent", "100")
"""More than there can be, so that what counting them takes is measured too."""


@contextlib.asynccontextmanager
async def gateway() -> AsyncIterator[str]:
    """Give the gateway's address once it knows of the trade."""
    async with service("aggregate") as aggregator:
        tick = tick_pb2.Tick(
            symbol="AAPL", price=187.25, volume=100, exchange_timestamp=time.time_ns()
        )
        async with grpc.aio.insecure_channel(aggregator) as channel:
            await rpc.Stub(channel).StreamTicks(iter([tick]))
        async with service("gateway", "--aggregator", aggregator, *NO_LIMIT) as address:
            async with (
                aiohttp.ClientSession(f"http://{address}") as session,
                session.ws_connect("/ws/marketdata?symbol=AAPL") as socket,
            ):
                await socket.receive()
            yield address


async def rest_answer(address: str) -> bytes:
    """Return what the gateway's REST answers at `PATH`."""
    async with aiohttp.ClientSession(f"http://{address}") as session, session.get(PATH) as response:
        return await response.read()
