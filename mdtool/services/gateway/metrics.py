"""`/metrics`: what the gateway and the stream behind it count, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from mdtool.core.breaker import Circuit
from mdtool.services.gateway.feed import Feed
from mdtool.services.gateway.history.face import History
from mdtool.services.gateway.protection import Protection
from mdtool.services.gateway.quotes.face import Quotes
from mdtool.services.gateway.resilience import Resilience
from mdtool.services.gateway.state import MarketState
from mdtool.services.gateway.tallies import BOUNDS_S, Tallies, Times
from mdtool.wire.batches import Counts


def registry(
    state: MarketState,
    feed: Feed,
    quotes: Quotes,
    history: History,
    protection: Protection,
    tallies: Tallies,
) -> CollectorRegistry:
    """Return a registry of the gateway's own, read when it is scraped."""
    metrics = CollectorRegistry()
    ProcessCollector(registry=metrics)
    metrics.register(_GatewayCollector(state, feed, quotes, history, protection, tallies))
    return metrics


class _GatewayCollector(Collector):
    def __init__(
        self,
        state: MarketState,
        feed: Feed,
        quotes: Quotes,
        history: History,
        protection: Protection,
        tallies: Tallies,
    ) -> None:
        self._state = state
        self._feed = feed
        self._quotes = quotes
        self._history = history
        self._protection = protection
        self._tallies = tallies

    def collect(self) -> Iterator[Metric]:
        if self._feed.counts is not None:
            yield from _ticks(self._feed.counts)
        yield from self._stream()
        yield from self._known_quotes()
        yield from self._questions()
        yield from self._store()
        yield self._refused()
        yield _counter(
            "mdtool_client_waits",
            "Messages that waited, as their client had taken more than its share of the time.",
            self._protection.time_share.waits,
        )
        yield self._requests()
        yield from self._sockets()

    def _stream(self) -> Iterator[Metric]:
        state, feed = self._state, self._feed
        yield _gauge("mdtool_stream_up", "Whether the aggregator's stream is there.", state.is_live)
        yield _gauge(
            "mdtool_stream_held_up", "Whether the aggregator can commit no ticks.", feed.is_held_up
        )
        yield _gauge("mdtool_symbols", "Symbols that are known.", len(state.symbols))
        yield _gauge("mdtool_symbols_stale", "Those that are stale.", state.stale_count())
        yield _counter(
            "mdtool_stream_connections", "Streams opened to the aggregator.", feed.connections
        )
        yield _counter("mdtool_stream_messages", "Messages of those streams.", feed.messages)

    def _known_quotes(self) -> Iterator[Metric]:
        report = self._quotes.report()
        yield _gauge("mdtool_quotes", "Symbols that have a quote.", report["known"])
        yield _gauge("mdtool_quotes_stale", "Those that nobody stands for.", report["stale"])
        yield _gauge("mdtool_quote_hub_up", "Whether the hub is there.", report["hub"]["connected"])
        if report["source"] is not None:
            up = report["source"]["connected"]
            yield _gauge("mdtool_quote_source_up", "Whether the stream is there.", up)

    def _questions(self) -> Iterator[Metric]:
        resilience = self._protection.resilience
        yield _outcomes("mdtool_upstream_calls", "Questions to the aggregator", resilience)
        yield _counter(
            "mdtool_upstream_repeats", "Those that were asked again.", resilience.repeated
        )
        yield _counter("mdtool_circuit_opened", "Times the circuit opened.", resilience.opened)
        circuit = GaugeMetricFamily(
            "mdtool_circuit", "1 for the state of the circuit.", labels=("state",)
        )
        for state in Circuit:
            circuit.add_metric((state.value,), state is resilience.circuit)
        yield circuit

    def _store(self) -> Iterator[Metric]:
        report = self._history.report()
        if report is None:
            return
        yield _gauge("mdtool_store_up", "Whether the store answers.", report["connected"])
        yield _outcomes("mdtool_store_calls", "Questions to the store", self._history.resilience)

    def _refused(self) -> Metric:
        family = CounterMetricFamily(
            "mdtool_refused", "What clients asked for over a limit.", labels=("limit",)
        )
        for limit, count in self._protection.refused.items():
            family.add_metric((limit,), count)
        return family

    def _requests(self) -> Metric:
        family = HistogramMetricFamily(
            "mdtool_request_seconds",
            "HTTP requests by route and status.",
            labels=("route", "status"),
        )
        for route, tally in self._tallies.routes.items():
            for status, times in tally.by_status.items():
                family.add_metric((route, str(status)), _cumulated(times), times.total_s)
        return family

    def _sockets(self) -> Iterator[Metric]:
        labels = ("path",)
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {
            "open": GaugeMetricFamily("mdtool_sockets", "WebSockets open.", labels=labels),
            "opened": CounterMetricFamily(
                "mdtool_sockets_opened", "WebSockets ever.", labels=labels
            ),
            "refused": CounterMetricFamily(
                "mdtool_sockets_refused", "Turned away for their number.", labels=labels
            ),
            "sent": CounterMetricFamily(
                "mdtool_socket_messages", "Messages written to WebSockets.", labels=labels
            ),
            "conflated": CounterMetricFamily(
                "mdtool_socket_conflated", "Messages that a later one replaced.", labels=labels
            ),
            "behind": CounterMetricFamily(
                "mdtool_sockets_behind", "Closed because the client did not read.", labels=labels
            ),
        }
        for path, tally in self._tallies.sockets.items():
            for name, family in families.items():
                family.add_metric((path,), getattr(tally, name))
        yield from families.values()


def _ticks(counts: Counts) -> Iterator[Metric]:
    yield _counter("mdtool_ticks", "Ticks that the aggregator took.", counts.ticks)
    yield _counter(
        "mdtool_ticks_duplicate", "Ticks that were sent again and left out.", counts.duplicates
    )
    yield _counter("mdtool_ticks_late", "Ticks too late for a time bar.", counts.late)
    refused = CounterMetricFamily("mdtool_ticks_refused", "Ticks refused.", labels=("reason",))
    for reason, count in counts.refused.items():
        refused.add_metric((reason,), count)
    yield refused


def _outcomes(name: str, text: str, resilience: Resilience) -> Metric:
    calls = CounterMetricFamily(
        name, f"{text} by what became of them; repeated ones count again.", labels=("outcome",)
    )
    for outcome in ("answered", "failed", "refused"):
        calls.add_metric((outcome,), getattr(resilience, outcome))
    return calls


def _cumulated(times: Times) -> list[tuple[str, float]]:
    bounds = (*map(str, BOUNDS_S), "+Inf")
    return list(zip(bounds, accumulate(times.buckets), strict=True))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)
