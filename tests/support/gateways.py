"""A gateway on a free port, in the test's own loop."""

from __future__ import annotations

import contextlib

from aiohttp import ClientSession

from mdtool.core.addresses import parse_address
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.server import Gateway
from tests.support.services import running


class Client:
    """A client of one gateway."""

    def __init__(self, session: ClientSession, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.get, self.post, self.options = session.get, session.post, session.options
        self.request = session.request
        self.ws_connect = session.ws_connect

    async def answer(self, path: str) -> tuple[int, object]:
        """The status of a GET, and its JSON."""
        async with self.get(path) as response:
            return response.status, await response.json()


@contextlib.asynccontextmanager
async def gateway_of(aggregator: str, *, drains: bool = False, **settings):
    """A client of a gateway in front of an aggregator, which is waited for as long as it takes."""
    config = GatewayConfig(aggregator=aggregator, **{"port": 0, "timeout_ms": 60_000} | settings)
    async with running(Gateway(config), drains=drains) as (addresses, _):
        address = addresses["http"]
        async with ClientSession(f"http://{address}") as session:
            yield Client(session, *parse_address(address))


async def connected(client: Client) -> None:
    """Wait until the gateway has the aggregator's state."""
    # Whoever follows a symbol that traded is told of it as soon as the gateway knows it.
    async with client.ws_connect("/ws/marketdata?symbol=AAPL") as socket:
        await socket.receive_json()
