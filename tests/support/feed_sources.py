"""What a gateway's feeds come from, on free ports in the test's own loop, and changed by it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from aiohttp import web

from mdtool.services.aggregator.trade_publisher import TradePublisher
from mdtool.services.alerts import following
from mdtool.services.http.listening import listening
from tests.support.aggregators import NOON_NS, RunningAggregator, aggregator, message, tick
from tests.support.gateways import Client, gateway_of
from tests.support.vwap_feeds import vwap_feed

GATEWAY_FOLLOWS = 2
"""How often a gateway without a store follows trades: for its clients, and for alerts."""
NOBODY = "127.0.0.1:1"


class Receiver:
    """A receiver of order books that has the books that a test gives it."""

    def __init__(self) -> None:
        self._cents: dict[str, int] = {}

    def set(self, cents: Mapping[str, int]) -> None:
        """Let books have one buyer each."""
        self._cents.update(cents)

    async def answer(self, request: web.Request) -> web.Response:
        """`GET /order-book?last=true&symbols=`."""
        wanted = request.query.get("symbols", "")
        symbols = set(wanted.split(",")) if wanted else self._cents.keys()
        lines = [self._line(symbol) for symbol in sorted(symbols & self._cents.keys())]
        return web.Response(text="".join(f"{json.dumps(line)}\n" for line in lines))

    def _line(self, symbol: str) -> dict[str, Any]:
        cents = self._cents[symbol]
        bid = {"price": f"{cents / 100:.2f}", "size": "5", "count": 1}
        return {
            "symbol": symbol,
            "timestamp_ns": str(NOON_NS + cents),
            "levels": {"bids": [bid], "asks": []},
            "stats": {"bid_levels": 1, "ask_levels": 0, "total_orders": 1},
            "records": cents,
            "partial": False,
        }


@dataclass
class World:
    """A gateway, and all that is behind it."""

    client: Client
    aggregator: RunningAggregator
    receiver: Receiver
    _sequence: int = field(default=0)
    _hours: int = field(default=0)
    _banded: set[str] = field(default_factory=set)

    async def trade(self, cents: Mapping[str, int]) -> None:
        """Let each symbol trade once, in one batch."""
        ticks = [tick(price, symbol=index) for index, price in enumerate(cents.values())]
        await self._send(ticks, list(cents))

    async def alert(self, cents: Mapping[str, int]) -> None:
        """Let each symbol trade far outside its band, long after its last trade."""
        self._hours += 3
        symbols, now_s = list(cents), self._hours * 3_600
        ticks = [
            tick(10**8, symbol=index, at_s=now_s - 3_600)
            for index, symbol in enumerate(symbols)
            if symbol not in self._banded
        ]
        ticks += [
            tick(price, symbol=index, at_s=now_s) for index, price in enumerate(cents.values())
        ]
        self._banded |= cents.keys()
        await self._send(ticks, symbols)

    async def _send(self, ticks: Sequence[Any], symbols: Sequence[str]) -> None:
        await self.aggregator.send(message(self._sequence, ticks, symbols))
        self._sequence += len(ticks)

    async def quote(self, cents: Mapping[str, int]) -> None:
        """Change books."""
        self.receiver.set(cents)


@dataclass(frozen=True)
class Source:
    """How a test changes a feed, and finds the change in its rows.

    Attributes
    ----------
    change : callable
        Gives each symbol a price in cents, in a world.
    place : tuple of str and int
        Where a row has that price.
    needs_vwap : bool
        Whether the VWAP service has to run.
    is_once : bool
        Whether a symbol is published only when it is new.
    is_requested : bool
        Whether only a request shows which symbols there are.
    page_field : str
        The GraphQL field that has the rows of a query.
    """

    change: Any = World.trade
    place: tuple[str | int, ...] = ()
    needs_vwap: bool = False
    is_once: bool = False
    is_requested: bool = False
    page_field: str = ""

    def cents(self, row: Mapping[str, Any]) -> int:
        """The price of a row, 0 where it has none."""
        value: Any = row
        for name in self.place:
            value = value[name]
        return round(float(value) * 100) if self.place else 0

    def shown(self, cents: int) -> int:
        """What `cents` finds of a symbol that was given a price."""
        return cents if self.place else 0

    @property
    def selection(self) -> str:
        """What is requested of a row over GraphQL."""
        names = [name for name in self.place if isinstance(name, str)]
        return "symbol " + " { ".join(names) + " }" * max(0, len(names) - 1)


SOURCES = {
    "aggregates": Source(place=("close",)),
    "bars": Source(place=("close",)),
    "quotes": Source(place=("last",)),
    "books": Source(World.quote, ("bids", 0, "price"), is_requested=True),
    "trades": Source(place=("price",), page_field="trades"),
    "vwap": Source(place=("price",), needs_vwap=True),
    "alerts": Source(World.alert, ("value",), page_field="alerts"),
    "symbols": Source(is_once=True),
}
"""By feed: each row of the table needs one."""


@contextlib.contextmanager
def followers_of_trades():
    """Counts who follows the trades of aggregators."""
    followers = asyncio.Semaphore(0)
    follow = TradePublisher.follow

    def counted(publisher):
        followers.release()
        return follow(publisher)

    with patch.object(TradePublisher, "follow", counted):
        yield followers


@contextlib.asynccontextmanager
async def world_of(source: Source, **settings):
    """The world of one feed until the block ends; nothing that happens in it is missed."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_get("/order-book", receiver.answer)
    async with contextlib.AsyncExitStack() as stack:
        followers = stack.enter_context(followers_of_trades())
        # An alert ends with the next trade of its symbol, not while another symbol trades.
        stack.enter_context(patch.object(following, "_CHECK_S", 86_400.0))
        running = await stack.enter_async_context(aggregator())
        addresses = {"receiver": await stack.enter_async_context(listening(app, "127.0.0.1", 0))}
        if source.needs_vwap:
            addresses["vwap"] = await stack.enter_async_context(vwap_feed(running.address))
            await followers.acquire()
        unlimited = {"upstream_requests_per_s": 0, "memory_requests_per_s": 0}
        unlimited["slow_client_s"] = 3_600  # a follower reads only on request
        client = await stack.enter_async_context(
            gateway_of(running.address, **(addresses | unlimited | settings))
        )
        for _ in range(GATEWAY_FOLLOWS):
            await followers.acquire()
        yield World(client, running, receiver)
