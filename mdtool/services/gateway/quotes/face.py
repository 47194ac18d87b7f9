"""Quotes as a whole: their hub, their sources, and the handlers that tell of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from mdtool.adapters.aggregator import UnavailableError, UnknownSymbolError
from mdtool.adapters.quotes import QuoteHub
from mdtool.adapters.quotes.port import TTL_S
from mdtool.services.gateway.answers import STALE_HEADERS
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.limits import SocketLimit
from mdtool.services.gateway.parameters import parse_symbol
from mdtool.services.gateway.quotes.board import LatestQuote, QuoteBoard
from mdtool.services.gateway.quotes.sockets import QuoteSockets
from mdtool.services.gateway.quotes.trades import LastTrades
from mdtool.services.gateway.state import MarketState
from mdtool.services.gateway.tallies import SocketTally
from mdtool.services.http.answers import answer

if TYPE_CHECKING:
    from mdtool.services.gateway.quotes.feed import QuoteFeed

PATH: Final = "/ws"
TALLY: Final = "/ws quotes"
"""What metrics call its WebSockets: SockJS has the same path."""
_REPEAT_S: Final = TTL_S / 4
"""How often this gateway stands up for its quotes."""


class Quotes:
    """What clients may ask of quotes, whichever protocol they speak.

    Quotes are made of the stream that `quotes_from` names, where one is named, else of last
    trades; and shared with other gateways by `quotes_hub`.

    Parameters
    ----------
    config : GatewayConfig
    hub : QuoteHub
        Not entered yet.
    state : MarketState
        Where last trades are.
    limit : SocketLimit
        How many WebSockets there may be.
    tally : SocketTally
        Where WebSockets are counted.

    Attributes
    ----------
    board : QuoteBoard
        What is known.
    follow : handler
        Of `WS /ws`.
    """

    def __init__(
        self,
        config: GatewayConfig,
        hub: QuoteHub,
        state: MarketState,
        limit: SocketLimit,
        tally: SocketTally,
    ) -> None:
        self.board = QuoteBoard()
        self._sockets = QuoteSockets(self.board, limit, config.slow_client_s, tally)
        self.follow, self.close = self._sockets.follow, self._sockets.close
        self._hub = hub
        self._state = state
        self._trades = LastTrades(state, self.board, hub.publish)
        self._feed: QuoteFeed | None = None
        self._address = config.quotes_from
        hub.subscribe(self.board.take)

    async def run(self) -> None:
        """Have quotes come until cancelled; the hub is entered by then."""
        async with asyncio.TaskGroup() as tasks:
            if self._address:
                self._feed = await asyncio.to_thread(_feed_of, self._address, self._hub)
                tasks.create_task(self._feed.run())
            while True:
                await asyncio.sleep(_REPEAT_S)
                if self._feed is not None:
                    self._feed.repeat()
                self._trades.repeat()
                self.board.expire()

    def publish(self, changed: NDArray[np.intp]) -> None:
        """Make quotes of the symbols, indices into the state, that changed."""
        self._trades.tell(changed)

    def find(self, text: str) -> LatestQuote:
        """Return the quote of a symbol, as a client wrote it.

        Raises
        ------
        ParameterError
            When it can be no symbol.
        UnknownSymbolError
            When there is no quote of it.
        UnavailableError
            When that cannot be known.
        """
        symbol = parse_symbol(text)
        row = self.board.find(symbol)
        if row is None:
            self._check_known()
            raise UnknownSymbolError(f"no quote of {symbol} yet")
        return row

    async def answer(self, request: web.Request) -> web.Response:
        """`GET /v1/quotes?symbol=`: a symbol's quote, or an array of all, in order of symbol."""
        if "symbol" in request.query:
            row = self.find(request.query["symbol"])
            body, is_stale = self.board.text(row.symbol), row.is_stale
        else:
            if not len(self.board):
                self._check_known()
            body, is_stale = await self.board.listing.read()
        return answer(body, STALE_HEADERS if is_stale else None)

    def report(self) -> Mapping[str, Any]:
        """Return how things are, for `/health`."""
        hub, feed = self._hub, self._feed
        return {
            "known": len(self.board),
            "stale": self.board.stale_count(),
            "hub": _peer(hub.address, hub.lost_because),
            "source": None if feed is None else _peer(feed.address, feed.lost_because),
        }

    def _check_known(self) -> None:
        """Raise UnavailableError where no source is there: what is not known may yet be."""
        has_stream = self._feed is not None and self._feed.lost_because is None
        has_fresh = self.board.stale_count() < len(self.board)
        if not (self._state.is_live or has_stream or has_fresh):
            raise UnavailableError("what quotes are made of is away")


def _feed_of(address: str, hub: QuoteHub) -> QuoteFeed:
    """Return the feed, with all kernels compiled that it will use."""
    from mdtool.core.dtypes import MBO
    from mdtool.core.instruments import Batch
    from mdtool.engine.quotes import LatestQuotes
    from mdtool.services.gateway.quotes.feed import QuoteFeed

    LatestQuotes().update(Batch.of(np.zeros(1, MBO)))
    return QuoteFeed(address, hub.publish)


def _peer(address: str, lost_because: str | None) -> Mapping[str, Any]:
    return {"address": address, "connected": lost_because is None, "message": lost_because}
