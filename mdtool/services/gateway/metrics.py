"""`/metrics`: what the gateway and the stream behind it count, as Prometheus reads it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from mdtool.core.breaker import Circuit
from mdtool.services.families import (
    LoopLag,
    accept_pauses,
    alerts,
    connections,
    counter,
    gauge,
    histogram,
    labelled,
    ticks,
)
from mdtool.services.gateway.http import Routes
from mdtool.services.gateway.protocols import Paths
from mdtool.services.gateway.sources import Sources
from mdtool.services.gateway.upstream import Upstream
from mdtool.services.gateway.workers.peers import Peers
from mdtool.services.metrics import PATH, exposition
from mdtool.services.times import Histogram

_HIGHEST: Final = frozenset({"mdtool_update_age_recent_seconds", "mdtool_loop_lag_seconds"})
"""Metrics of which the highest of all workers counts, not their sum."""
_LOWEST: Final = frozenset({"process_start_time_seconds"})
_REPORT: Final = "metrics"

_Samples = Mapping[tuple[str, str, tuple[tuple[str, str], ...]], float]
"""Values by family, name and labels."""


class Metrics:
    """The handler of `/metrics`, whose registry is collected when it is scraped.

    What clients and processes account for is that of all workers together; of what is behind the
    gateway, each worker sees the same.

    Parameters
    ----------
    sources : Sources
    served : Routes
    peers : Peers, optional
        The other workers.
    """

    def __init__(self, sources: Sources, served: Routes, peers: Peers | None = None) -> None:
        self._peers = peers
        self._market = _MarketCollector(sources)
        own = CollectorRegistry()
        ProcessCollector(registry=own)
        GCCollector(registry=own)
        self._lag = LoopLag()
        own.register(_ClientsCollector(sources, served, self._lag))
        self._own = own
        if peers is not None:
            peers.report(_REPORT, self._encode)

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {("GET", PATH): self.answer}

    async def run(self) -> None:
        """Measure how late the event loop is, until cancelled."""
        async with self._lag:
            await asyncio.get_running_loop().create_future()

    async def answer(self, request: web.Request) -> web.Response:
        """`GET /metrics`: as OpenMetrics where the request prefers that, else as text."""
        others = [] if self._peers is None else await self._peers.request(_REPORT)
        registry = CollectorRegistry()
        registry.register(self._market)
        registry.register(_Total(self._own, map(_decode, others)))
        return exposition(request, registry)

    def _encode(self) -> bytes:
        """Return this worker's part for another one."""
        samples = [
            (family.name, sample.name, sorted(sample.labels.items()), sample.value)
            for family in self._own.collect()
            for sample in family.samples
        ]
        return json.dumps(samples).encode()


def _decode(report: bytes) -> _Samples:
    return {
        (family, name, tuple((label, value) for label, value in labels)): value
        for family, name, labels, value in json.loads(report)
    }


class _Total(Collector):
    """The metrics of this worker and of others, added up."""

    def __init__(self, own: CollectorRegistry, others: Iterable[_Samples]) -> None:
        self._own = own
        self._others = list(others)

    def collect(self) -> Iterator[Metric]:
        for family in self._own.collect():
            values: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {}
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.items()))
                values[sample.name, labels] = [sample.value]
            for samples in self._others:
                for (of, name, labels), value in samples.items():
                    if of == family.name:
                        values.setdefault((name, labels), []).append(value)
            total = max if family.name in _HIGHEST else min if family.name in _LOWEST else sum
            summed = Metric(family.name, family.documentation, family.type)
            for (name, labels), each in values.items():
                summed.add_sample(name, dict(labels), total(each))
            yield summed


class _MarketCollector(Collector):
    """The metrics of the services behind the gateway."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        if self._sources.market.counts is not None:
            yield from ticks(self._sources.market.counts)
        yield from self._stream()
        yield from self._quotes()
        yield from alerts(self._sources.alerts.watch, self._sources.alerts.webhooks)
        yield self._circuit()
        if self._sources.history is not None:
            is_up = self._sources.history.lost_because is None
            yield gauge("mdtool_store_up", is_up)

    def _stream(self) -> Iterator[Metric]:
        market, state = self._sources.market, self._sources.market.state
        yield gauge("mdtool_stream_up", state.is_live)
        yield gauge(
            "mdtool_stream_held_up",
            market.is_blocked,
        )
        yield gauge("mdtool_symbols", len(state.symbols))
        yield gauge("mdtool_symbols_stale", state.stale_count())
        yield counter("mdtool_stream_connections", market.connections)
        yield counter("mdtool_stream_messages", market.messages)

    def _quotes(self) -> Iterator[Metric]:
        report = self._sources.quotes.report()
        yield gauge("mdtool_quotes", report["known"])
        yield gauge("mdtool_quotes_stale", report["stale"])
        up = report["hub"]["connected"]
        yield gauge("mdtool_quote_hub_up", up)
        if report["source"] is not None:
            up = report["source"]["connected"]
            yield gauge("mdtool_quote_source_up", up)

    def _circuit(self) -> Metric:
        current = self._sources.upstream.circuit
        return labelled("mdtool_circuit", {state.value: state is current for state in Circuit})


class _ClientsCollector(Collector):
    """The metrics of clients."""

    def __init__(self, sources: Sources, served: Routes, lag: LoopLag) -> None:
        self._lag = lag
        self._sources = sources
        self._served = served

    def collect(self) -> Iterator[Metric]:
        yield from self._fanout()
        yield from self._upstream()
        yield labelled("mdtool_refused", self._served.refused)
        yield accept_pauses()
        yield gauge("mdtool_loop_lag_seconds", self._lag.seconds)
        yield counter(
            "mdtool_client_waits",
            self._served.admission.waits,
        )
        yield self._requests()
        yield from connections(self._served.admission.tallies)

    def _fanout(self) -> Iterator[Metric]:
        ages, hub = self._sources.market.ages, self._sources.hub
        yield histogram("mdtool_update_age_seconds", {(): ages})
        yield gauge(
            "mdtool_update_age_recent_seconds",
            ages.recent_s() or 0.0,
        )
        yield counter("mdtool_fanout_rounds", hub.rounds)
        yield counter(
            "mdtool_fanout_conflated",
            hub.conflated,
        )
        yield counter(
            "mdtool_fanout_dropped",
            hub.dropped,
        )

    def _upstream(self) -> Iterator[Metric]:
        upstream, history = self._sources.upstream, self._sources.history
        yield _outcomes("mdtool_upstream_calls", upstream)
        yield counter("mdtool_upstream_repeats", upstream.repeated)
        yield counter("mdtool_circuit_opened", upstream.opened)
        if history is not None:
            yield _outcomes("mdtool_store_calls", history.upstream)

    def _requests(self) -> Metric:
        times: dict[tuple[str, ...], Histogram] = {
            (route, str(status)): each
            for route, of_route in self._served.times.items()
            for status, each in of_route.by_status.items()
        }
        return histogram("mdtool_request_seconds", times)


def _outcomes(name: str, upstream: Upstream) -> Metric:
    outcomes = ("answered", "failed", "refused")
    return labelled(name, {outcome: getattr(upstream, outcome) for outcome in outcomes})
