"""STOMP messages to thousands of clients: how soon, how many a second, and memory for each."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Final

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from mdtool.adapters import rpc
from mdtool.bench import baselines
from mdtool.bench.figures import Figure, against, in_turns
from mdtool.bench.market import NO_LIMIT, RESIDENT, SYMBOLS, metric
from mdtool.bench.processes import addresses, service
from mdtool.bench.stomp_load import stomp_clients
from mdtool.core.addresses import parse_address
from mdtool.core.descriptors import raise_file_limit
from mdtool.core.permissions import Principal
from mdtool.core.symbols import SymbolTable
from mdtool.core.units import PRICE_SCALE
from mdtool.services.client import Admission, Client
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.feeds import Feeds
from mdtool.services.gateway.feeds.aggregates import Aggregate, Aggregates
from mdtool.services.gateway.feeds.feed import Audience
from mdtool.services.gateway.formats import encode_aggregate
from mdtool.services.gateway.http import Routes
from mdtool.services.gateway.hub import Hub
from mdtool.services.gateway.market import MarketState
from mdtool.services.gateway.protocols.signaling import Rooms
from mdtool.services.gateway.protocols.stomp import PATH, Stomp
from mdtool.services.gateway.proxies import Proxies
from mdtool.services.gateway.table import TABLE
from mdtool.services.http.answers import IDENTIFY
from mdtool.services.http.entry import IN_BAND
from mdtool.services.http.listening import listening
from mdtool.services.http.origins import Origins
from mdtool.services.limits import Limits
from mdtool.services.security import Security
from mdtool.wire._pb import tick_pb2
from mdtool.wire.batches import Counts, Updates

CLIENTS: Final = 2_000
CROWD: Final = 10_000
RATE: Final = 20
UPDATES: Final = 400
ROUNDS: Final = 15
_SYMBOL: Final = "AAPL"
_TOPICS: Final = TABLE["aggregates"].destination
_BARE_PATH: Final = "/bare"
_UPDATES_A_ROUND: Final = 4
_PAUSE_S: Final = 0.2
"""For the clients to read the messages of a round."""
_FRAME: Final = b"\0\0\0\1."
_TIME_NS: Final = 1_735_201_234_567_000_000
_PATIENCE_S: Final = 60

_Way = Callable[[NDArray[np.integer]], Awaitable[None]]
"""Sends clients the symbols, indices into the state, that changed."""


async def measure(
    clients: int = CLIENTS, updates: int = UPDATES, rounds: int = ROUNDS, crowd: int = CROWD
) -> list[Figure]:
    """Return how long updates take from the aggregator to each client, and their cost.

    An update takes from the moment at which it is sent until a message comes whose volume includes
    it: beside one process that writes the same to bare sockets, with the same load.
    """
    return [
        *await _follow("fanout", clients, updates),
        *await _follow("fanout_crowd", crowd, updates),
        *await measure_writes(clients, rounds),
    ]


async def _follow(name: str, clients: int, updates: int) -> list[Figure]:
    """Return the figures of clients that follow one symbol."""
    async with contextlib.AsyncExitStack() as servers:
        aggregator = await servers.enter_async_context(service("aggregate"))
        options = (
            *("--aggregator", aggregator, "--max-sockets", str(clients)),
            *("--client-sockets", "0", *NO_LIMIT),
        )
        gateway = await servers.enter_async_context(service("gateway", *options))
        await _trade(aggregator, 1)
        resident = await metric(gateway, RESIDENT)
        destination = f"{_TOPICS}{_SYMBOL}"
        async with stomp_clients(gateway, PATH, clients, destination, updates) as arrivals:
            sent_s = await _trade(aggregator, updates)
            arrived_s = await arrivals()
            taken = await metric(gateway, RESIDENT) - resident
    times_ms = (arrived_s - sent_s) * 1_000
    bare_times_ms = await _bare_times_ms(clients, updates)
    up_to_date = int(np.count_nonzero(~np.isnan(arrived_s[:, -1])))
    return [
        Figure(f"{name}_up_to_date", up_to_date, f"of {clients:,} clients"),
        *(
            against(
                f"{name}_p{percentile}",
                float(np.nanpercentile(times_ms, percentile)),
                "ms",
                "a bare asyncio loop",
                float(np.nanpercentile(bare_times_ms, percentile)),
                better="lower",
            )
            for percentile in (50, 99)
        ),
        Figure(f"{name}_memory", taken / clients / 1_024, "KB a client", "lower"),
    ]


async def _bare_times_ms(clients: int, updates: int) -> NDArray[np.float64]:
    """Return how long the same takes through a process that does no more than to write."""
    sent_s = np.empty(updates)
    async with addresses(baselines.MODULE, "crowd") as server:
        load = stomp_clients(server["http"], PATH, clients, _SYMBOL, updates)
        with socket.create_connection(parse_address(server["tcp"])) as ticks:
            async with load as arrivals:
                async for tick in _due(updates):
                    sent_s[tick] = time.monotonic()
                    ticks.sendall(_FRAME)
                arrived_s = await arrivals()
    return (arrived_s - sent_s) * 1_000


async def _due(ticks: int) -> AsyncIterator[int]:
    """Yield the number of each tick when it is due, at `RATE`."""
    began_s = time.monotonic()
    for tick in range(ticks):
        await asyncio.sleep(max(0.0, began_s + tick / RATE - time.monotonic()))
        yield tick


async def _trade(aggregator: str, ticks: int) -> NDArray[np.float64]:
    """Send ticks of volume 1 at `RATE`; return when each was sent, float64[ticks]."""
    sent_s = np.empty(ticks)

    async def paced() -> AsyncIterator[tick_pb2.Tick]:
        async for tick in _due(ticks):
            sent_s[tick] = time.monotonic()
            yield tick_pb2.Tick(
                symbol=_SYMBOL, price=187.25, volume=1, exchange_timestamp=time.time_ns()
            )

    async with rpc.open_channel(aggregator) as channel:
        await rpc.Stub(channel).StreamTicks(paced())
    return sent_s


async def measure_writes(clients: int, rounds: int = ROUNDS) -> list[Figure]:
    """Return how many messages a second the hub writes, beside bare aiohttp sockets one by one.

    All symbols change at once in the first figure, one symbol in the second.
    """
    raise_file_limit()
    server = Server(clients)
    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(server.listening())
        total = 1 + 2 * rounds * _UPDATES_A_ROUND
        for path in (PATH, _BARE_PATH):
            await stack.enter_async_context(
                stomp_clients(address, path, clients, f"{_TOPICS}*", total)
            )
        figures = []
        for name, symbols in (("fanout_messages", SYMBOLS), ("fanout_one_symbol", SYMBOLS[:1])):
            hub, bare = server.ways
            pairs = [
                (await server.rate(hub, symbols), await server.rate(bare, symbols))
                for _ in range(rounds)
            ]
            figures.append(in_turns(name, "messages/s", "bare aiohttp, one by one", pairs))
    return figures


class Server:
    """Publishes a market in two ways, each to its own clients.

    Parameters
    ----------
    clients : int
        Of each way.
    security : Security, optional
        How clients authenticate; their principals are then those of `principals`, in turns.
    principals : iterator of Principal
    """

    def __init__(
        self,
        clients: int,
        security: Security | None = None,
        principals: Iterator[Principal] | None = None,
    ) -> None:
        self._clients = clients
        self._admission = Admission(Limits(connections=clients), security)
        self._principals = principals
        self._state = MarketState()
        self._table = SymbolTable(SYMBOLS)
        self._volume = 0
        self._trade(SYMBOLS)
        self._hub = Hub()
        self._aggregates = Aggregates(self._state, Audience(self._hub))
        feeds = Feeds({"aggregates": self._aggregates}, TABLE)
        config = GatewayConfig(slow_client_s=_PATIENCE_S, stomp_heart_beat_ms=0)
        self._routes = Stomp(config, feeds, Rooms(1)).routes
        self._bare: list[tuple[web.WebSocketResponse, str]] = []
        self.ways: tuple[_Way, _Way] = (self._publish, self._write_one_by_one)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Serve within the block; yield the address."""
        routes = Routes(self._admission, Origins(""), Proxies())
        routes.app[IDENTIFY] = self._identify
        for (method, path), handler in self._routes.items():
            routes.add(method, path, handler, IN_BAND)
        routes.app.router.add_get(_BARE_PATH, self._follow)
        async with listening(routes.app, "127.0.0.1", 0, grace_s=0.1) as address:
            yield address

    def _identify(self, _request: web.Request) -> Client:
        return self._admission.client(
            "127.0.0.1", None if self._principals is None else next(self._principals)
        )

    async def rate(self, way: _Way, symbols: Sequence[str]) -> float:
        """Return how many messages a second one way writes in a round."""
        await asyncio.sleep(_PAUSE_S)
        changes = [self._trade(symbols) for _ in range(_UPDATES_A_ROUND)]
        began_s = time.perf_counter()
        for changed in changes:
            await way(changed)
        taken_s = time.perf_counter() - began_s
        return self._clients * len(symbols) * _UPDATES_A_ROUND / taken_s

    def _trade(self, symbols: Sequence[str]) -> NDArray[np.integer]:
        """Apply one trade of each symbol."""
        self._volume += 1
        symbol = np.array([self._table.intern(name) for name in symbols], np.uint32)
        price = np.full(len(symbol), 187 * PRICE_SCALE)
        volume = np.full(len(symbol), self._volume)
        time_ns = np.full(len(symbol), _TIME_NS)
        updates = Updates(
            symbol, price, price, price, price, volume, volume, time_ns, time_ns, Counts()
        )
        return self._state.apply(self._table, updates)

    async def _publish(self, changed: NDArray[np.integer]) -> None:
        """Publish as the gateway does."""
        self._aggregates.publish(changed)
        written = asyncio.Event()
        self._hub.when_written(written.set)
        await written.wait()

    async def _write_one_by_one(self, changed: NDArray[np.integer]) -> None:
        """Write to bare clients with aiohttp's own method."""
        for index in changed.tolist():
            row = Aggregate(self._state.symbols[index], *self._state.session(index))
            body = encode_aggregate(row).decode()
            destination = _TOPICS + self._state.symbols[index]
            rest = (
                f"message-id:{self._volume}\ndestination:{destination}\n"
                f"content-type:application/json\ncontent-length:{len(body)}\n\n{body}\0"
            )
            for client, subscription in self._bare:
                await client.send_str(f"MESSAGE\nsubscription:{subscription}\n{rest}")

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        client = web.WebSocketResponse()
        await client.prepare(request)
        await client.receive()
        await client.receive()  # its subscription to all symbols
        await client.send_str('"volume":"1"')
        self._bare.append((client, f"sub-{len(self._bare)}"))
        async for _ in client:
            pass
        return client
