"""The gateway: protocols for clients, over feeds made of the services behind it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from mdtool.adapters.local_market import LocalMarket
from mdtool.adapters.vwap_feed import LocalVwaps
from mdtool.core.lifecycle import Started, one_error, until_stopped
from mdtool.core.tcp import listen
from mdtool.core.tls import server_tls
from mdtool.services.client import Admission
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.health import Health
from mdtool.services.gateway.http import Routes
from mdtool.services.gateway.metrics import Metrics
from mdtool.services.gateway.pages.assets import Assets
from mdtool.services.gateway.pages.pages import Dashboard, Docs, GraphiQL, SockJsFrame, StaticFiles
from mdtool.services.gateway.policies import policies
from mdtool.services.gateway.protocols import (
    ClosingProtocol,
    RunningProtocol,
    ServedProtocol,
    openapi,
)
from mdtool.services.gateway.protocols.book_services import ORDER_BOOK_PATH, BookServices
from mdtool.services.gateway.protocols.graphql.http import PATH as GRAPHQL_PATH
from mdtool.services.gateway.protocols.graphql.http import GraphQL
from mdtool.services.gateway.protocols.rest import Rest
from mdtool.services.gateway.protocols.rest import fail as fail_v2
from mdtool.services.gateway.protocols.rest_v1 import RestV1
from mdtool.services.gateway.protocols.sign_in import SignInPages
from mdtool.services.gateway.protocols.signaling import IceServers, Rooms
from mdtool.services.gateway.protocols.sockets import PlainSockets
from mdtool.services.gateway.protocols.sockjs import EVENTS_PATH, SESSION_PATHS, SockJs
from mdtool.services.gateway.protocols.sockjs import PATH as SOCKJS_PATH
from mdtool.services.gateway.protocols.stomp import PATH as STOMP_PATH
from mdtool.services.gateway.protocols.stomp import Stomp
from mdtool.services.gateway.protocols.stream import PATH as STREAM_PATH
from mdtool.services.gateway.protocols.stream import Stream
from mdtool.services.gateway.protocols.tickets import Tickets
from mdtool.services.gateway.proxies import Proxies
from mdtool.services.gateway.sources import Sources
from mdtool.services.gateway.websockets import STOPPING, upgrading
from mdtool.services.gateway.workers.peers import Peers, Place
from mdtool.services.gateway.workers.relay import RelayedTransport
from mdtool.services.gateway.workers.workers import Workers
from mdtool.services.http.answers import Fail, Handler, failure
from mdtool.services.http.entry import Policy
from mdtool.services.http.listening import Connect, serving
from mdtool.services.http.origins import Origins
from mdtool.services.limits import Limits
from mdtool.services.security import Security, check_exposed
from mdtool.services.usage import Usage, keeping_current
from mdtool.wire.websocket import CloseCode

log = logging.getLogger(__name__)

_STREAMED: Final = {EVENTS_PATH, ORDER_BOOK_PATH}
"""Written as they arrive, which aiohttp would do for HEAD too."""
_UNLIMITED: Final = {"/livez", "/readyz", "/health", "/metrics"}
_LISTENERS: Final = (STREAM_PATH, STOMP_PATH, SOCKJS_PATH, GRAPHQL_PATH)
"""Counted from the start, besides the plain WebSockets."""

_UPSTREAM_PER_S: Final = 10
_UPSTREAM_HERE_PER_S: Final = 1_000
"""For scripts that read page after page; clients behind a proxy on this machine need --proxies."""


class Gateway:
    """What browsers and other clients get market data from.

    It starts without the aggregator, and outlives it: see `MarketState`.

    Parameters
    ----------
    config : GatewayConfig
    local : LocalMarket, optional
        The market of an aggregator in this process.
    local_vwaps : LocalVwaps, optional
        The feed of a VWAP service in this process.
    """

    name = "gateway"

    def __init__(
        self,
        config: GatewayConfig,
        local: LocalMarket | None = None,
        local_vwaps: LocalVwaps | None = None,
    ) -> None:
        self._config = config
        self._place = Place.of_process()
        notifies = self._place is None or self._place.worker == 0
        self._sources = Sources(config, local, local_vwaps, notifies=notifies)
        self._assets = Assets(config.assets)
        self._origins = Origins(config.allowed_origins)
        self._proxies = Proxies(config.proxies, config.proxy_header, config.base_path)
        self._ice_servers = IceServers(
            config.stun_urls, config.turn_urls, config.turn_secret, config.turn_ttl_s
        )

    async def run(self, started: Started) -> None:
        """Serve until cancelled; then drain, close the sockets, and let requests end.

        Raises
        ------
        StartupError
            When the address cannot be listened on, or a shared hub of quotes or Kafka rejects it.
        """
        place = self._place
        if place is None and self._config.workers > 1:
            check_exposed(self.name, self._config.host, self._config.auth)
            server_tls(self.name)  # raises here what each of them would
            await Workers(self._config).run(started)
            return
        with one_error():
            await self._serve(started, place)

    async def _serve(self, started: Started, place: Place | None) -> None:
        config = self._config
        tls = server_tls(self.name)
        security = Security.load(self.name, config.host, config.auth)
        admission = Admission(_limits(config), security)
        routes = Routes(admission, self._origins, self._proxies)
        usage = peers = None
        if place is not None:
            usage = Usage(admission, place.path)
            peers = Peers(place, usage, security)
        async with (
            self._sources as sources,
            asyncio.TaskGroup() as tasks,
            keeping_current(admission, usage),
        ):
            sockets = (row.socket.listener for row in sources.feeds.rows if row.socket)
            for name in (*sockets, *_LISTENERS):
                admission.tally(name)
            protocols = self._protocols(sources, routes, peers)
            _mount(protocols, routes, policies(sources.feeds.rows), peers)
            tasks.create_task(sources.run())
            for protocol in protocols:
                if isinstance(protocol, RunningProtocol):
                    tasks.create_task(protocol.run())
            relays = contextlib.nullcontext() if peers is None else peers.relays
            async with relays, serving(routes.app) as connect:
                with contextlib.ExitStack() as stack:
                    if peers is not None:
                        stack.enter_context(peers.adopting(functools.partial(_adopt, connect)))
                        tasks.create_task(stack.enter_context(peers).run())
                    shares_port = peers is not None
                    listener = await listen(
                        connect, config.host, config.port, shares_port=shares_port, tls=tls
                    )
                    stack.callback(listener.close)
                    started({"http": listener.address})
                    await until_stopped(self.name, functools.partial(_drain, routes))

    def _protocols(
        self, sources: Sources, routes: Routes, peers: Peers | None
    ) -> Sequence[ServedProtocol]:
        """Return what is served; of paths that overlap the longer one is first."""
        config, feeds = self._config, sources.feeds
        rooms = Rooms(config.signaling_listeners) if peers is None else peers.rooms
        stomp = Stomp(config, feeds, rooms)
        security = routes.admission.security
        return (
            RestV1(feeds),
            Rest(feeds),
            *(() if security is None else (Tickets(security), SignInPages(security))),
            PlainSockets(config, feeds),
            Stream(config, feeds),
            GraphQL(config, feeds),
            stomp,
            SockJs(config, stomp),
            self._ice_servers,
            BookServices(sources.sender, sources.receiver),
            Health(sources, routes, config.max_age_ms, peers),
            Metrics(sources, routes, peers),
            Docs(openapi.document(feeds), self._assets, self._proxies),
            GraphiQL(self._assets, self._proxies),
            Dashboard(self._assets, self._proxies),
            SockJsFrame(self._assets, self._proxies, self._origins.sources),
            self._assets,
            StaticFiles(self._proxies),
        )


async def _drain(routes: Routes, duration_s: float) -> None:
    """Answer as not ready, and close sockets one after the other, while requests are served."""
    routes.is_stopping = True
    await routes.admission.close_over(duration_s, CloseCode.GOING_AWAY, STOPPING)


def _limits(config: GatewayConfig) -> Limits:
    given = config.upstream_requests_per_s
    return Limits(
        requests_per_s=config.memory_requests_per_s,
        upstream_per_s=_UPSTREAM_PER_S if given is None else given,
        upstream_burst=config.upstream_burst,
        upstream_here_per_s=_UPSTREAM_HERE_PER_S if given is None else None,
        connections=config.max_sockets,
        connections_of_client=config.client_sockets,
        time_percent=config.client_time_percent,
    )


def _fail_of(path: str) -> Fail:
    """Return what makes the answer of an error below a path."""
    return fail_v2 if path.startswith("/api/v2/") else failure


async def _adopt(
    connect: Connect, connection: socket.socket, received: bytes, peer: Mapping[str, Any] | None
) -> None:
    """Serve a connection that another worker has accepted and read from."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_accepted_socket(connect, connection)
    if peer is not None and protocol.transport is not None:
        relayed: Any = RelayedTransport(transport, peer)
        protocol.transport = relayed
    protocol.data_received(received)


def _mount(
    protocols: Sequence[ServedProtocol],
    routes: Routes,
    policy_of: Mapping[tuple[str, str], Policy],
    peers: Peers | None = None,
) -> None:
    """Route requests to protocols, and close them when the application shuts down."""
    handlers: dict[tuple[str, str], Handler] = {}
    for protocol in protocols:
        for route, handler in protocol.routes.items():
            # Plain WebSockets share the path of SockJS.
            handlers[route] = upgrading(handlers[route], handler) if route in handlers else handler
    for (method, path), handler in handlers.items():
        routes.add(
            method,
            path,
            handler,
            policy_of[method, path],
            is_limited=path not in _UNLIMITED,
            has_head=path not in _STREAMED,
            fail=_fail_of(path),
            place=functools.partial(peers.owned, "session")
            if peers is not None and path in SESSION_PATHS
            else None,
        )
    routes.finish(_fail_of)

    async def close(_app: web.Application) -> None:
        routes.admission.close_all(CloseCode.GOING_AWAY, STOPPING)
        for protocol in protocols:
            if isinstance(protocol, ClosingProtocol):
                await protocol.close()

    routes.app.on_shutdown.append(close)
