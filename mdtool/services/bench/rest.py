"""Requests a second of the gateway's REST, against a bare aiohttp handler with the same answer."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from typing import Final

import aiohttp
import grpc.aio

from mdtool.adapters import rpc
from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError
from mdtool.services.bench.figures import Figure
from mdtool.services.bench.processes import server, service
from mdtool.wire._pb import tick_pb2

CONNECTIONS: Final = 16
ROUNDS: Final = 31
_ROUND_S: Final = 0.3
"""Short, so that what else the machine does falls on both of a pair."""
_NO_LIMIT: Final = ("--memory-requests-per-s", "1000000000")
"""More than there can be, so that what counting them takes is measured too."""
_PATH: Final = "/api/v1/marketdata/AAPL"


async def measure(rounds: int = ROUNDS, round_s: float = _ROUND_S) -> list[Figure]:
    """Return the median rate of rounds of the one and the other in turns, and of their ratios.

    Requests come over 16 connections that are kept open, each as soon as the one before it is
    answered.
    """
    async with contextlib.AsyncExitStack() as servers:
        aggregator = await servers.enter_async_context(service("aggregate"))
        await _trade(aggregator)
        gateway = await servers.enter_async_context(
            service("gateway", "--aggregator", aggregator, *_NO_LIMIT)
        )
        body = await _answer(gateway)
        bare = await servers.enter_async_context(
            server("mdtool.services.bench.bare_http", body.decode())
        )
        pairs = [
            (await _rate(gateway, body, round_s), await _rate(bare, body, round_s))
            for _ in range(rounds)
        ]
    rates, bare_rates = zip(*pairs, strict=True)
    return [
        Figure(
            "rest_requests",
            statistics.median(rates),
            "requests/s",
            "higher",
            "a bare aiohttp handler",
            statistics.median(bare_rates),
            statistics.median(rate / bare_rate for rate, bare_rate in pairs),
        )
    ]


async def _trade(aggregator: str) -> None:
    """Let AAPL trade once."""
    tick = tick_pb2.Tick(symbol="AAPL", price=187.25, volume=100, exchange_timestamp=time.time_ns())
    async with grpc.aio.insecure_channel(aggregator) as channel:
        await rpc.Stub(channel).StreamTicks(iter([tick]))


async def _answer(gateway: str) -> bytes:
    """Return what the gateway answers once it knows of the trade."""
    async with aiohttp.ClientSession(f"http://{gateway}") as session:
        async with session.ws_connect("/ws/marketdata?symbol=AAPL") as socket:
            await socket.receive()
        async with session.get(_PATH) as response:
            return await response.read()


async def _rate(address: str, body: bytes, round_s: float) -> float:
    """Return how many requests a second a server answers."""
    loop = asyncio.get_running_loop()
    host, port = parse_address(address)
    connections = [
        (await loop.create_connection(lambda: _Requests(host, body), host, port))[1]
        for _ in range(CONNECTIONS)
    ]
    try:
        await asyncio.sleep(round_s / 10)
        before, began = sum(c.answered for c in connections), time.perf_counter()
        await asyncio.sleep(round_s)
        answered = sum(c.answered for c in connections) - before
        if answered == 0:
            raise PeerError(f"{address} does not answer {_PATH} as it did")
        return answered / (time.perf_counter() - began)
    finally:
        for connection in connections:
            connection.close()


class _Requests(asyncio.Protocol):
    """One connection, which asks again as soon as it is answered."""

    def __init__(self, host: str, body: bytes) -> None:
        self._request = f"GET {_PATH} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self._body = body
        self._received = bytearray()
        self.answered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(self._body):
            self._received.clear()
            self.answered += 1
            self._transport.write(self._request)

    def close(self) -> None:
        self._transport.abort()
