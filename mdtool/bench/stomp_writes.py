"""STOMP messages a second, against the same frames written to bare aiohttp sockets one by one."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from mdtool.bench.figures import Figure
from mdtool.bench.stomp_clients import stomp_clients
from mdtool.core.limits import raise_file_limit
from mdtool.core.symbols import SymbolTable
from mdtool.core.units import PRICE_SCALE
from mdtool.services.gateway.limits import UNLIMITED, SocketLimit
from mdtool.services.gateway.state import MarketState
from mdtool.services.gateway.stomp import market
from mdtool.services.gateway.stomp.broker import DestinationBroker
from mdtool.services.gateway.stomp.connections import Connections
from mdtool.services.gateway.stomp.market import MarketTopics
from mdtool.services.gateway.stomp.sockets import StompSockets
from mdtool.services.gateway.stomp.topics import Topics
from mdtool.services.gateway.tallies import SocketTally
from mdtool.services.gateway.time_share import TimeShare
from mdtool.services.http.listening import listening
from mdtool.wire.batches import Counts, Updates

ROUNDS: Final = 15
SYMBOLS: Final = ("AAPL", "MSFT", "GOOG", "AMZN", "TSLA")
_HUB_PATH: Final = "/ws/websocket"
_BARE_PATH: Final = "/bare"
_UPDATES_A_ROUND: Final = 4
_PAUSE_S: Final = 0.2
"""For the clients to read what a round has written."""
_TIME_NS: Final = 1_735_201_234_567_000_000
_PATIENCE_S: Final = 60.0

_Way = Callable[[NDArray[np.intp]], Awaitable[None]]
"""Tells clients of the symbols, indices into the state, that changed."""


async def measure_writes(clients: int, rounds: int = ROUNDS) -> list[Figure]:
    """Return how many messages a second are written where all symbols change at once, and one.

    Rounds of the one and the other way take turns; what counts are the medians, and that of the
    ratios of each turn.
    """
    raise_file_limit()
    server = _Server(clients)
    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(server.listening())
        total = 1 + 2 * rounds * _UPDATES_A_ROUND
        for path in (_HUB_PATH, _BARE_PATH):
            await stack.enter_async_context(
                stomp_clients(address, path, clients, f"{market.PREFIX}*", total)
            )
        figures = []
        for name, symbols in (("fanout_messages", SYMBOLS), ("fanout_one_symbol", SYMBOLS[:1])):
            pairs = [
                [await server.rate(way, symbols) for way in server.ways] for _ in range(rounds)
            ]
            rates, bare_rates = zip(*pairs, strict=True)
            figures.append(
                Figure(
                    name,
                    statistics.median(rates),
                    "messages/s",
                    "higher",
                    "bare aiohttp, one by one",
                    statistics.median(bare_rates),
                    statistics.median(rate / bare_rate for rate, bare_rate in pairs),
                )
            )
    return figures


class _Server:
    """Tells clients of a market in two ways, each its own clients."""

    def __init__(self, clients: int) -> None:
        self._clients = clients
        self._state = MarketState()
        self._table = SymbolTable(SYMBOLS)
        self._volume = 0
        self._trade(SYMBOLS)
        topics = Topics()
        self._market = MarketTopics(self._state, topics)
        broker = DestinationBroker({market.PREFIX: self._market}, {})
        self._sockets = StompSockets(
            Connections(broker, heart_beat_s=0.0),
            _PATIENCE_S,
            SocketLimit(clients, UNLIMITED),
            TimeShare(100.0),
            SocketTally(),
            SocketTally(),
        )
        self._bare: list[tuple[web.WebSocketResponse, str]] = []
        self.ways: tuple[_Way, _Way] = (self._publish, self._write_one_by_one)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Serve within the block, and give the address."""
        app = web.Application()
        app.router.add_get(_HUB_PATH, self._sockets.raw)
        app.router.add_get(_BARE_PATH, self._follow)
        async with listening(app, "127.0.0.1", 0, grace_s=0.1) as address:
            yield address

    async def rate(self, way: _Way, symbols: Sequence[str]) -> float:
        """Return how many messages a second one way of telling writes in a round."""
        await asyncio.sleep(_PAUSE_S)
        changes = [self._trade(symbols) for _ in range(_UPDATES_A_ROUND)]
        began_s = time.perf_counter()
        for changed in changes:
            await way(changed)
        taken_s = time.perf_counter() - began_s
        return self._clients * len(symbols) * _UPDATES_A_ROUND / taken_s

    def _trade(self, symbols: Sequence[str]) -> NDArray[np.intp]:
        """Let symbols trade at once."""
        self._volume += 1
        symbol = np.array([self._table.intern(name) for name in symbols], np.uint32)
        price = np.full(len(symbol), 187 * PRICE_SCALE)
        volume = np.full(len(symbol), self._volume)
        time_ns = np.full(len(symbol), _TIME_NS)
        updates = Updates(
            symbol, price, price, price, price, volume, volume, time_ns, time_ns, Counts()
        )
        return self._state.apply(self._table, updates)

    async def _publish(self, changed: NDArray[np.intp]) -> None:
        """Tell the gateway's clients as it does."""
        self._market.publish(changed)
        await asyncio.sleep(0)  # at the end of this turn

    async def _write_one_by_one(self, changed: NDArray[np.intp]) -> None:
        """Tell bare clients, by what aiohttp offers for that."""
        for index in changed.tolist():
            body = self._state.rest(index)[0].decode()
            destination = market.PREFIX + self._state.symbols[index]
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
        await client.receive()  # that it follows everything, as every client does
        await client.send_str('"volume":"1"')
        self._bare.append((client, f"sub-{len(self._bare)}"))
        async for _ in client:
            pass
        return client
