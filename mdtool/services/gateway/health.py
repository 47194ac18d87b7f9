"""`/livez`, `/readyz` and `/health`: whether the gateway answers, and has fresh data to serve."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from mdtool.services.gateway.http import Routes
from mdtool.services.gateway.protocols import Paths
from mdtool.services.gateway.sources import Sources
from mdtool.services.gateway.upstream import peer_state
from mdtool.services.gateway.workers.peers import Peers
from mdtool.services.http.answers import answer, encode_object

_REPORT: Final = "health"
_STOPPING: Final = "stopping"
_UNAVAILABLE: Final = "unavailable"


class Health:
    """The handlers of `/livez`, `/readyz` and `/health`.

    `/livez` answers as long as the process does; `/readyz` answers with 503 while nothing is known
    that could be served, and while the gateway drains, for load balancers to send requests
    elsewhere.

    In `/health`, `status` is `ok` where the aggregator's stream is connected; `degraded` where it
    is, but an update of the last seconds was older than `max_age_ms` when it was written; `blocked`
    where it is, but no more ticks are accepted (the aggregator's store cannot be written, or a bus
    has no aggregator); `stale` where it is not, and the last known state is served; and
    `unavailable`, answered with 503, where nothing is known.

    Parameters
    ----------
    sources : Sources
    served : Routes
    max_age_ms : int
    peers : Peers, optional
        The other workers, whose clients count too.
    """

    def __init__(
        self, sources: Sources, served: Routes, max_age_ms: int, peers: Peers | None = None
    ) -> None:
        self._sources = sources
        self._peers = peers
        if peers is not None:
            peers.report(_REPORT, lambda: encode_object(self._counts()))
        self._max_age_ms = max_age_ms
        self._served = served

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {
            ("GET", "/livez"): self.live,
            ("GET", "/readyz"): self.ready,
            ("GET", "/health"): self.answer,
        }

    async def live(self, _request: web.Request) -> web.Response:
        """`GET /livez`."""
        return answer(encode_object({"status": "ok"}))

    async def ready(self, _request: web.Request) -> web.Response:
        """`GET /readyz`."""
        status = _STOPPING if self._served.is_stopping else self.status(age_ms=0.0)
        code = 503 if status in {_STOPPING, _UNAVAILABLE} else 200
        return answer(encode_object({"status": status}), status=code)

    async def answer(self, _request: web.Request) -> web.Response:
        """`GET /health`."""
        others = [] if self._peers is None else await self._peers.request(_REPORT)
        report = self.report(list(map(json.loads, others)))
        status = 503 if report["status"] == _UNAVAILABLE else 200
        return answer(encode_object(report), status=status)

    def report(self, others: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Return the state of everything.

        Parameters
        ----------
        others : sequence of mapping
            What other workers count.
        """
        sources, market = self._sources, self._sources.market
        counts = [self._counts(), *others]
        ages_ms = [each["age_ms"] for each in counts if each["age_ms"] is not None]
        status = self.status(max(ages_ms, default=0.0))
        return {
            "status": status,
            "age_ms": max(ages_ms, default=None),
            "workers": len(counts),
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
            "sender": peer_state(sources.sender.address, sources.sender.lost_because),
            "receiver": peer_state(sources.receiver.address, sources.receiver.lost_because),
            "ticks": None if market.counts is None else market.counts.ticks,
            "sent": sum(each["sent"] for each in counts),
            "sockets": sum(each["sockets"] for each in counts),
            "circuit": {
                "state": sources.upstream.circuit.value,
                **_sums(each["circuit"] for each in counts),
            },
            "refused": _sums(each["refused"] for each in counts),
            "waits": sum(each["waits"] for each in counts),
        }

    def _counts(self) -> dict[str, Any]:
        """Return what this worker's clients account for."""
        upstream, admission = self._sources.upstream, self._served.admission
        age_ms = self._age_ms()
        return {
            "age_ms": None if age_ms is None else round(age_ms, 3),
            "sockets": len(admission.open),
            "sent": sum(tally.sent for tally in admission.tallies.values()),
            "circuit": {
                name: getattr(upstream, name)
                for name in ("opened", "answered", "failed", "repeated", "refused")
            },
            "refused": self._served.refused,
            "waits": admission.waits,
        }

    def status(self, age_ms: float) -> str:
        """Return the status, given the age of the oldest update of the last seconds."""
        market = self._sources.market
        if market.state.is_live:
            if market.is_blocked:
                return "blocked"
            return "degraded" if age_ms > self._max_age_ms else "ok"
        return "stale" if market.state.symbols else _UNAVAILABLE

    def _age_ms(self) -> float | None:
        """Return the age of the oldest update that was written in the last seconds."""
        age_s = self._sources.market.ages.recent_s()
        return None if age_s is None else age_s * 1_000


def _sums(counts: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    """Return the sum of each count."""
    first, *others = counts
    return {name: count + sum(each[name] for each in others) for name, count in first.items()}
