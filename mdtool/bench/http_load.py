"""Requests over HTTP, as many a second as servers answer, of one server and another in turns."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Final, NamedTuple

from mdtool.bench.figures import Figure
from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError

CONNECTIONS: Final = 16
ROUNDS: Final = 31
ROUND_S: Final = 0.3
"""Short, so that what else the machine does falls on both of a pair."""
_PATIENCE_S: Final = 30.0
"""How long a round may take where nothing is answered."""


class Load(NamedTuple):
    """A request, and who is asked.

    Attributes
    ----------
    address : str
        The server's `HOST:PORT`.
    request : bytes
        As it is sent.
    body : bytes
        What the answer ends with.
    """

    address: str
    request: bytes
    body: bytes


async def against_another(
    name: str, load: Load, baseline: str, other: Load, rounds: int, round_s: float
) -> Figure:
    """Return the median rate of rounds of the one and the other in turns, and of their ratios.

    Requests come over 16 connections that are kept open, each as soon as the one before it is
    answered.

    Raises
    ------
    PeerError
        When a server does not answer as it should.
    """
    pairs = [(await _rate(load, round_s), await _rate(other, round_s)) for _ in range(rounds)]
    rates, other_rates = zip(*pairs, strict=True)
    return Figure(
        name,
        statistics.median(rates),
        "requests/s",
        "higher",
        baseline,
        statistics.median(other_rates),
        statistics.median(rate / other_rate for rate, other_rate in pairs),
    )


async def _rate(load: Load, round_s: float) -> float:
    """Return how many requests a second a server answers, at least one of them."""
    loop = asyncio.get_running_loop()
    host, port = parse_address(load.address)
    connections = [
        (await loop.create_connection(lambda: _Requests(load), host, port))[1]
        for _ in range(CONNECTIONS)
    ]
    try:
        await asyncio.sleep(round_s / 10)
        before, began_s = sum(c.answered for c in connections), time.perf_counter()
        while True:
            await asyncio.sleep(round_s)
            answered = sum(c.answered for c in connections) - before
            taken_s = time.perf_counter() - began_s
            if answered:
                return answered / taken_s
            if taken_s > _PATIENCE_S:
                asked = load.request.partition(b"\r\n")[0].decode()
                raise PeerError(f"{load.address} does not answer {asked} as it did")
    finally:
        for connection in connections:
            connection.close()


class _Requests(asyncio.Protocol):
    """One connection, which asks again as soon as it is answered."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = bytearray()
        self.answered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(self._load.body):
            self._received.clear()
            self.answered += 1
            self._transport.write(self._load.request)

    def close(self) -> None:
        self._transport.abort()
