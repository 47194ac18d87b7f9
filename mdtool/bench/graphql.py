"""Requests a second of the gateway's GraphQL, against its REST for the same symbol."""

from __future__ import annotations

import json
from typing import Final

import aiohttp

from mdtool.bench import traded
from mdtool.bench.figures import Figure
from mdtool.bench.http_load import ROUND_S, ROUNDS, Load, against_another
from mdtool.bench.rest import load_of

_BODY: Final = json.dumps(
    {
        "query": "query($symbol: String!) { marketData(symbol: $symbol) { open high low close } }",
        "variables": {"symbol": "AAPL"},
    }
)
"""As clients that are generated from a schema send it: what changes is in variables."""


async def measure(rounds: int = ROUNDS, round_s: float = ROUND_S) -> list[Figure]:
    """Return how the rate of `marketData` with four fields compares with that of REST."""
    async with traded.gateway() as gateway:
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
        figure = await against_another(
            "graphql_requests",
            Load(gateway, request.encode(), body),
            "the gateway's REST",
            load_of(gateway, await traded.rest_answer(gateway)),
            rounds,
            round_s,
        )
    return [figure]
