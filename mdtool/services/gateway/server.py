"""The gateway: an HTTP server in front of one stream of the aggregator's state."""

from __future__ import annotations

import contextlib
import errno
from typing import Final

from aiohttp import web

from mdtool.adapters.aggregator import AggregatorClient
from mdtool.core.addresses import format_address, parse_address
from mdtool.core.errors import StartupError
from mdtool.core.lifecycle import Started
from mdtool.core.limits import raise_file_limit
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.feed import Feed
from mdtool.services.gateway.health import Health
from mdtool.services.gateway.http_log import http_log
from mdtool.services.gateway.metrics import registry
from mdtool.services.gateway.rest import Rest
from mdtool.services.gateway.routes import MARKET_DATA_SOCKETS, application
from mdtool.services.gateway.sockets import MarketDataSockets
from mdtool.services.gateway.state import MarketState
from mdtool.services.gateway.tallies import Tallies

_STOP_GRACE_S: Final = 2.0
"""How long requests may go on once the service stops."""
_BACKLOG: Final = 1_024


class Gateway:
    """What browsers and other clients read market data from.

    It starts without the aggregator, and outlives it: see `MarketState`.

    Parameters
    ----------
    config : GatewayConfig
        Where it listens, and whom it asks.
    """

    name = "gateway"

    def __init__(self, config: GatewayConfig) -> None:
        parse_address(config.aggregator)
        self._config = config

    async def run(self, started: Started) -> None:
        """Serve until cancelled; then close the sockets, and let requests end.

        Raises
        ------
        StartupError
            When the address cannot be listened on.
        """
        raise_file_limit()
        config = self._config
        state, tallies = MarketState(), Tallies()
        sockets = MarketDataSockets(state, config.max_sockets, tallies.socket(MARKET_DATA_SOCKETS))
        async with (
            AggregatorClient(config.aggregator) as aggregator,
            contextlib.AsyncExitStack() as stack,
        ):
            feed = Feed(aggregator, state, sockets.publish)
            app = application(
                Rest(state, aggregator, config.timeout_ms / 1_000),
                sockets,
                Health(state, feed, aggregator, tallies),
                registry(state, feed, tallies),
                tallies,
            )
            runner = web.AppRunner(
                app, access_log=None, logger=http_log, shutdown_timeout=_STOP_GRACE_S
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            started({"http": await self._listen(runner)})
            await feed.run()

    async def _listen(self, runner: web.AppRunner) -> str:
        """Listen; return the real address."""
        host, port = self._config.host, self._config.port
        try:
            await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise StartupError(
                    f"port {port} on {host} is in use; stop what listens there, or choose another "
                    "with --port"
                ) from error
            raise StartupError(f"cannot listen on port {port} of {host}: {error}") from error
        return format_address(*runner.addresses[0][:2])
