"""Requests a second of the gateway: REST beside a bare aiohttp handler, GraphQL beside REST."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Final, NamedTuple

import aiohttp

from mdtool.bench import baselines
from mdtool.bench.figures import Figure, in_turns
from mdtool.bench.market import CPU, gateway_with_aggregate, metric
from mdtool.bench.processes import server
from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError

CONNECTIONS: Final = 16
WORKERS_CONNECTIONS: Final = 64
"""So that each worker has several requests at once."""
ROUNDS: Final = 31
ROUND_S: Final = 0.3
"""Short, so that other load of the machine affects both of a pair."""
_IN_A_ROW: Final = 30
"""Answers of connections of their own, after which no worker is left that has another one."""
_WORKERS_ROUNDS: Final = 3
"""How much longer a round of workers is, for reading their CPU time takes some, too."""
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
    """Return the rate of REST, and what two workers add to it.

    The rate is beside that of the simplest aiohttp server with the same answer; the rate of two
    workers, and the CPU time that they take for a request, are beside those of one.
    """
    async with gateway_with_aggregate() as gateway:
        body = await rest_answer(gateway)
        async with server(baselines.MODULE, "handler", body.decode()) as bare:
            figure = await compare(
                "rest_requests",
                rest_load(gateway, body),
                "a bare aiohttp handler",
                rest_load(bare, body),
                rounds,
                round_s,
            )
    return [figure, *await _measure_workers(rounds, round_s)]


async def _measure_workers(rounds: int, round_s: float) -> list[Figure]:
    async with contextlib.AsyncExitStack() as stack:
        gateways = [
            await stack.enter_async_context(gateway_with_aggregate("--workers", count))
            for count in ("2", "1")
        ]
        loads = [rest_load(gateway, await rest_answer(gateway)) for gateway in gateways]
        await _settle(loads[0])
        results = [
            [await _rate_and_cpu(load, _WORKERS_ROUNDS * round_s) for load in loads]
            for _ in range(-(-rounds // _WORKERS_ROUNDS))
        ]
    rates = [(two[0], one[0]) for two, one in results]
    costs = [(two[1] * 1e6, one[1] * 1e6) for two, one in results]
    return [
        in_turns("rest_workers", "requests/s", "one worker", rates),
        in_turns("rest_workers_cpu", "us a request", "one worker", costs, "lower"),
    ]


async def _settle(load: Load) -> None:
    """Wait until every worker has the aggregate, each of which gets some connections."""
    answered = 0
    while answered < _IN_A_ROW:
        answered = answered + 1 if await rest_answer(load.address) == load.body else 0


async def _rate_and_cpu(load: Load, round_s: float) -> tuple[float, float]:
    """Return the rate of a gateway's requests, and the CPU seconds that it takes for each."""
    began_s, cpu_s = time.perf_counter(), await metric(load.address, CPU)
    rate = await _rate(load, round_s, WORKERS_CONNECTIONS)
    taken_s = time.perf_counter() - began_s
    return rate, (await metric(load.address, CPU) - cpu_s) / (rate * taken_s)


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
            rest_load(gateway, await rest_answer(gateway)),
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


def rest_load(address: str, body: bytes, token: str | None = None) -> Load:
    """Return requests for an aggregate that a server answers with `body`."""
    header = "" if token is None else f"Authorization: Bearer {token}\r\n"
    request = f"GET {_PATH} HTTP/1.1\r\nHost: {address}\r\n{header}\r\n"
    return Load(address, request.encode(), body)


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


async def rest_answer(address: str, token: str | None = None) -> bytes:
    """Return what a gateway answers to the request of `rest_load`."""
    headers = None if token is None else {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(f"http://{address}", headers=headers) as session,
        session.get(_PATH) as response,
    ):
        return await response.read()


async def _rate(load: Load, round_s: float, n_connections: int = CONNECTIONS) -> float:
    """Return how many requests a second a server answers, at least one of them."""
    loop = asyncio.get_running_loop()
    host, port = parse_address(load.address)
    connections = [
        (await loop.create_connection(lambda: _Requests(load), host, port))[1]
        for _ in range(n_connections)
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
