"""Plain WebSockets: clients name symbols in the URL, and then only listen."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from mdtool.adapters.market import UnknownSymbolError
from mdtool.core.errors import MdtoolError
from mdtool.services.client import Client
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.feeds import Feeds
from mdtool.services.gateway.feeds.feed import ALL, Key
from mdtool.services.gateway.feeds.permitted import PermittedFeed
from mdtool.services.gateway.fields import encode_missed
from mdtool.services.gateway.hub import Subscription
from mdtool.services.gateway.parameters import ParameterError, parse_symbols
from mdtool.services.gateway.protocols import Paths
from mdtool.services.gateway.table import FeedRow, PlainSocket
from mdtool.services.gateway.websockets import renew, websocket
from mdtool.wire.websocket import CloseCode


class PlainSockets:
    """Serves each feed of the table that has a WebSocket of its own.

    Parameters
    ----------
    config : GatewayConfig
    feeds : Feeds
    """

    def __init__(self, config: GatewayConfig, feeds: Feeds) -> None:
        self._patience_s = config.slow_client_s
        self._feeds = feeds

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {
            ("GET", row.socket.path): functools.partial(
                self._serve, row, row.socket, _PlainFormat(row.socket.encode)
            )
            for row in self._feeds.rows
            if row.socket is not None
        }

    async def _serve(
        self, row: FeedRow, plain: PlainSocket, layout: _PlainFormat, request: web.Request
    ) -> web.StreamResponse:
        symbols = parse_symbols(request.query)
        if plain.requires_symbols and not symbols:
            raise ParameterError("symbol: missing; add ?symbol=AAPL")
        feed = self._feeds[row.name]
        async with websocket(request, plain.listener, self._patience_s) as socket:

            def fail(error: MdtoolError) -> None:
                socket.close(CloseCode.POLICY, str(error))

            subscription = Subscription(socket.client, socket.outbox, layout, fail=fail)
            with contextlib.ExitStack() as stack:
                for key in [Key(symbol, row.default) for symbol in symbols or [ALL]]:
                    if symbols and await _is_unknown(feed, socket.client, key):
                        socket.outbox.post(_encode_unknown(key.symbol))
                    stack.callback(feed.follow(key, subscription))
                async for message in socket:  # also for pings to be answered
                    await renew(socket.client, message)
        return socket.response


class _PlainFormat:
    """Rows without anything around them."""

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        self._encode = encode

    def encode(self, row: Any, is_snapshot: bool = False) -> bytes:  # noqa: ARG002 - alike
        """Return a row as its contract has it."""
        return self._encode(row)

    def missed(self, symbol: str, count: int | None) -> bytes:
        """Return the message that events were dropped."""
        return encode_missed(symbol, count)


async def _is_unknown(feed: PermittedFeed, client: Client, key: Key) -> bool:
    """Return whether there is nothing of a key yet, rather than unknown whether there is."""
    if feed.knows(client, key):
        return False
    try:
        await feed.current(client, key)
    except UnknownSymbolError:
        return True
    except MdtoolError:
        pass
    return False


def _encode_unknown(symbol: str) -> bytes:
    """Return the message about a symbol of which nothing has come yet."""
    message = f"no data of {symbol} yet; the first is sent when it comes"
    unknown = {"error": "not_found", "symbol": symbol, "message": message}
    return json.dumps(unknown, separators=(",", ":")).encode()
