"""`/health`: whether the gateway has something to serve, and how fresh it is."""

from __future__ import annotations

from aiohttp import web

from mdtool.adapters.market import MarketReader
from mdtool.services.gateway.feed import Feed
from mdtool.services.gateway.history.face import History
from mdtool.services.gateway.protection import Protection
from mdtool.services.gateway.quotes.face import Quotes
from mdtool.services.gateway.state import MarketState
from mdtool.services.gateway.tallies import Tallies
from mdtool.services.http.answers import answer, encode_object


class Health:
    """The handler of `/health`.

    `status` is `ok` where the aggregator's stream is there, `blocked` where it is too, but no more
    ticks are taken (the aggregator's store cannot be written, or a bus has no aggregator), `stale`
    where the stream is not there and the last known state is served, and `unavailable`, answered
    with 503, where nothing is known.
    """

    def __init__(
        self,
        state: MarketState,
        feed: Feed,
        aggregator: MarketReader,
        quotes: Quotes,
        history: History,
        protection: Protection,
        tallies: Tallies,
    ) -> None:
        self._state = state
        self._feed = feed
        self._aggregator = aggregator
        self._quotes = quotes
        self._history = history
        self._protection = protection
        self._tallies = tallies

    async def report(self, _request: web.Request) -> web.Response:
        """`GET /health`."""
        state = self._state
        resilience = self._protection.resilience
        status = self._status()
        report = {
            "status": status,
            "aggregator": {
                "address": self._aggregator.address,
                "connected": state.is_live,
                "message": self._feed.lost_because
                or (self._aggregator.blocked_reason if status == "blocked" else None),
            },
            "symbols": {"known": len(state.symbols), "stale": state.stale_count()},
            "quotes": self._quotes.report(),
            "store": self._history.report(),
            "sockets": sum(tally.open for tally in self._tallies.sockets.values()),
            "circuit": {
                "state": resilience.circuit.value,
                "opened": resilience.opened,
                "answered": resilience.answered,
                "failed": resilience.failed,
                "repeated": resilience.repeated,
                "refused": resilience.refused,
            },
            "refused": self._protection.refused,
            "waits": self._protection.time_share.waits,
        }
        return answer(encode_object(report), status=503 if status == "unavailable" else 200)

    def _status(self) -> str:
        if self._state.is_live:
            return "blocked" if self._feed.is_held_up else "ok"
        return "stale" if self._state.symbols else "unavailable"
