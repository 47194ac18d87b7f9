"""STOMP as a whole: its parts put together, and the paths at which they answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from mdtool.services.gateway.bar_feed import BarFeed
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.protection import Protection
from mdtool.services.gateway.quotes.board import QuoteBoard
from mdtool.services.gateway.signaling import rooms
from mdtool.services.gateway.signaling.rooms import Rooms
from mdtool.services.gateway.state import MarketState
from mdtool.services.gateway.stomp import bars, market, quotes
from mdtool.services.gateway.stomp.bars import BarTopics
from mdtool.services.gateway.stomp.broker import DestinationBroker
from mdtool.services.gateway.stomp.connections import Connections
from mdtool.services.gateway.stomp.http import SockJsHttp
from mdtool.services.gateway.stomp.market import MarketTopics
from mdtool.services.gateway.stomp.quotes import QuoteTopics
from mdtool.services.gateway.stomp.sockets import StompSockets
from mdtool.services.gateway.stomp.topics import Topics
from mdtool.services.gateway.tallies import Tallies
from mdtool.services.http.answers import Handler

RAW_PATH: Final = "/ws/websocket"
SOCKJS_PATH: Final = "/ws"
_SESSION: Final = f"{SOCKJS_PATH}/{{server}}/{{session}}"
EVENTS_PATH: Final = f"{_SESSION}/eventsource"


class Stomp:
    """The handlers of `/ws/websocket`, and of SockJS at `/ws`.

    Parameters
    ----------
    config : GatewayConfig
        What its clients may do.
    state : MarketState
        What they are told of.
    bar_feed : BarFeed
        What they are told of bars.
    board : QuoteBoard
        What they are told of quotes.
    protection : Protection
        How many clients there may be, and how much they may say.
    tallies : Tallies
        Where they are counted.
    """

    def __init__(
        self,
        config: GatewayConfig,
        state: MarketState,
        bar_feed: BarFeed,
        board: QuoteBoard,
        protection: Protection,
        tallies: Tallies,
    ) -> None:
        topics, signaling = Topics(), Rooms(config.signaling_listeners)
        self._market = MarketTopics(state, topics)
        broker = DestinationBroker(
            {
                market.PREFIX: self._market,
                bars.PREFIX: BarTopics(bar_feed, topics),
                quotes.PREFIX: QuoteTopics(board, topics),
                rooms.TOPIC: signaling,
                f"{rooms.TOPIC}/": signaling,
            },
            {rooms.DESTINATION: signaling, f"{rooms.DESTINATION}/": signaling},
        )
        self._connections = Connections(broker, config.stomp_heart_beat_ms / 1_000)
        raw_tally, sockjs_tally = tallies.socket(RAW_PATH), tallies.socket(SOCKJS_PATH)
        patience_s = config.slow_client_s
        limit, time_share = protection.sockets, protection.time_share
        self._sockets = StompSockets(
            self._connections, patience_s, limit, time_share, raw_tally, sockjs_tally
        )
        self._http = SockJsHttp(self._connections, patience_s, limit, time_share, sockjs_tally)

    @property
    def routes(self) -> Mapping[tuple[str, str], Handler]:
        """The handlers by method and path."""
        return {
            ("GET", RAW_PATH): self._sockets.raw,
            ("GET", f"{_SESSION}/websocket"): self._sockets.sockjs,
            ("GET", EVENTS_PATH): self._http.events,
            ("POST", f"{_SESSION}/xhr_streaming"): self._http.stream,
            ("POST", f"{_SESSION}/xhr"): self._http.poll,
            ("POST", f"{_SESSION}/xhr_send"): self._http.send,
            ("GET", f"{SOCKJS_PATH}/info"): self._http.info,
            ("GET", SOCKJS_PATH): self._http.greeting,
        }

    async def run(self) -> None:
        """Keep clients alive until cancelled."""
        await self._connections.run()

    def publish(self, changed: NDArray[np.intp]) -> None:
        """Tell of the symbols, indices into the state, that changed."""
        self._market.publish(changed)

    async def close(self, _app: web.Application) -> None:
        """Have every client leave, when nothing is listened to any more."""
        self._connections.close()
        self._http.close()
