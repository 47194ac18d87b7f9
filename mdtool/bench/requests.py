"""Requests a second of the gateway: REST beside a bare aiohttp handler, GraphQL beside REST."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Final, NamedTuple

import aiohttp

from mdtool.bench import baselines
from mdtool.bench.figures import Figure, in_turns
from mdtool.bench.market import gateway_with_aggregate
from mdtool.bench.processes import server
from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError

CONNECTIONS: Final = 16
ROUNDS: Final = 31
ROUND_S: Final = 0.3
"""Short, so that other load of the machine affects both of a pair."""
_PATIENCE_S: Final = 30.0
"""How long a round may take without an answer."""
_PATH: Final = "/api/v1/marketdata/AAPL"
_BODY: Final = json.dumps(
    {
        "query": "query($symbol: String!) { marketData(symbol: $symbol) { open high low close } }",
        "variables": {"symbol": "AAPL"},
    }
)
"""As clients that are generated from a schema send it: what changes is in variables."""


async def measure_rest(rounds: int = ROUNDS, round_s: float = ROUND_S) -> list[Figure]:
    """Return the rate of REST, beside that of the simplest aiohttp server with the same answer."""
    async with gateway_with_aggregate() as gateway:
        body = await _rest_answer(gateway)
        async with server(baselines.MODULE, "handler", body.decode()) as bare:
            figure = await compare(
                "rest_requests",
                rest_load(gateway, body),
                "a bare aiohttp handler",
                rest_load(bare, body),
                rounds,
                round_s,
            )
    return [figure]


async def measure_graphql(rounds: int = ROUNDS, round_s: float = ROUND_S) -> list[Figure]:
    """Return the rate of `marketData` with four fields, beside that of REST."""
    async with gateway_with_aggregate() as gateway:
        headers = {"Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession(f"http://{gateway}", headers=headers) as session,
            session.post("/graphql", data=_BODY) as response,
        ):
            body = await response.read()
        request = (
            f"POST /graphql HTTP/1.1\r\nHost: {gateway}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(_BODY)}\r\n\r\n{_BODY}"
        )
        figure = await compare(
            "graphql_requests",
            Load(gateway, request.encode(), body),
            "the gateway's REST",
            rest_load(gateway, await _rest_answer(gateway)),
            rounds,
            round_s,
        )
    return [figure]


class Load(NamedTuple):
    """A request that is sent again and again.

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


def rest_load(address: str, body: bytes) -> Load:
    """Return requests for an aggregate that a server answers with `body`."""
    return Load(address, f"GET {_PATH} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode(), body)


async def compare(
    name: str, load: Load, baseline: str, other: Load, rounds: int, round_s: float
) -> Figure:
    """Return the rate of one load beside that of another, in turns.

    Requests go over 16 persistent connections, each as soon as the one before it is answered.

    Raises
    ------
    PeerError
        When a server sends another answer, or none.
    """
    pairs = [(await _rate(load, round_s), await _rate(other, round_s)) for _ in range(rounds)]
    return in_turns(name, "requests/s", baseline, pairs)


async def _rest_answer(address: str) -> bytes:
    async with (
        aiohttp.ClientSession(f"http://{address}") as session,
        session.get(_PATH) as response,
    ):
        return await response.read()


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
                request = load.request.partition(b"\r\n")[0].decode()
                raise PeerError(f"{load.address} does not answer {request} as it did")
    finally:
        for connection in connections:
            connection.close()


class _Requests(asyncio.Protocol):
    """One connection, which sends the request again as soon as it is answered."""

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
