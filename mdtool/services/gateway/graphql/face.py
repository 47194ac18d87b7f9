"""GraphQL as a whole: its parts put together, and the paths at which they answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from mdtool.services.gateway.bar_feed import BarFeed
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.graphql.execution import Executor
from mdtool.services.gateway.graphql.http import GraphQLHttp
from mdtool.services.gateway.graphql.limits import Limits
from mdtool.services.gateway.graphql.live import (
    BarsSource,
    BookSource,
    MarketDataSource,
    QuoteSource,
    Source,
)
from mdtool.services.gateway.graphql.resolvers import resolvers
from mdtool.services.gateway.graphql.sockets import GraphQLSockets
from mdtool.services.gateway.history.view import HistoryView
from mdtool.services.gateway.hub import Hub
from mdtool.services.gateway.order_books import OrderBooks
from mdtool.services.gateway.protection import Protection
from mdtool.services.gateway.quotes.face import Quotes
from mdtool.services.gateway.tallies import SocketTally
from mdtool.services.gateway.view import MarketView
from mdtool.services.http.answers import Handler

PATH: Final = "/graphql"


class GraphQL:
    """The handlers of `/graphql`.

    Parameters
    ----------
    config : GatewayConfig
        What its clients may do.
    view : MarketView
        What queries are answered from.
    bars : BarFeed
        What subscriptions to bars follow.
    quotes : Quotes
        What tells of quotes.
    books : OrderBooks
        What tells of order books.
    history : HistoryView
        What has the trades that are stored.
    protection : Protection
        How many WebSockets there may be, and how much may be asked.
    tally : SocketTally
        Where they are counted.
    """

    def __init__(
        self,
        config: GatewayConfig,
        view: MarketView,
        bars: BarFeed,
        quotes: Quotes,
        books: OrderBooks,
        history: HistoryView,
        protection: Protection,
        tally: SocketTally,
    ) -> None:
        hub = Hub()
        self._market_data = MarketDataSource(view.state, hub)
        sources: Mapping[str, Source] = {
            "marketData": self._market_data,
            "bars": BarsSource(bars, hub),
            "quote": QuoteSource(quotes.board, hub),
            "book": BookSource(books, hub),
        }
        executor = Executor(
            resolvers(view, quotes.find, books, history),
            sources,
            Limits(
                config.graphql_max_depth,
                config.graphql_max_aliases,
                config.graphql_max_complexity,
            ),
            may_introspect=config.graphql_introspection,
        )
        max_bytes = config.graphql_max_body_bytes
        limit, time_share = protection.sockets, protection.time_share
        self._sockets = GraphQLSockets(
            executor, sources, max_bytes, config.slow_client_s, limit, time_share, tally
        )
        self._http = GraphQLHttp(executor, self._sockets, max_bytes, time_share)

    @property
    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """The handlers by method and path."""
        return {
            ("POST", PATH): self._http.post,
            ("GET", PATH): self._http.get,
        }

    def publish(self, changed: NDArray[np.intp]) -> None:
        """Tell subscriptions of the symbols, indices into the state, that changed."""
        self._market_data.publish(changed)

    async def close(self, app: web.Application) -> None:
        """Close every socket, when nothing is listened to any more."""
        await self._sockets.close(app)
