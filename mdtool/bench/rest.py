"""Requests a second of the gateway's REST, against a bare aiohttp handler with the same answer."""

from __future__ import annotations

from mdtool.bench import traded
from mdtool.bench.figures import Figure
from mdtool.bench.http_load import ROUND_S, ROUNDS, Load, against_another
from mdtool.bench.processes import server


async def measure(rounds: int = ROUNDS, round_s: float = ROUND_S) -> list[Figure]:
    """Return how the gateway's rate compares with that of the least an aiohttp server can be."""
    async with traded.gateway() as gateway:
        body = await traded.rest_answer(gateway)
        async with server("mdtool.bench.bare_http", body.decode()) as bare:
            figure = await against_another(
                "rest_requests",
                load_of(gateway, body),
                "a bare aiohttp handler",
                load_of(bare, body),
                rounds,
                round_s,
            )
    return [figure]


def load_of(address: str, body: bytes) -> Load:
    """Return the load of one path, whoever answers it."""
    request = f"GET {traded.PATH} HTTP/1.1\r\nHost: {address}\r\n\r\n"
    return Load(address, request.encode(), body)
