"""`/health`: whether the gateway has data to serve, and how fresh they are."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from mdtool.services.gateway.http import Routes
from mdtool.services.gateway.protocols import Paths
from mdtool.services.gateway.sources import Sources
from mdtool.services.http.answers import answer, encode_object


class Health:
    """The handler of `/health`.

    `status` is `ok` where the aggregator's stream is connected; `degraded` where it is, but an
    update of the last seconds was older than `max_age_ms` when it was written; `blocked` where it
    is, but no more ticks are accepted (the aggregator's store cannot be written, or a bus has no
    aggregator); `stale` where it is not, and the last known state is served; and `unavailable`,
    answered with 503, where nothing is known.

    Parameters
    ----------
    sources : Sources
    served : Routes
    max_age_ms : int
    """

    def __init__(self, sources: Sources, served: Routes, max_age_ms: int) -> None:
        self._sources = sources
        self._max_age_ms = max_age_ms
        self._served = served

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {("GET", "/health"): self.answer}

    async def answer(self, _request: web.Request) -> web.Response:
        """`GET /health`."""
        report = self.report()
        status = 503 if report["status"] == "unavailable" else 200
        return answer(encode_object(report), status=status)

    def report(self) -> dict[str, Any]:
        """Return the state of everything."""
        sources, admission = self._sources, self._served.admission
        market, upstream = sources.market, sources.upstream
        status, age_ms = self.status(), self._age_ms()
        return {
            "status": status,
            "age_ms": None if age_ms is None else round(age_ms, 3),
            "aggregator": {
                "address": market.aggregator.address,
                "connected": market.state.is_live,
                "message": market.lost_because
                or (market.aggregator.blocked_reason if status == "blocked" else None),
            },
            "symbols": {
                "known": len(market.state.symbols),
                "stale": market.state.stale_count(),
            },
            "quotes": sources.quotes.report(),
            "vwap": sources.vwap.report(),
            "store": None if sources.history is None else sources.history.report(),
            "sockets": len(admission),
            "circuit": {
                "state": upstream.circuit.value,
                "opened": upstream.opened,
                "answered": upstream.answered,
                "failed": upstream.failed,
                "repeated": upstream.repeated,
                "refused": upstream.refused,
            },
            "refused": self._served.refused,
            "waits": admission.waits,
        }

    def status(self) -> str:
        """Return the status."""
        market = self._sources.market
        if market.state.is_live:
            if market.is_blocked:
                return "blocked"
            return "degraded" if (self._age_ms() or 0.0) > self._max_age_ms else "ok"
        return "stale" if market.state.symbols else "unavailable"

    def _age_ms(self) -> float | None:
        """Return the age of the oldest update that was written in the last seconds."""
        age_s = self._sources.market.ages.recent_s()
        return None if age_s is None else age_s * 1_000
