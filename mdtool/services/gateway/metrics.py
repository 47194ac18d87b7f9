"""`/metrics`: what the gateway and the stream behind it count, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from mdtool.core.breaker import Circuit
from mdtool.core.descriptors import shortage
from mdtool.services.gateway.ages import BOUNDS_S
from mdtool.services.gateway.http import TIMES_S, Routes
from mdtool.services.gateway.protocols import Paths
from mdtool.services.gateway.sources import Sources
from mdtool.services.gateway.upstream import Upstream
from mdtool.wire.batches import Counts


class Metrics:
    """The handler of `/metrics`, whose registry is collected when it is scraped.

    Parameters
    ----------
    sources : Sources
    served : Routes
    """

    def __init__(self, sources: Sources, served: Routes) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_GatewayCollector(sources, served))

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {("GET", "/metrics"): self.answer}

    async def answer(self, _request: web.Request) -> web.Response:
        """`GET /metrics`."""
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


class _GatewayCollector(Collector):
    def __init__(self, sources: Sources, served: Routes) -> None:
        self._sources = sources
        self._served = served

    def collect(self) -> Iterator[Metric]:
        if self._sources.market.counts is not None:
            yield from _ticks(self._sources.market.counts)
        yield from self._stream()
        yield from self._quotes()
        yield from self._upstream()
        yield from self._store()
        yield self._rejected()
        yield _counter(
            "mdtool_accept_pauses",
            "Times that a listener paused, for the process had no descriptor left.",
            shortage.pauses,
        )
        yield _counter(
            "mdtool_client_waits",
            "Messages that waited, for their client had used its share of the time.",
            self._served.admission.waits,
        )
        yield self._requests()
        yield from self._sockets()

    def _stream(self) -> Iterator[Metric]:
        market, state = self._sources.market, self._sources.market.state
        yield _gauge(
            "mdtool_stream_up", "Whether the aggregator's stream is connected.", state.is_live
        )
        yield _gauge(
            "mdtool_stream_held_up",
            "Whether the aggregator cannot commit ticks.",
            market.is_blocked,
        )
        yield _gauge("mdtool_symbols", "Symbols that are known.", len(state.symbols))
        yield _gauge("mdtool_symbols_stale", "Those that are stale.", state.stale_count())
        yield _counter(
            "mdtool_stream_connections", "Streams opened to the aggregator.", market.connections
        )
        yield _counter("mdtool_stream_messages", "Messages of those streams.", market.messages)
        yield from self._fanout()

    def _fanout(self) -> Iterator[Metric]:
        ages, hub = self._sources.market.ages, self._sources.hub
        yield HistogramMetricFamily(
            "mdtool_update_age_seconds",
            "Age of the oldest update of a round, from ingest to its last write.",
            buckets=_cumulated(BOUNDS_S, ages.buckets),
            sum_value=ages.total_s,
        )
        yield _gauge(
            "mdtool_update_age_recent_seconds",
            "The highest of those ages in the last seconds, 0 where nothing was written.",
            ages.recent_s() or 0.0,
        )
        yield _counter("mdtool_fanout_rounds", "Rounds of writes to clients.", hub.rounds)
        yield _counter(
            "mdtool_fanout_conflated",
            "Payloads that a later one replaced while a round was written.",
            hub.conflated,
        )
        yield _counter(
            "mdtool_fanout_dropped",
            "Events that were dropped while a round was written, and reported as missed.",
            hub.dropped,
        )

    def _quotes(self) -> Iterator[Metric]:
        report = self._sources.quotes.report()
        yield _gauge("mdtool_quotes", "Symbols that have a quote.", report["known"])
        yield _gauge("mdtool_quotes_stale", "Those that are stale.", report["stale"])
        up = report["hub"]["connected"]
        yield _gauge("mdtool_quote_hub_up", "Whether the hub is connected.", up)
        if report["source"] is not None:
            up = report["source"]["connected"]
            yield _gauge("mdtool_quote_source_up", "Whether the DBN stream is connected.", up)

    def _upstream(self) -> Iterator[Metric]:
        upstream = self._sources.upstream
        yield _outcomes("mdtool_upstream_calls", "Requests to the aggregator", upstream)
        yield _counter("mdtool_upstream_repeats", "Those that were repeated.", upstream.repeated)
        yield _counter("mdtool_circuit_opened", "Times the circuit opened.", upstream.opened)
        circuit = GaugeMetricFamily(
            "mdtool_circuit", "1 for the state of the circuit.", labels=("state",)
        )
        for state in Circuit:
            circuit.add_metric((state.value,), state is upstream.circuit)
        yield circuit

    def _store(self) -> Iterator[Metric]:
        history = self._sources.history
        if history is None:
            return
        is_up = history.lost_because is None
        yield _gauge("mdtool_store_up", "Whether the store responds.", is_up)
        yield _outcomes("mdtool_store_calls", "Requests to the store", history.upstream)

    def _rejected(self) -> Metric:
        family = CounterMetricFamily(
            "mdtool_refused", "Requests of clients over a limit.", labels=("limit",)
        )
        for limit, count in self._served.refused.items():
            family.add_metric((limit,), count)
        return family

    def _requests(self) -> Metric:
        family = HistogramMetricFamily(
            "mdtool_request_seconds",
            "HTTP requests by route and status.",
            labels=("route", "status"),
        )
        for route, of_route in self._served.times.items():
            for status, times in of_route.by_status.items():
                family.add_metric(
                    (route, str(status)), _cumulated(TIMES_S, times.buckets), times.total_s
                )
        return family

    def _sockets(self) -> Iterator[Metric]:
        labels = ("path",)
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {
            "open": GaugeMetricFamily("mdtool_sockets", "WebSockets open.", labels=labels),
            "opened": CounterMetricFamily(
                "mdtool_sockets_opened", "WebSockets ever.", labels=labels
            ),
            "refused": CounterMetricFamily(
                "mdtool_sockets_refused", "Rejected for their number.", labels=labels
            ),
            "sent": CounterMetricFamily(
                "mdtool_socket_messages", "Messages written to WebSockets.", labels=labels
            ),
            "conflated": CounterMetricFamily(
                "mdtool_socket_conflated", "Messages that a later one replaced.", labels=labels
            ),
            "dropped": CounterMetricFamily(
                "mdtool_socket_dropped",
                "Events that a slow client missed; each loss is reported to it.",
                labels=labels,
            ),
            "behind": CounterMetricFamily(
                "mdtool_sockets_behind", "Closed because the client did not read.", labels=labels
            ),
        }
        for path, tally in self._served.admission.tallies.items():
            for name, family in families.items():
                family.add_metric((path,), getattr(tally, name))
        yield from families.values()


def _ticks(counts: Counts) -> Iterator[Metric]:
    yield _counter("mdtool_ticks", "Ticks that the aggregator accepted.", counts.ticks)
    yield _counter(
        "mdtool_ticks_duplicate", "Ticks that were resent and skipped.", counts.duplicates
    )
    yield _counter("mdtool_ticks_late", "Ticks too late for a time bar.", counts.late)
    refused = CounterMetricFamily("mdtool_ticks_refused", "Ticks refused.", labels=("reason",))
    for reason, count in counts.refused.items():
        refused.add_metric((reason,), count)
    yield refused


def _outcomes(name: str, text: str, upstream: Upstream) -> Metric:
    calls = CounterMetricFamily(
        name, f"{text}, by outcome; repeated ones count again.", labels=("outcome",)
    )
    for outcome in ("answered", "failed", "refused"):
        calls.add_metric((outcome,), getattr(upstream, outcome))
    return calls


def _cumulated(bounds: Sequence[float], buckets: Sequence[int]) -> list[tuple[str, float]]:
    return list(zip((*map(str, bounds), "+Inf"), accumulate(buckets), strict=True))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)
