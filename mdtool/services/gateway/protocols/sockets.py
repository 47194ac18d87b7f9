"""Plain WebSockets: clients name symbols in the URL, and then only listen."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from mdtool.core.errors import MdtoolError
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.feeds import Feeds
from mdtool.services.gateway.feeds.feed import ALL, Key
from mdtool.services.gateway.fields import encode_missed
from mdtool.services.gateway.hub import Subscription
from mdtool.services.gateway.parameters import ParameterError, parse_symbol
from mdtool.services.gateway.protocols import Paths
from mdtool.services.gateway.table import FeedRow, PlainSocket
from mdtool.services.gateway.websockets import websocket
from mdtool.wire.websocket import CloseCode

MAX_SYMBOLS: Final = 500
"""That one client may name."""


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
        symbols = _parse_symbols(plain, request.query)
        feed = self._feeds[row.name]
        async with websocket(request, plain.listener, self._patience_s) as socket:

            def fail(error: MdtoolError) -> None:
                socket.close(CloseCode.POLICY, str(error))

            subscription = Subscription(socket.client, socket.outbox, layout, fail=fail)
            with contextlib.ExitStack() as stack:
                for symbol in symbols:
                    stack.callback(feed.follow(Key(symbol, row.default), subscription))
                async for _ in socket:
                    pass  # messages of clients are read, so that pings are answered
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


def _parse_symbols(plain: PlainSocket, query: Mapping[str, str]) -> Sequence[str]:
    """Return the symbols that a URL names, each once.

    Raises
    ------
    ParameterError
        When one is not valid, is missing, or there are too many.
    """
    text = query.get("symbols") or query.get("symbol")
    if not text:
        if plain.requires_symbols:
            raise ParameterError("symbol: missing; add ?symbol=AAPL")
        return [ALL]
    symbols = list(dict.fromkeys(map(parse_symbol, text.split(","))))
    if len(symbols) > MAX_SYMBOLS:
        raise ParameterError(f"symbols: at most {MAX_SYMBOLS}, not {len(symbols):,}")
    return symbols
